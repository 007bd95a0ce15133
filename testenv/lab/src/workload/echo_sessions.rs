//! Connections that stay open and exchange bytes all the time.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::vm::Vm;
use crate::workload::Answer;

/// From one exchange on a connection to the next.
const PACE: Duration = Duration::from_millis(100);
/// An exchange that takes longer counts as a broken connection: many lost packets long.
const PATIENCE: Duration = Duration::from_secs(20);

/// State of one session. It reconnects when its connection breaks.
#[derive(Debug, Clone, Default)]
pub struct EchoSession {
    /// Exchanges that were completed.
    pub exchanges: u64,
    /// The longest of them.
    pub longest: Duration,
    /// Breaks of established connections: time, reason and server.
    pub broken: Vec<(Instant, String)>,
}

/// Connections from a VM through a load balancer, with a thread for all of them. Dropping it closes them.
#[derive(Debug)]
pub struct EchoSessions {
    sessions: Arc<Mutex<Vec<EchoSession>>>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl EchoSessions {
    /// Opens so many connections.
    ///
    /// # Errors
    /// The system's, when it cannot start a thread.
    pub fn start(vm: &Vm, target: SocketAddr, count: usize) -> io::Result<EchoSessions> {
        let sessions = Arc::new(Mutex::new(vec![EchoSession::default(); count]));
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (seen, vm, name) = (Arc::clone(&sessions), vm.clone(), format!("sessions {}", vm.name()));
        let run = move || {
            let session = |index| session(&vm, target, &seen, index, stopped.clone());
            runtime.block_on(futures_util::future::join_all((0..count).map(session)));
        };
        let thread = std::thread::Builder::new().name(name).spawn(run)?;
        Ok(EchoSessions { sessions, stop, thread: Some(thread) })
    }

    /// State of all of them now.
    #[must_use]
    pub fn so_far(&self) -> Vec<EchoSession> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for EchoSessions {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // A panic in there was printed already, and this may be the drop of a test that panics too.
            let _ = thread.join();
        }
    }
}

async fn session(
    vm: &Vm,
    target: SocketAddr,
    sessions: &Mutex<Vec<EchoSession>>,
    index: usize,
    mut stopped: watch::Receiver<bool>,
) {
    let note = |change: &dyn Fn(&mut EchoSession)| {
        if let Some(session) = sessions.lock().unwrap_or_else(PoisonError::into_inner).get_mut(index) {
            change(session);
        }
    };
    let session = async {
        loop {
            // A failed connect is retried, and does not count as a broken connection.
            if let Ok(Ok((stream, answer))) = timeout(PATIENCE, connect(vm, target)).await {
                let why = converse(stream, index, &note).await.to_string();
                note(&|session| {
                    session.broken.push((Instant::now(), format!("with {}: {why}", answer.server)));
                });
            }
            tokio::time::sleep(PACE).await;
        }
    };
    tokio::select! {
        () = session => {}
        // An error means that nobody wants it any more, either.
        _ = stopped.wait_for(|stop| *stop) => {}
    }
}

/// Exchanges bytes until the connection breaks.
async fn converse(
    mut stream: BufReader<TcpStream>,
    index: usize,
    note: &impl Fn(&dyn Fn(&mut EchoSession)),
) -> io::Error {
    loop {
        let began = Instant::now();
        match timeout(PATIENCE, exchange(&mut stream, index)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error,
            Err(_) => return io::Error::new(io::ErrorKind::TimedOut, format!("no answer in {PATIENCE:?}")),
        }
        note(&|session| {
            session.exchanges += 1;
            session.longest = session.longest.max(began.elapsed());
        });
        tokio::time::sleep(PACE).await;
    }
}

async fn connect(vm: &Vm, target: SocketAddr) -> io::Result<(BufReader<TcpStream>, Answer)> {
    let make = if target.is_ipv4() { TcpSocket::new_v4 } else { TcpSocket::new_v6 };
    let mut stream = BufReader::new(vm.with_netns(make)?.connect(target).await?);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let answer = line.parse().map_err(io::Error::other)?;
    Ok((stream, answer))
}

/// Says something; it must come back as it is.
async fn exchange(stream: &mut BufReader<TcpStream>, index: usize) -> io::Result<()> {
    let said = format!("{index:032}");
    stream.get_mut().write_all(said.as_bytes()).await?;
    let mut heard = vec![0; said.len()];
    stream.read_exact(&mut heard).await?;
    if heard == said.as_bytes() { Ok(()) } else { Err(io::Error::other("what came back is something else")) }
}
