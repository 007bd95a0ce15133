//! State of a process that a page started, from `/proc`: its children, liveness and listener addresses.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

/// The children of a process' main thread.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}

/// True while it runs. A zombie does not.
pub(crate) fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// The pid of a process in its innermost process namespace.
pub(crate) fn inner_pid(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().next_back()?.parse().ok()
}

/// IPv4 addresses on which a process listens for TCP, as seen in its network namespace.
pub(crate) fn listening(pid: u32) -> Vec<SocketAddr> {
    let own = sockets(pid);
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
    let rows = table.lines().skip(1).filter_map(row);
    rows.filter(|(_, inode)| own.contains(inode)).map(|(address, _)| address).collect()
}

fn sockets(pid: u32) -> Vec<u64> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let links = entries.filter_map(|entry| fs::read_link(entry.path()).ok()?.to_str().map(str::to_owned));
    links.filter_map(|link| link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()).collect()
}

/// Address and inode of a row of `/proc/net/tcp`, if it is a listening socket's.
fn row(text: &str) -> Option<(SocketAddr, u64)> {
    let fields: Vec<&str> = text.split_whitespace().collect();
    let (address, port) = fields.get(1)?.split_once(':')?;
    if *fields.get(3)? != "0A" {
        return None;
    }
    // The kernel prints the address as a number in its own byte order.
    let address = Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?.to_ne_bytes());
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(((address, port).into(), fields.get(9)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listening_socket_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(listening(std::process::id()).contains(&listener.local_addr().unwrap()));
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert!(!listening(std::process::id()).contains(&address));
    }

    #[test]
    fn only_listening_rows_count() {
        let line = "   0: 0100007F:259E 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1234 1 0";
        let address: SocketAddr = "127.0.0.1:9630".parse().unwrap();
        assert_eq!(row(line), cfg!(target_endian = "little").then_some((address, 1234)));
        assert_eq!(row(&line.replace(" 0A ", " 01 ")), None);
        assert_eq!(row("x"), None);
    }

    #[test]
    fn a_child_that_has_ended_does_not_run() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        while is_running(pid) {
            std::thread::yield_now();
        }
        assert!(inner_pid(std::process::id()).is_some());
        child.wait().unwrap();
        assert!(!is_running(pid));
    }
}
