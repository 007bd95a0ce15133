//! The clients.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::Read as _;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::{JoinSet, LocalSet};

use crate::rivals::{DATAGRAM_PORT, ECHO_PORT, STREAM_PORT};
use crate::world::PROXY;

/// Short connections.
pub(crate) const CONNECTIONS: u32 = 20_000;
/// Requests on connections that are kept.
pub(crate) const REQUESTS: u32 = 128_000;
/// Length of the stream.
pub(crate) const STREAM_GIGABYTES: u64 = 3;
/// Connections that do nothing.
pub(crate) const IDLE: u32 = 5_000;

/// Clients that connect at the same time.
const CONNECTING: u32 = 32;
/// Connections that requests share.
const KEPT: u32 = 64;
/// Bytes of a request, and of its answer.
const MESSAGE: usize = 100;
/// Time in which the latency of requests is measured.
const PACED: Duration = Duration::from_secs(3);

/// Clients that send datagrams.
const SESSIONS: u32 = 1_000;
/// Time in which they do.
const DATAGRAMS: Duration = Duration::from_secs(3);
/// Time after which a datagram counts as lost.
const LOST: Duration = Duration::from_millis(200);

/// Load of the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Load {
    WarmUp,
    Connections,
    Requests,
    Stream,
    Idle,
    /// Requests at a pace.
    Paced,
    /// Datagrams, so many a second.
    Datagrams(u32),
    /// Datagrams, each session's next one when the one before has come back.
    Saturated,
}

impl Load {
    const ALL: [Self; 9] = [
        Self::WarmUp,
        Self::Connections,
        Self::Requests,
        Self::Stream,
        Self::Idle,
        Self::Paced,
        Self::Datagrams(2_000),
        Self::Datagrams(20_000),
        Self::Saturated,
    ];

    /// True for a load of UDP.
    pub(crate) fn is_udp(self) -> bool {
        matches!(self, Self::Datagrams(_) | Self::Saturated)
    }
}

impl fmt::Display for Load {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Datagrams(rate) => return write!(out, "datagrams-{rate}"),
            Self::Saturated => "saturated",
            Self::WarmUp => "warm-up",
            Self::Connections => "connections",
            Self::Requests => "requests",
            Self::Stream => "stream",
            Self::Idle => "idle",
            Self::Paced => "paced",
        })
    }
}

impl std::str::FromStr for Load {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let found = Self::ALL.into_iter().find(|load| load.to_string() == text);
        found.map_or_else(|| bail!("no load {text}"), Ok)
    }
}

/// Runs a load, and prints a line at its end. `pace`: requests a second of [`Load::Paced`].
pub(crate) fn run(load: Load, pace: u32) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        match load {
            Load::WarmUp => connections(1_000).await?,
            Load::Connections => connections(CONNECTIONS).await?,
            Load::Requests => requests().await?,
            Load::Stream => stream().await?,
            Load::Idle => return idle().await,
            Load::Paced => {
                println!("{}", paced(pace).await?);
                return Ok(());
            }
            Load::Datagrams(rate) => {
                println!("{}", datagrams(rate).await?);
                return Ok(());
            }
            Load::Saturated => {
                println!("{}", saturated().await?);
                return Ok(());
            }
        }
        println!("done");
        Ok(())
    })
}

