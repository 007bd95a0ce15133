//! A server in a VM that says who it is and whom it sees.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use socket2::SockRef;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::vm::Vm;
use crate::workload::Answer;

/// Room for datagrams that have not been answered yet, in bytes.
const RECEIVE_BUFFER: usize = 4 << 20;

/// Answers each TCP connection, or each UDP datagram, with one line (see [`Answer`]). A TCP connection then stays open and
/// echoes what the client sends, until the client closes it. Ends on drop, with all its connections.
#[derive(Debug)]
pub struct Server {
    name: String,
    address: SocketAddr,
    answered: Arc<AtomicU64>,
    // Dropped, it tells the thread to end.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// A TCP server in a VM. Port 0 takes a free one. `name` has no spaces.
    ///
    /// # Errors
    /// The kernel's.
    pub fn tcp(vm: &Vm, address: SocketAddr, name: &str) -> io::Result<Server> {
        let listener = vm.tcp_listener(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Server::start(address, name, move |identity| serve_tcp(listener, identity))
    }

    /// A UDP server in a VM. Bind to one address, not to all: answers come from the address that was asked.
    ///
    /// # Errors
    /// The kernel's.
    pub fn udp(vm: &Vm, address: SocketAddr, name: &str) -> io::Result<Server> {
        let socket = vm.udp_socket(address)?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        Server::start(address, name, move |identity| {
            let answer = move |_: &[u8], client, local| Some(identity.answer(client, local).into_bytes());
            serve_udp(socket, answer)
        })
    }

    /// A UDP server in a VM that answers each datagram by what `respond` makes of it, if anything.
    ///
    /// # Errors
    /// As [`Server::udp`].
    pub fn datagrams(
        vm: &Vm,
        address: SocketAddr,
        name: &str,
        respond: impl Fn(&[u8]) -> Option<Vec<u8>> + Send + 'static,
    ) -> io::Result<Server> {
        let socket = vm.udp_socket(address)?;
        socket.set_nonblocking(true)?;
        // What comes while the machine is busy elsewhere waits: as much as the kernel allows.
        SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER)?;
        let address = socket.local_addr()?;
        Server::start(address, name, move |identity| {
            let answer = move |query: &[u8], _, _| {
                let answer = respond(query)?;
                identity.answered.fetch_add(1, Ordering::Relaxed);
                Some(answer)
            };
            serve_udp(socket, answer)
        })
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Number of connections or datagrams that it has answered.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    fn start<F>(
        address: SocketAddr,
        name: &str,
        serve: impl FnOnce(Identity) -> F + Send + 'static,
    ) -> io::Result<Server>
    where
        F: Future<Output = io::Result<()>>,
    {
        let answered = Arc::new(AtomicU64::new(0));
        let identity = Identity { name: name.into(), answered: Arc::clone(&answered) };
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let run = move || {
            runtime.block_on(async {
                tokio::select! {
                    ended = serve(identity) => if let Err(error) = ended { eprintln!("a server at {address} ended: {error}") },
                    _ = stopped => {}
                }
            });
        };
        let thread = std::thread::Builder::new().name(format!("server {name}")).spawn(run)?;
        Ok(Server { name: name.to_owned(), address, answered, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in there was printed already, and this may be the drop of a test that panics too.
            let _ = thread.join();
        }
    }
}

/// Name of a server, and its counter of answers.
#[derive(Clone)]
struct Identity {
    name: Arc<str>,
    answered: Arc<AtomicU64>,
}

impl Identity {
    fn answer(&self, client: SocketAddr, local: SocketAddr) -> String {
        self.answered.fetch_add(1, Ordering::Relaxed);
        format!("{}\n", Answer { server: self.name.to_string(), client, local: local.ip() })
    }
}

async fn serve_tcp(listener: TcpListener, identity: Identity) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, client) = listener.accept().await?;
        let identity = identity.clone();
        tokio::spawn(async move {
            // How a connection ends is the client's to judge.
            let _ = converse(stream, client, &identity).await;
        });
    }
}

async fn converse(mut stream: TcpStream, client: SocketAddr, identity: &Identity) -> io::Result<()> {
    let line = identity.answer(client, stream.local_addr()?);
    stream.write_all(line.as_bytes()).await?;
    let (mut from, mut to) = stream.split();
    tokio::io::copy(&mut from, &mut to).await?;
    Ok(())
}

/// `answer`: of a datagram, its client, and the server's address.
async fn serve_udp(
    socket: UdpSocket,
    answer: impl Fn(&[u8], SocketAddr, SocketAddr) -> Option<Vec<u8>>,
) -> io::Result<()> {
    let socket = tokio::net::UdpSocket::from_std(socket)?;
    let local = socket.local_addr()?;
    let mut buffer = [0; 2048];
    loop {
        // An ICMP error of an earlier answer comes back as an error of the socket; it concerns that client alone.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else { continue };
        if let Some(answer) = answer(buffer.get(..length).unwrap_or_default(), client, local) {
            let _ = socket.send_to(&answer, client).await;
        }
    }
}
