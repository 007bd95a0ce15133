//! A `fiberlb-proxy` process: the real binary, on a chassis of a lab.
//!
//! It runs in the chassis' network namespace and in the lab's mount and process namespaces, so that everything it makes is
//! in the lab and ends with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::TcpSocket;

use crate::lab::Lab;
use crate::plugin::beside;
use crate::run::until;
use crate::scrape;
use crate::world::World;

/// Longest wait for the process to be there.
const STARTED: Duration = Duration::from_secs(20);

/// A node agent that runs. It is killed when this is dropped, and when the lab ends.
#[derive(Debug)]
pub struct ProxyNode {
    /// `nsenter`, which waits for the agent.
    child: Child,
    /// The agent's own pid as the host sees it.
    pid: u32,
    binary: PathBuf,
    arguments: Vec<String>,
    id: String,
    chassis: String,
    metrics: std::net::SocketAddr,
    world: World,
}

impl ProxyNode {
    /// Starts an agent on a chassis, as node `node-CHASSIS`, that looks for its plugin at `plugin`, such as
    /// `unix:/tmp/x/agents.sock`. Its log goes to the lab's own.
    ///
    /// # Errors
    /// It is not built, or ends at once.
    pub async fn start(lab: &Lab, chassis: &str, plugin: &str) -> Result<Self> {
        Self::start_as(lab, chassis, &format!("node-{chassis}"), plugin, &[]).await
    }

    /// The same under another node id, with more arguments.
    ///
    /// # Errors
    /// As [`ProxyNode::start`].
    pub async fn start_as(lab: &Lab, chassis: &str, id: &str, plugin: &str, more: &[&str]) -> Result<Self> {
        let world = lab.world().clone();
        let binary = beside("fiberlb-proxy")?;
        let metrics = free_address(&world, chassis)?;
        let (ovs, netns, state) = (
            format!("unix:/run/chassis/{chassis}/db.sock"),
            netns_dir(chassis),
            format!("/run/chassis/{chassis}/proxy-{id}"),
        );
        let (metrics_listen, log) = (metrics.to_string(), "info,fiberlb_proxy=debug");
        let arguments = [
            ["--node-id", id],
            ["--plugin", plugin],
            ["--ovs-db", &ovs],
            ["--netns-dir", &netns],
            ["--state-dir", &state],
            ["--metrics-listen", &metrics_listen],
            // As many as a small node has.
            ["--workers", "2"],
            ["--log", log],
        ];
        let arguments: Vec<String> =
            arguments.iter().flatten().chain(more).map(|text| (*text).to_owned()).collect();
        let (child, pid) = spawn(&world, chassis, id, &binary, &arguments).await?;
        let (id, chassis) = (id.to_owned(), chassis.to_owned());
        Ok(Self { child, pid, binary, arguments, id, chassis, metrics, world })
    }

    /// Its node id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The chassis that it runs on.
    #[must_use]
    pub fn chassis(&self) -> &str {
        &self.chassis
    }

    /// Its process id as the host sees it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Kills it (SIGKILL) and waits for its end.
    ///
    /// # Errors
    /// It is not there.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.wake_nsenter()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to stop (SIGTERM) and waits for its end.
    ///
    /// # Errors
    /// It is not there, or ends with a failure.
    pub fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "node {} ended with {status}", self.id);
        Ok(())
    }

    /// Freezes it (SIGSTOP): its sockets stay open, and nobody answers.
    ///
    /// # Errors
    /// It is not there.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets a frozen one go on (SIGCONT).
    ///
    /// # Errors
    /// It is not there.
    pub fn resume(&self) -> Result<()> {
        self.wake_nsenter()?;
        self.signal(Signal::SIGCONT)
    }

    /// Starts it again with the same arguments and the state that it left.
    ///
    /// # Errors
    /// As [`ProxyNode::start`].
    pub async fn start_again(&mut self) -> Result<()> {
        (self.child, self.pid) =
            spawn(&self.world, &self.chassis, &self.id, &self.binary, &self.arguments).await?;
        Ok(())
    }

    /// Whether it still runs.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Bytes of memory that it has in use (resident set).
    ///
    /// # Errors
    /// It is not there.
    pub fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
    }

    /// The value of one line of its metrics, named with its labels; 0 where there is no such line.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn metric(&self, line: &str) -> Result<f64> {
        let netns = self.world.netns(&format!("chassis.{}", self.chassis))?;
        let socket = netns.run(TcpSocket::new_v4)??;
        scrape::metric(socket.connect(self.metrics).await?, line).await
    }

    /// The names of the network namespaces in its directory, with the prefix that marks them as its own.
    ///
    /// # Errors
    /// What the system says.
    pub fn namespaces(&self) -> Result<Vec<String>> {
        let directory = match fs::read_dir(self.netns_path()) {
            Ok(directory) => directory,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let names: std::io::Result<Vec<_>> = directory.map(|entry| Ok(entry?.file_name())).collect();
        let mut names: Vec<String> =
            names?.into_iter().map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        Ok(names)
    }

    /// The directory of its namespaces within the lab.
    #[must_use]
    pub fn netns_dir(&self) -> String {
        netns_dir(&self.chassis)
    }

    /// The same as the host reaches it.
    #[must_use]
    pub fn netns_path(&self) -> PathBuf {
        self.world.path(&self.netns_dir())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.pid)?), signal)?)
    }

    /// `nsenter` stops when its child does, and would not see its end.
    fn wake_nsenter(&self) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGCONT)?)
    }
}

impl Drop for ProxyNode {
    fn drop(&mut self) {
        if self.is_running() {
            // It may end on its own just now.
            let _ = self.kill();
        }
    }
}

fn netns_dir(chassis: &str) -> String {
    format!("/run/chassis/{chassis}/netns")
}

async fn spawn(
    world: &World,
    chassis: &str,
    id: &str,
    binary: &Path,
    arguments: &[String],
) -> Result<(Child, u32)> {
    let path = world.path(&format!("/run/log/proxy.{id}.log"));
    let log = fs::File::options().create(true).append(true).open(&path)?;
    let mut command =
        world.command(Some(&format!("chassis.{chassis}")), &binary.to_string_lossy()).into_std();
    let mut child = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?;
    let started = until("the agent's process", STARTED, || match child.try_wait() {
        Ok(None) => own_pid(child.id(), binary).map(Ok),
        _ => Some(Err(anyhow!("node {id} ended at once: {}", end_of(&path)))),
    });
    let pid = started.await??;
    Ok((child, pid))
}

/// The pid of the agent, which is the one child of `nsenter` once that has become it.
fn own_pid(nsenter: u32, binary: &Path) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{nsenter}/task/{nsenter}/children")).ok()?;
    let pid: u32 = children.split_whitespace().next()?.parse().ok()?;
    let exe = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    (exe.file_name() == binary.file_name()).then_some(pid)
}

fn end_of(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(5)..).unwrap_or_default().join("\n")
}

/// A free port on loopback of a chassis.
fn free_address(world: &World, chassis: &str) -> Result<std::net::SocketAddr> {
    let netns = world.netns(&format!("chassis.{chassis}"))?;
    Ok(netns.run(|| std::net::TcpListener::bind("127.0.0.1:0"))??.local_addr()?)
}
