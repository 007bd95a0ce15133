//! Connections that stay open.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use fiberlb_lab::Vm;
use fiberlb_lab::workload::Answer;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// Longest wait for one step: several lost packets long.
const PATIENCE: Duration = Duration::from_secs(8);

/// An open connection to a server that echoes.
pub(crate) struct EchoConnection {
    stream: BufReader<TcpStream>,
    /// The client as the server sees it: a proxy node's address where one is between.
    pub(crate) seen: IpAddr,
    /// Name of the server.
    pub(crate) server: String,
    /// Address that it was made to.
    pub(crate) target: SocketAddr,
}

impl EchoConnection {
    /// Connects, and reads which server answers.
    pub(crate) async fn open(client: &Vm, target: SocketAddr) -> EchoConnection {
        EchoConnection::try_open(client, target).await.unwrap()
    }

    /// The same, or the error that ends it, such as a reset.
    pub(crate) async fn try_open(client: &Vm, target: SocketAddr) -> std::io::Result<EchoConnection> {
        let socket =
            client.with_netns(|| if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() });
        let connected = timeout(PATIENCE, socket.unwrap().connect(target)).await;
        let mut stream = BufReader::new(connected.expect("no connection")?);
        let mut line = String::new();
        timeout(PATIENCE, stream.read_line(&mut line)).await.expect("no answer")?;
        let answer: Answer = line.parse().unwrap();
        Ok(EchoConnection { stream, seen: answer.client.ip(), server: answer.server, target })
    }

    /// Several of them.
    pub(crate) async fn open_many(client: &Vm, target: SocketAddr, count: usize) -> Vec<EchoConnection> {
        let mut connections = Vec::with_capacity(count);
        for _ in 0..count {
            connections.push(EchoConnection::open(client, target).await);
        }
        connections
    }

    /// True if an echo comes back.
    pub(crate) async fn echoes(&mut self) -> bool {
        let said = timeout(PATIENCE, async {
            self.stream.get_mut().write_all(b"still there?\n").await?;
            let mut line = String::new();
            self.stream.read_line(&mut line).await?;
            std::io::Result::Ok(line == "still there?\n")
        });
        matches!(said.await, Ok(Ok(true)))
    }

    /// Goes on until the connection ends; true: by a reset.
    pub(crate) async fn is_reset(&mut self) -> bool {
        let ended = timeout(PATIENCE, async {
            loop {
                self.stream.get_mut().write_all(b"still there?\n").await?;
                if self.stream.read_line(&mut String::new()).await? == 0 {
                    return std::io::Result::Ok(());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let error = ended.await.ok().and_then(Result::err).map(|error| error.kind());
        matches!(error, Some(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe))
    }
}

/// Number of them that still work.
pub(crate) async fn alive(connections: &mut [EchoConnection]) -> usize {
    let mut alive = 0;
    for connection in connections {
        alive += usize::from(connection.echoes().await);
    }
    alive
}
