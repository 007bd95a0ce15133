//! Clusters of Debian's etcd for tests: each node in a directory of its own, on a loopback address that belongs to this
//! process alone, ended and removed with the test that owns it, also when that is killed.
//!
//! A node is kept by a shell that reads orders from its input; when the input ends, because the cluster was dropped or the
//! test process is gone, it kills the node and removes its directory. Where there is no etcd, tests say SKIPPED.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "clippy knows tests by their attribute, and not the functions that they share"
)]

use std::io::{BufRead, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// `$0`: directory; the rest: the command of the node.
const KEEPER: &str = r#"
trap '' INT HUP TERM
start() { setpriv --pdeathsig KILL "$@" </dev/null >>"$0/log" 2>&1 & pid=$!; }
start "$@"
echo started
while read -r order; do
    case $order in
    kill) kill -KILL $pid; wait $pid ;;
    start) start "$@" ;;
    stop) kill -STOP $pid ;;
    continue) kill -CONT $pid ;;
    esac 2>/dev/null
    echo "$order"
done
kill -KILL $pid 2>/dev/null
wait $pid 2>/dev/null
rm -rf "$0"
"#;

/// Longer than anything that does not hang.
const PATIENCE: Duration = Duration::from_secs(30);

/// TLS of a cluster: files that etcd reads. Clients must show a certificate of the authority.
pub struct Files {
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// A cluster.
pub struct Cluster {
    nodes: Vec<Node>,
    scheme: &'static str,
}

struct Node {
    keeper: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    endpoint: String,
    directory: PathBuf,
}

/// True if etcd is installed; prints SKIPPED if not.
pub fn is_installed() -> bool {
    let found = ["etcd", "etcdctl", "setpriv"].iter().find(|name| !is_program(name));
    if let Some(missing) = found {
        eprintln!("SKIPPED: {missing} is not installed; testenv/install-packages.sh installs it");
    }
    found.is_none()
}

fn is_program(name: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| folder.join(name).is_file())
}

/// An address for node `index` that no other process uses: made of the process id, which has at most 22 bits.
fn address(index: usize) -> Ipv4Addr {
    let [_, high, middle, low] = ((std::process::id() << 2) | (index as u32 & 3)).to_be_bytes();
    Ipv4Addr::new(127, high, middle, low)
}

impl Cluster {
    /// A running cluster of one or three nodes.
    pub fn start(nodes: usize) -> Self {
        Self::start_with(nodes, &[], None)
    }

    /// The same, with more options of etcd and with TLS.
    pub fn start_with(nodes: usize, options: &[&str], tls: Option<&Files>) -> Self {
        static NEXT_PORT: AtomicU16 = AtomicU16::new(23_790);
        let port = NEXT_PORT.fetch_add(2, Ordering::Relaxed);
        let scheme = if tls.is_some() { "https" } else { "http" };
        let peers: Vec<_> =
            (0..nodes).map(|index| format!("n{index}=http://{}:{}", address(index), port + 1)).collect();
        let nodes = (0..nodes)
            .map(|index| Node::start(index, port, scheme, &peers.join(","), options, tls))
            .collect();
        let cluster = Self { nodes, scheme };
        if tls.is_none() {
            cluster.await_leader();
        }
        cluster
    }

