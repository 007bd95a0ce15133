//! One request: make a socket in the VM, ask, read the answer, close.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::{TcpSocket, UdpSocket};
use tokio::time::timeout;

use crate::vm::Vm;
use crate::workload::Answer;

/// Far above what a server writes: a peer that is none of ours cannot fill the memory.
const LONGEST_ANSWER: u64 = 1024;

/// A datagram without an answer is sent again after this time, as TCP would.
const RESEND: Duration = Duration::from_secs(1);

/// Connects, reads one line, closes.
pub(super) async fn tcp(vm: &Vm, target: SocketAddr) -> io::Result<Answer> {
    let socket =
        vm.with_netns(|| if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() })?;
    let stream = socket.connect(target).await?;
    let mut line = String::new();
    BufReader::new(stream.take(LONGEST_ANSWER)).read_line(&mut line).await?;
    parse(&line)
}

/// Sends a datagram, again each second, until one comes back.
pub(super) async fn udp(vm: &Vm, target: SocketAddr) -> io::Result<Answer> {
    let any: IpAddr =
        if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = vm.udp_socket(SocketAddr::new(any, 0))?;
    socket.set_nonblocking(true)?;
    let socket = UdpSocket::from_std(socket)?;
    socket.connect(target).await?;
    let mut buffer = [0; LONGEST_ANSWER as usize];
    loop {
        socket.send(b"?").await?;
        if let Ok(received) = timeout(RESEND, socket.recv(&mut buffer)).await {
            let datagram = buffer.get(..received?).unwrap_or_default();
            return parse(&String::from_utf8_lossy(datagram));
        }
    }
}

fn parse(line: &str) -> io::Result<Answer> {
    if line.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed without an answer"));
    }
    line.parse().map_err(io::Error::other)
}
