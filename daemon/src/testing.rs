//! Tools for tests of listeners: peers that only connect, real processes, and their CPU time. (Feature `test-support`.)
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy knows tests by their attribute, and not the functions that they share"
)]

use std::fs::{File, Permissions};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustls_pki_types::ServerName;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream, UnixDatagram};
use tokio::sync::{Mutex, mpsc};
use tokio::time::{sleep, timeout};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore};

/// Longest wait for anything, on a busy machine too.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Beginning of an HTTP/2 connection.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes that an attacker sends on a connection, and nothing after them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// None.
    Silent,
    /// Half of HTTP/2's preface.
    HalfPreface,
    /// Half of a TLS ClientHello.
    HalfHello,
    /// A whole ClientHello: the server does its part of the handshake.
    Hello,
}

/// Writes a file that its owner alone may read, as daemons want it of keys.
///
/// # Panics
/// It cannot be written.
pub fn write_secret(path: &Path, content: &str) {
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

impl Opening {
    fn bytes(self) -> Vec<u8> {
        match self {
            Self::Silent => Vec::new(),
            Self::HalfPreface => PREFACE.iter().take(PREFACE.len() / 2).copied().collect(),
            Self::HalfHello => {
                let hello = client_hello();
                hello.iter().take(hello.len() / 2).copied().collect()
            }
            Self::Hello => client_hello(),
        }
    }
}

fn client_hello() -> Vec<u8> {
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let mut bytes = Vec::new();
    ClientConnection::new(Arc::new(config), name).unwrap().write_tls(&mut bytes).unwrap();
    bytes
}

/// Connects from a source address, such as one of 127.0.0.0/8.
///
/// # Errors
/// The kernel's.
pub async fn connect_from(source: IpAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(source, 0))?;
    timeout(PATIENCE, socket.connect(to)).await?
}

/// Opens so many connections, so many a second (0: at once). Those that the server has closed stay in the list.
pub async fn open(
    count: u32,
    per_second: u32,
    opening: Opening,
    source: IpAddr,
    to: SocketAddr,
) -> Vec<TcpStream> {
    let (start, bytes) = (Instant::now(), opening.bytes());
    let mut connections = Vec::new();
    for number in 0..count {
        // A queue that is full resets or ignores: an attacker goes on.
        if let Ok(mut connection) = connect_from(source, to).await {
            let _ = connection.write_all(&bytes).await;
            connections.push(connection);
        }
        if per_second > 0 {
            let due = Duration::from_secs_f64(f64::from(number + 1) / f64::from(per_second));
            sleep(due.saturating_sub(start.elapsed())).await;
        }
    }
    connections
}

/// Asks an HTTP/1.1 server from a source address. Returns the status and the body.
///
/// # Errors
/// The connection's, and an answer that cannot be read.
pub async fn get(source: IpAddr, to: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    use tokio::io::AsyncReadExt as _;
    let mut stream = connect_from(source, to).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut text)).await??;
    let (head, body) = text.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or(io::ErrorKind::InvalidData)?, body.to_owned()))
}

/// CPU time that a process has used.
///
/// # Panics
/// The process is gone.
#[must_use]
pub fn cpu_time(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // The name may hold spaces; what follows its closing bracket does not.
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks = |at: usize| fields.split(' ').nth(at).and_then(|text| text.parse::<u64>().ok()).unwrap();
    let per_second = rustix::param::clock_ticks_per_second();
    Duration::from_millis((ticks(11) + ticks(12)) * 1000 / per_second)
}

/// Socket of a service manager, for a daemon to notify. A task empties it, so that no daemon finds it full.
#[derive(Debug)]
pub struct NotifySocket {
    received: Mutex<mpsc::UnboundedReceiver<String>>,
    directory: tempfile::TempDir,
}