async fn connect() -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect((PROXY, ECHO_PORT)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn request(stream: &mut TcpStream) -> anyhow::Result<()> {
    let mut answer = [0; MESSAGE];
    stream.write_all(&[1; MESSAGE]).await?;
    stream.read_exact(&mut answer).await?;
    ensure!(answer == [1; MESSAGE], "a wrong answer");
    Ok(())
}

async fn connections(number: u32) -> anyhow::Result<()> {
    let mut clients = JoinSet::new();
    for _ in 0..CONNECTING {
        clients.spawn_local(async move {
            for _ in 0..number / CONNECTING {
                request(&mut connect().await?).await?;
            }
            anyhow::Ok(())
        });
    }
    clients.join_all().await.into_iter().collect()
}

async fn requests() -> anyhow::Result<()> {
    let mut clients = JoinSet::new();
    for _ in 0..KEPT {
        clients.spawn_local(async move {
            let mut stream = connect().await?;
            for _ in 0..REQUESTS / KEPT {
                request(&mut stream).await?;
            }
            anyhow::Ok(())
        });
    }
    clients.join_all().await.into_iter().collect()
}

async fn stream() -> anyhow::Result<()> {
    let mut stream = TcpStream::connect((PROXY, STREAM_PORT)).await?;
    stream.write_u64(STREAM_GIGABYTES * 1_000_000_000).await?;
    let (mut received, mut buffer) = (0, vec![0; 256 * 1024]);
    loop {
        match stream.read(&mut buffer).await? {
            0 => break,
            length => received += length as u64,
        }
    }
    ensure!(received == STREAM_GIGABYTES * 1_000_000_000, "only {received} bytes have come");
    Ok(())
}

/// Says `ready` when all connections idle, and keeps them until its standard input ends.
async fn idle() -> anyhow::Result<()> {
    let mut kept = Vec::new();
    for _ in 0..IDLE {
        let mut stream = connect().await?;
        request(&mut stream).await?;
        kept.push(stream);
    }
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// 99th percentile of the latency of requests that come at a fixed pace, in microseconds, from the moment at which each should
/// have been sent.
async fn paced(pace: u32) -> anyhow::Result<f64> {
    ensure!(pace > 0, "no pace");
    let latencies: Rc<RefCell<Vec<Duration>>> = Rc::default();
    let mut clients = JoinSet::new();
    let interval = Duration::from_secs(1) * KEPT / pace;
    let began = Instant::now() + Duration::from_millis(200);
    for client in 0..KEPT {
        let latencies = Rc::clone(&latencies);
        clients.spawn_local(async move {
            let mut stream = connect().await?;
            let first = began + interval * client / KEPT;
            for number in 0.. {
                let due = first + interval * number;
                if due > began + PACED {
                    return anyhow::Ok(());
                }
                // The timer's own delay is nobody's fault, a late answer to the request before is.
                let mut sent = due;
                if Instant::now() < due {
                    tokio::time::sleep_until(due.into()).await;
                    sent = Instant::now();
                }
                request(&mut stream).await?;
                latencies.borrow_mut().push(sent.elapsed());
            }
            Ok(())
        });
    }
    clients.join_all().await.into_iter().collect::<anyhow::Result<()>>()?;
    let mut latencies = latencies.take();
    latencies.sort();
    Ok(latencies[latencies.len() * 99 / 100].as_secs_f64() * 1e6)
}

/// Sessions that have had an answer each. Says `ready`, and waits until it is to go on.
async fn sessions() -> anyhow::Result<Vec<UdpSocket>> {
    let mut sockets = Vec::new();
    for _ in 0..SESSIONS {
        let socket = UdpSocket::bind(("0.0.0.0", 0)).await?;
        socket.connect((PROXY, DATAGRAM_PORT)).await?;
        socket.send(&[1; MESSAGE]).await?;
        // A lost answer is no matter here.
        let _ = tokio::time::timeout(LOST, socket.recv(&mut [0; 2048])).await;
        sockets.push(socket);
    }
    println!("ready");
    std::io::stdin().read_exact(&mut [0])?;
    Ok(sockets)
}

/// Line of a load's end: the number of datagrams that have come back, and how many of a hundred have not.
fn answered(answers: u64, sent: u64) -> String {
    format!("{answers} {:.1}", 100.0 * sent.saturating_sub(answers) as f64 / sent as f64)
}

/// Sends datagrams at a rate, whatever comes back.
async fn datagrams(rate: u32) -> anyhow::Result<String> {
    let answers: Rc<Cell<u64>> = Rc::default();
    let sockets: Vec<Rc<UdpSocket>> = sessions().await?.into_iter().map(Rc::new).collect();
    for socket in &sockets {
        let (receiver, answers) = (Rc::clone(socket), Rc::clone(&answers));
        tokio::task::spawn_local(async move {
            let mut buffer = [0; 2048];
            loop {
                if receiver.recv(&mut buffer).await.is_ok() {
                    answers.set(answers.get() + 1);
                }
            }
        });
    }
    let (began, mut sent) = (Instant::now(), 0_u32);
    let mut ticks = tokio::time::interval(Duration::from_millis(1));
    while began.elapsed() < DATAGRAMS {
        ticks.tick().await;
        let due = (began.elapsed().as_secs_f64() * f64::from(rate)) as u32;
        while sent < due {
            // One that the kernel does not take is lost.
            let _ = sockets[(sent % SESSIONS) as usize].try_send(&[1; MESSAGE]);
            sent += 1;
        }
    }
    tokio::time::sleep(LOST).await;
    Ok(answered(answers.get(), sent.into()))
}

/// Sends a session's next datagram when the one before has come back.
async fn saturated() -> anyhow::Result<String> {
    let counts: Rc<Cell<(u64, u64)>> = Rc::default();
    let sockets = sessions().await?;
    let mut clients = JoinSet::new();
    let end = Instant::now() + DATAGRAMS;
    for socket in sockets {
        let counts = Rc::clone(&counts);
        clients.spawn_local(async move {
            let mut buffer = [0; 2048];
            while Instant::now() < end {
                socket.send(&[1; MESSAGE]).await?;
                let answer = tokio::time::timeout(LOST, socket.recv(&mut buffer)).await;
                let (answers, sent) = counts.get();
                counts.set((answers + u64::from(matches!(answer, Ok(Ok(_)))), sent + 1));
            }
            anyhow::Ok(())
        });
    }
    clients.join_all().await.into_iter().collect::<anyhow::Result<()>>()?;
    let (answers, sent) = counts.get();
    Ok(answered(answers, sent))
}
