//! The access log as messages to syslog on this machine (RFC 3164, as syslog(3) writes them).

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::SystemTime;

use prost_types::Timestamp;

/// Priority of a line: facility local0, severity informational.
const PRIORITY: u8 = 16 * 8 + 6;

/// Tag of the messages.
const TAG: &str = "fiberlb-access";

/// Socket of syslog.
#[derive(Debug)]
pub(super) struct Syslog {
    path: PathBuf,
    socket: Option<UnixDatagram>,
}

impl Syslog {
    /// A socket at this path, which is connected to with the first line.
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, socket: None }
    }

    /// Sends a line. After an error, as when syslog was started anew, it is connected to once more.
    pub(super) fn send(&mut self, line: &str) -> io::Result<()> {
        let message = message(SystemTime::now(), line);
        if let Some(socket) = &self.socket
            && socket.send(message.as_bytes()).is_ok()
        {
            return Ok(());
        }
        self.socket = None;
        let socket = UnixDatagram::unbound()?;
        // One that reads nothing must not hold up the others.
        socket.set_nonblocking(true)?;
        socket.connect(&self.path)?;
        socket.send(message.as_bytes())?;
        self.socket = Some(socket);
        Ok(())
    }
}

fn message(now: SystemTime, line: &str) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let time = Timestamp::from(now).to_string();
    let part = |range: std::ops::Range<usize>| time.get(range).unwrap_or_default();
    let month = part(5..7).parse::<usize>().unwrap_or(1).saturating_sub(1);
    let month = MONTHS.get(month).copied().unwrap_or("Jan");
    let day: u8 = part(8..10).parse().unwrap_or(1);
    format!("<{PRIORITY}>{month} {day:>2} {} {TAG}: {}", part(11..19), line.trim_end())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn messages_have_the_form_of_syslog() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_701_399_845);
        assert_eq!(message(now, "{}\n"), "<134>Dec  1 03:04:05 fiberlb-access: {}");
    }

    #[test]
    fn a_syslog_that_was_started_anew_gets_the_next_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log");
        let mut syslog = Syslog::new(path.clone());
        assert!(syslog.send("nobody is there").is_err());
        for _ in 0..2 {
            let server = UnixDatagram::bind(&path).unwrap();
            syslog.send("{\"a\":1}\n").unwrap();
            let mut buffer = [0; 200];
            let length = server.recv(&mut buffer).unwrap();
            let message = String::from_utf8_lossy(&buffer[..length]);
            assert!(message.ends_with("fiberlb-access: {\"a\":1}"), "{message}");
            std::fs::remove_file(&path).unwrap();
        }
    }
}