    /// `host:port` of each node.
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.endpoint.clone()).collect()
    }

    /// Waits until the cluster takes writes.
    pub fn await_leader(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.try_ctl(&["put", "/leader-was-awaited", ""]).0 {
            assert!(Instant::now() < deadline, "the cluster does not come up: {}", self.log());
        }
        self.ctl(&["del", "/leader-was-awaited"]);
    }

    /// Runs etcdctl without a tight timeout; returns its output.
    pub fn ctl(&self, arguments: &[&str]) -> String {
        self.ctl_with(arguments, "")
    }

    /// The same, with what etcdctl reads from its input.
    pub fn ctl_with(&self, arguments: &[&str], input: &str) -> String {
        let (done, text) = self.run_ctl("20s", arguments, input);
        assert!(done, "etcdctl {arguments:?}: {text}");
        text
    }

    /// Runs etcdctl with a timeout of 2 s, for nodes that may be down; returns its success and output.
    pub fn try_ctl(&self, arguments: &[&str]) -> (bool, String) {
        self.run_ctl("2s", arguments, "")
    }

    fn run_ctl(&self, limit: &str, arguments: &[&str], input: &str) -> (bool, String) {
        let endpoints: Vec<_> =
            self.endpoints().into_iter().map(|endpoint| format!("{}://{endpoint}", self.scheme)).collect();
        let mut child = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .args(["--endpoints", &endpoints.join(","), "--command-timeout", limit, "--dial-timeout", limit])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let text = if output.status.success() { output.stdout } else { output.stderr };
        (output.status.success(), String::from_utf8_lossy(&text).trim_end().to_owned())
    }

    /// The leader. Waits until there is one.
    pub fn leader(&self) -> usize {
        self.leader_as(&[])
    }

    /// The same, with more options of etcdctl.
    pub fn leader_as(&self, options: &[&str]) -> usize {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (_, text) = self.try_ctl(&[options, &["endpoint", "status", "-w", "fields"]].concat());
            // One block of fields for each node that answers: `"MemberID" : 1`, `"Leader" : 1`, `"Endpoint" : "http://.."`.
            if let Some(endpoint) = leader_in(&text)
                && let Some(index) = self.nodes.iter().position(|node| endpoint.ends_with(&node.endpoint))
            {
                return index;
            }
            assert!(Instant::now() < deadline, "there is no leader: {text}");
        }
    }

    /// The end of what the nodes logged.
    fn log(&self) -> String {
        let logs = self.nodes.iter().map(|node| std::fs::read_to_string(node.directory.join("log")).unwrap());
        logs.flat_map(|log| log.lines().rev().take(5).map(|line| format!("\n{line}")).collect::<Vec<_>>())
            .collect()
    }

    /// kill -9.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].order("kill");
    }

    /// Starts a killed node again, on its data.
    pub fn restart(&mut self, node: usize) {
        self.nodes[node].order("start");
    }

    /// Freezes a node.
    pub fn freeze(&mut self, node: usize) {
        self.nodes[node].order("stop");
    }

    /// Lets a frozen node go on.
    pub fn thaw(&mut self, node: usize) {
        self.nodes[node].order("continue");
    }
}

fn leader_in(text: &str) -> Option<String> {
    let (mut member, mut leader) = ("", "");
    for line in text.lines() {
        let Some((name, value)) = line.split_once(" : ") else { continue };
        match name.trim_matches('"') {
            "MemberID" => member = value,
            "Leader" => leader = value,
            "Endpoint" if member == leader && leader != "0" => {
                return Some(value.trim_matches('"').to_owned());
            }
            _ => {}
        }
    }
    None
}

impl Node {
    fn start(
        index: usize,
        port: u16,
        scheme: &str,
        peers: &str,
        options: &[&str],
        tls: Option<&Files>,
    ) -> Self {
        let host = address(index);
        let directory =
            std::env::temp_dir().join(format!("chainfire-test-{}-{port}-{index}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let (client, peer) = (format!("{scheme}://{host}:{port}"), format!("http://{host}:{}", port + 1));
        let mut command = Command::new("sh");
        // A group of its own: the terminal's interrupt ends the test, and that ends the node.
        command.process_group(0).args(["-c", KEEPER]).arg(&directory).args([
            "etcd",
            "--name",
            &format!("n{index}"),
        ]);
        command.arg("--data-dir").arg(directory.join("data"));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args([
            "--initial-cluster",
            peers,
            "--initial-cluster-token",
            &format!("{}-{port}", std::process::id()),
        ]);
        command.args(["--heartbeat-interval", "50", "--election-timeout", "500", "--logger", "zap"]);
        if let Some(tls) = tls {
            tls_options(&mut command, tls);
        }
        command.args(options).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut keeper = command.spawn().unwrap();
        let orders = keeper.stdin.take();
        let mut answers = BufReader::new(keeper.stdout.take().unwrap());
        assert_eq!(line(&mut answers), "started");
        Self { keeper, orders, answers, endpoint: format!("{host}:{port}"), directory }
    }

    fn order(&mut self, order: &str) {
        self.orders.as_mut().unwrap().write_all(format!("{order}\n").as_bytes()).unwrap();
        assert_eq!(line(&mut self.answers), order);
    }
}

fn tls_options(command: &mut Command, files: &Files) {
    let option = |command: &mut Command, name: &str, path: &Path| {
        command.arg(name).arg(path);
    };
    option(command, "--cert-file", &files.certificate);
    option(command, "--key-file", &files.key);
    option(command, "--trusted-ca-file", &files.ca);
    command.arg("--client-cert-auth");
}

fn line(answers: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    answers.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.orders.take());
        let _ = self.keeper.wait();
    }
}

/// Waits until somebody listens.
pub fn await_port(endpoint: &str) {
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(endpoint).is_err() {
        assert!(Instant::now() < deadline, "nobody listens on {endpoint}");
        std::thread::yield_now();
    }
}

/// Address 0 of this process, for certificates.
pub fn first_host() -> String {
    address(0).to_string()
}
