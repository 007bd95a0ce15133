//! Notifications to the service manager (systemd, `Type=notify`). Without one, nothing is sent.

use std::fmt::Write as _;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Environment variable of systemd: path of the socket for notifications, or `@` and an abstract name.
const NOTIFY_SOCKET: &str = "NOTIFY_SOCKET";
/// Longest wait for a service manager whose queue of notifications is full.
const PATIENCE: Duration = Duration::from_secs(5);
/// Beats within one period of the watchdog: one that is late by a whole interval still counts.
const BEATS: u32 = 3;

/// Reports that all listeners accept, with a line for `systemctl status`.
pub async fn ready(status: &str) {
    announce(&[NotifyState::Ready, NotifyState::Status(status)]).await;
}

/// Reports that the process is shutting down, after the last beat of `watchdog`, the task of [`feed_watchdog`]: one that came
/// later would arm the service manager's watchdog again, which would kill a process that drains. One on the way already is
/// undone.
pub async fn stopping(watchdog: JoinHandle<()>) {
    end(watchdog).await;
    let mut states = vec![NotifyState::Stopping, NotifyState::Status("stopping")];
    if sd_notify::watchdog_enabled().is_some() {
        states.push(NotifyState::WatchdogUsec(0));
    }
    announce(&states).await;
}

/// Feeds the watchdog (`WatchdogSec`) for as long as `round` ends in time, which is to pass through each runtime that serves.
/// Returns at once where no watchdog is set.
pub async fn feed_watchdog(round: impl AsyncFn()) {
    let Some(period) = sd_notify::watchdog_enabled() else { return };
    // Not waited for: the next one comes soon.
    feed(period, round, || log(try_send(&[NotifyState::Watchdog]))).await;
}

/// Ends a task; none of its code runs afterwards.
async fn end(task: JoinHandle<()>) {
    task.abort();
    // An error: it was aborted, which is the aim.
    let _ = task.await;
}

async fn feed(period: Duration, round: impl AsyncFn(), beat: impl Fn()) {
    loop {
        round().await;
        beat();
        tokio::time::sleep(period / BEATS).await;
    }
}

/// Sends a notification that must arrive.
async fn announce(states: &[NotifyState<'_>]) {
    let sent = async {
        let Some(socket) = connect()? else { return Ok(()) };
        let socket = tokio::net::UnixDatagram::from_std(socket)?;
        timeout(PATIENCE, socket.send(message(states).as_bytes())).await?.map(drop)
    };
    log(sent.await);
}

/// Sends a notification unless the queue of the service manager is full.
fn try_send(states: &[NotifyState<'_>]) -> io::Result<()> {
    let Some(socket) = connect()? else { return Ok(()) };
    socket.send(message(states).as_bytes()).map(drop)
}

/// Socket to the service manager, on which nothing blocks; `None`: there is no service manager.
fn connect() -> io::Result<Option<UnixDatagram>> {
    let Some(path) = std::env::var_os(NOTIFY_SOCKET) else { return Ok(None) };
    let address = match path.as_encoded_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(&path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(Some(socket))
}

fn message(states: &[NotifyState<'_>]) -> String {
    states.iter().fold(String::new(), |mut text, state| {
        // Writing into a String does not fail.
        let _ = writeln!(text, "{state}");
        text
    })
}

fn log(sent: io::Result<()>) {
    if let Err(error) = sent {
        tracing::warn!(%error, "cannot notify the service manager");
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_runtime_that_is_stuck_gets_no_beat() {
        let (rounds, beats) = (Cell::new(0), Cell::new(0));
        let round = async || {
            rounds.set(rounds.get() + 1);
            if rounds.get() == 4 {
                std::future::pending::<()>().await;
            }
        };
        let fed = feed(Duration::from_secs(30), round, || beats.set(beats.get() + 1));
        tokio::pin!(fed);
        assert!(timeout(Duration::from_secs(25), &mut fed).await.is_err());
        assert_eq!(beats.get(), 3, "one in each third of the period");
        assert!(timeout(Duration::from_secs(300), &mut fed).await.is_err());
        assert_eq!((rounds.get(), beats.get()), (4, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn no_beat_follows_the_end() {
        let beats = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&beats);
        let feed = feed(
            Duration::from_secs(3),
            async || {},
            move || {
                counted.fetch_add(1, Ordering::Relaxed);
            },
        );
        let fed = tokio::spawn(feed);
        tokio::time::sleep(Duration::from_millis(1500)).await;
        end(fed).await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(beats.load(Ordering::Relaxed), 2);
    }
}