impl NotifySocket {
    /// Binds it, on a tokio runtime.
    ///
    /// # Panics
    /// It cannot be bound.
    #[must_use]
    pub fn bind() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        let (sender, received) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok(length) = socket.recv(&mut buffer).await {
                let text = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default());
                if sender.send(text.into_owned()).is_err() {
                    break;
                }
            }
        });
        Self { received: Mutex::new(received), directory }
    }

    /// Variables for the daemon, `NAME=VALUE`: with them it notifies, also a watchdog with this period.
    #[must_use]
    pub fn variables(&self, watchdog: Duration) -> [String; 2] {
        let path = self.directory.path().join("notify");
        [format!("NOTIFY_SOCKET={}", path.display()), format!("WATCHDOG_USEC={}", watchdog.as_micros())]
    }

    /// Waits for a notification with this line, and returns all of it.
    ///
    /// # Panics
    /// It does not come.
    pub async fn notified(&self, line: &str) -> String {
        self.until(line).await.pop().unwrap()
    }

    /// Waits for a notification with this line, and returns all that came since the last one waited for, this one at the end.
    async fn until(&self, line: &str) -> Vec<String> {
        let mut all = Vec::new();
        let wait = async {
            let mut received = self.received.lock().await;
            while !all.last().is_some_and(|text: &String| text.lines().any(|other| other == line)) {
                all.push(received.recv().await.unwrap());
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("no {line}"));
        all
    }

    /// All notifications that came since the last one waited for.
    ///
    /// # Panics
    /// The socket is gone.
    pub async fn rest(&self) -> Vec<String> {
        let end = "TEST=end";
        let socket = UnixDatagram::unbound().unwrap();
        socket.send_to(end.as_bytes(), self.directory.path().join("notify")).await.unwrap();
        let mut all = self.until(end).await;
        all.pop();
        all
    }
}

/// Process of a daemon, killed on drop.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
    _directory: tempfile::TempDir,
}

impl Daemon {
    /// Starts a program with arguments; it logs in JSON. `files`: its limit of open files.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    pub fn start(program: &str, arguments: &[&str], files: Option<u32>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let limit = files.map_or_else(String::new, |files| format!("ulimit -n {files}; "));
        let child = Command::new("sh")
            .args(["-c", &format!("{limit}exec \"$@\""), "sh", program])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { child, log, _directory: directory }
    }

    /// Id of the process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Lines of its log.
    ///
    /// # Panics
    /// It cannot be read.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        std::fs::read_to_string(&self.log).unwrap().lines().map(str::to_owned).collect()
    }

    /// Waits for a line of its log with this text.
    ///
    /// # Panics
    /// It does not come.
    pub async fn logged(&self, text: &str) -> String {
        let start = Instant::now();
        loop {
            let log = self.log();
            if let Some(line) = log.iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            assert!(start.elapsed() < PATIENCE, "no {text:?}: {log:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends a signal to the process.
    ///
    /// # Panics
    /// It is gone.
    pub fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for a field of the line with the message `serving`, such as an address.
    ///
    /// # Panics
    /// It does not come, or the process ends before.
    pub async fn serving(&mut self, field: &str) -> String {
        let start = Instant::now();
        loop {
            let log = self.log();
            let line = log.iter().find(|line| line.contains("\"message\":\"serving\""));
            let value = line.and_then(|line| {
                let (_, rest) = line.split_once(&format!("\"{field}\":\""))?;
                Some(rest.split_once('"')?.0.to_owned())
            });
            if let Some(value) = value {
                return value;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "it ended: {log:?}");
            assert!(start.elapsed() < PATIENCE, "it does not serve: {log:?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Share of one core that the process uses during some seconds.
    pub async fn cpu_share(&self, during: Duration) -> f64 {
        let (start, before) = (Instant::now(), cpu_time(self.id()));
        sleep(during).await;
        (cpu_time(self.id()) - before).as_secs_f64() / start.elapsed().as_secs_f64()
    }

    /// Tells the process to stop, and waits until it has. Returns its exit status.
    ///
    /// # Panics
    /// It does not stop.
    pub async fn stop(mut self) -> Option<i32> {
        self.send(Signal::TERM);
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(start.elapsed() < PATIENCE, "it does not stop: {:?}", self.log());
            sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
