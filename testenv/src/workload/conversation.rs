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

/// What became of one conversation. Where its connection breaks it goes on over another one.
#[derive(Debug, Clone, Default)]
pub struct Talk {
    /// Exchanges that were completed.
    pub exchanges: u64,
    /// The longest of them.
    pub longest: Duration,
    /// When and why established connections broke, and with whom they were.
    pub broken: Vec<(Instant, String)>,
}

/// Connections from a VM through a load balancer, with a thread for all of them. Dropping it closes them.
#[derive(Debug)]
pub struct Conversations {
    talks: Arc<Mutex<Vec<Talk>>>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Conversations {
    /// Opens so many connections.
    ///
    /// # Errors
    /// What the system says if there can be no thread for them.
    pub fn start(vm: &Vm, target: SocketAddr, count: usize) -> io::Result<Conversations> {
        let talks = Arc::new(Mutex::new(vec![Talk::default(); count]));
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (seen, vm, name) = (Arc::clone(&talks), vm.clone(), format!("conversations {}", vm.name()));
        let run = move || {
            let talk = |index| talk(&vm, target, &seen, index, stopped.clone());
            runtime.block_on(futures_util::future::join_all((0..count).map(talk)));
        };
        let thread = std::thread::Builder::new().name(name).spawn(run)?;
        Ok(Conversations { talks, stop, thread: Some(thread) })
    }

    /// How they are now.
    #[must_use]
    pub fn so_far(&self) -> Vec<Talk> {
        self.talks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Conversations {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // A panic in there was printed already, and this may be the drop of a test that panics too.
            let _ = thread.join();
        }
    }
}

async fn talk(
    vm: &Vm,
    target: SocketAddr,
    talks: &Mutex<Vec<Talk>>,
    index: usize,
    mut stopped: watch::Receiver<bool>,
) {
    let note = |change: &dyn Fn(&mut Talk)| {
        if let Some(talk) = talks.lock().unwrap_or_else(PoisonError::into_inner).get_mut(index) {
            change(talk);
        }
    };
    let conversation = async {
        loop {
            // Who cannot connect tries again: that is another thing than a connection that breaks.
            if let Ok(Ok((stream, answer))) = timeout(PATIENCE, connect(vm, target)).await {
                let why = converse(stream, index, &note).await.to_string();
                note(&|talk| talk.broken.push((Instant::now(), format!("with {}: {why}", answer.server))));
            }
            tokio::time::sleep(PACE).await;
        }
    };
    tokio::select! {
        () = conversation => {}
        // An error means that nobody wants it any more, either.
        _ = stopped.wait_for(|stop| *stop) => {}
    }
}

/// Exchanges bytes until the connection breaks.
async fn converse(
    mut stream: BufReader<TcpStream>,
    index: usize,
    note: &impl Fn(&dyn Fn(&mut Talk)),
) -> io::Error {
    loop {
        let began = Instant::now();
        match timeout(PATIENCE, exchange(&mut stream, index)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error,
            Err(_) => return io::Error::new(io::ErrorKind::TimedOut, format!("no answer in {PATIENCE:?}")),
        }
        note(&|talk| {
            talk.exchanges += 1;
            talk.longest = talk.longest.max(began.elapsed());
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
