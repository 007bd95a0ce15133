//! Backends that behave as told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::world::World;

/// Pause between the parts of an answer: they arrive in segments of their own.
const PAUSE: Duration = Duration::from_millis(20);

/// Behaviour of a backend with a connection.
#[derive(Clone, Debug)]
pub(crate) enum Behaviour {
    /// Reads the request and says this.
    Says(String),
    /// Reads the request and says nothing.
    Silent,
    /// Reads the request, says one after the other with a pause between them, and closes.
    Parts(&'static [&'static str]),
    /// Sends a page of so many bytes, with a send buffer of a few kB, and closes.
    Page(usize),
    /// Says the same again and again, without an end.
    Endless(&'static str),
    /// Says this, one byte at a time.
    Drips(&'static str, Duration),
    /// Reads the request and closes.
    Closes,
    /// Resets at once.
    Resets,
}

/// A backend that runs until it is dropped.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    behaviour: Mutex<Behaviour>,
    requests: Mutex<Vec<String>>,
    accepted: AtomicU64,
    /// Bytes that `Endless` could send.
    sent: AtomicU64,
    /// Pages that were sent as a whole.
    pages: AtomicU64,
}

impl Behaviour {
    pub(crate) fn code(code: u16) -> Self {
        Self::Says(format!("HTTP/1.1 {code} Whatever\r\nContent-Length: 0\r\n\r\n"))
    }
}

impl Backend {
    pub(crate) fn start(world: &World, address: &str, behaviour: Behaviour) -> Self {
        let listener = world.listen(address);
        let shared = Arc::new(Shared {
            behaviour: Mutex::new(behaviour),
            requests: Mutex::default(),
            accepted: AtomicU64::default(),
            sent: AtomicU64::default(),
            pages: AtomicU64::default(),
        });
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Self { address, shared, task }
    }

    pub(crate) fn becomes(&self, behaviour: Behaviour) {
        *self.shared.behaviour.lock().unwrap() = behaviour;
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// Connections that reached the process.
    pub(crate) fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Pages that were sent without an error.
    pub(crate) fn pages(&self) -> u64 {
        self.shared.pages.load(Ordering::SeqCst)
    }

    /// Bytes that the endless answer came to.
    pub(crate) fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::SeqCst)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(behave(stream, Arc::clone(&shared)));
    }
}

/// Ends when the checker resets the connection.
async fn behave(mut stream: TcpStream, shared: Arc<Shared>) -> std::io::Result<()> {
    let behaviour = shared.behaviour.lock().unwrap().clone();
    if matches!(behaviour, Behaviour::Resets) {
        return SockRef::from(&stream).set_linger(Some(Duration::ZERO));
    }
    let request = read_request(&mut stream).await?;
    shared.requests.lock().unwrap().push(request);
    match behaviour {
        Behaviour::Says(answer) => stream.write_all(answer.as_bytes()).await?,
        Behaviour::Parts(parts) => {
            for part in parts {
                stream.write_all(part.as_bytes()).await?;
                tokio::time::sleep(PAUSE).await;
            }
            return Ok(());
        }
        Behaviour::Page(bytes) => {
            SockRef::from(&stream).set_send_buffer_size(4096)?;
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            stream.write_all(&vec![b'x'; bytes]).await?;
            shared.pages.fetch_add(1, Ordering::SeqCst);
            return stream.shutdown().await;
        }
        Behaviour::Endless(piece) => loop {
            stream.write_all(piece.as_bytes()).await?;
            shared.sent.fetch_add(piece.len() as u64, Ordering::SeqCst);
        },
        Behaviour::Drips(answer, pause) => {
            for byte in answer.as_bytes() {
                stream.write_all(&[*byte]).await?;
                tokio::time::sleep(pause).await;
            }
        }
        Behaviour::Closes => return Ok(()),
        Behaviour::Silent | Behaviour::Resets => {}
    }
    // Until the checker goes.
    stream.read(&mut [0; 1]).await.map(|_| ())
}

async fn read_request(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8(request).unwrap())
}
