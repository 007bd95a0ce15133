//! Real clients and backends, at the far ends of tenants' links. The far end of a link has `10.0.0.1/24`, on every network;
//! sockets are bound to the link, so that networks with the same addresses are told apart.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use fiberlb_node::netns::Netns;
use fiberlb_northbound::plan::Installation;
use fiberlb_proxy::network::Names;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use crate::chassis::INSTALLATION;
use crate::configurations::{NODE, PORT};
use crate::world::{LONG, World};

/// The far end of a network's link.
#[derive(Clone)]
pub(crate) struct FarEnd {
    netns: Netns,
    pub(crate) link: String,
}

/// Name of a network's link outside.
pub(crate) fn link(network: Uuid) -> String {
    Names(Installation(INSTALLATION)).outside(network).unwrap().to_string()
}

/// Name of a network's namespace.
pub(crate) fn namespace(network: Uuid) -> String {
    format!("fiberlb-{}-{}", &INSTALLATION.simple().to_string()[..8], network.simple())
}

impl FarEnd {
    /// Gives the far end its address.
    pub(crate) fn of(world: &World, network: Uuid) -> Self {
        let link = link(network);
        world.run(&format!("ip address replace 10.0.0.1/24 dev {link}"));
        Self { netns: world.netns(), link }
    }

    fn socket(&self) -> io::Result<Socket> {
        let socket =
            self.netns.run(|| Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None)).flatten()?;
        socket.bind_device(Some(self.link.as_bytes()))?;
        Ok(socket)
    }

    /// A backend that greets every client with its name and then echoes.
    pub(crate) fn backend(&self, port: u16, name: &'static str) -> tokio::task::JoinHandle<()> {
        let socket = self.socket().unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&SocketAddr::from(([10, 0, 0, 1], port)).into()).unwrap();
        socket.listen(64).unwrap();
        let listener = TcpListener::from_std(socket.into()).unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let _ = stream.write_all(name.as_bytes()).await;
                    let (mut reader, mut writer) = stream.split();
                    let _ = tokio::io::copy(&mut reader, &mut writer).await;
                });
            }
        })
    }

    /// Connects to an address of the network.
    pub(crate) async fn connect(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = self.socket()?;
        match socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() != Some(nix::libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        let stream = TcpStream::from_std(socket.into())?;
        tokio::time::timeout(Duration::from_secs(3), stream.writable()).await??;
        stream.take_error()?.map_or(Ok(stream), Err)
    }

    /// Answer of an address.
    pub(crate) async fn ask(&self, to: SocketAddr) -> io::Result<String> {
        let mut stream = self.connect(to).await?;
        let mut name = [0; 16];
        let read = tokio::time::timeout(Duration::from_secs(3), stream.read(&mut name)).await??;
        Ok(String::from_utf8(name[..read].to_vec()).unwrap())
    }

    /// Answer at the node's own address and the listeners' port.
    pub(crate) async fn ask_node(&self) -> io::Result<String> {
        self.ask(format!("{NODE}:{PORT}").parse().unwrap()).await
    }

    /// Waits until this one answers there.
    pub(crate) async fn answers(&self, name: &str) {
        let mut last = String::new();
        let wait = async {
            loop {
                last = format!("{:?}", self.ask_node().await);
                if last == format!("Ok({name:?})") {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let in_time = tokio::time::timeout(LONG, wait).await.is_ok();
        assert!(in_time, "{name} never answers; last {last}");
    }

    /// Waits until nobody answers there any more.
    pub(crate) async fn refuses(&self) {
        let wait = async {
            while self.ask_node().await.is_ok_and(|name| !name.is_empty()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LONG, wait).await.expect("it is refused");
    }
}

/// Text of the agent's `/metrics`.
pub(crate) async fn metrics(world: &World) -> String {
    let socket = world.netns().run(|| Socket::new(Domain::IPV4, Type::STREAM, None)).flatten().unwrap();
    socket.connect(&SocketAddr::from(([127, 0, 0, 1], 9632)).into()).unwrap();
    socket.set_nonblocking(true).unwrap();
    let mut stream = TcpStream::from_std(socket.into()).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}
