//! A `fiberlb-proxy` process: the real binary, on a chassis of a lab.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;
use tokio::net::TcpSocket;

use crate::binaries::workspace_binary;
use crate::lab::Lab;
use crate::process::{Process, Program};
use crate::scrape;
use crate::world::World;

/// A node agent that runs. It is killed when this is dropped, and when the lab ends.
#[derive(Debug)]
pub struct ProxyNode {
    process: Process,
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
        Self::start_binary(workspace_binary("fiberlb-proxy")?, lab, chassis, id, plugin, more).await
    }

    /// The same with a binary of the caller's choosing, such as one of another release.
    ///
    /// # Errors
    /// As [`ProxyNode::start`].
    pub async fn start_binary(
        binary: PathBuf,
        lab: &Lab,
        chassis: &str,
        id: &str,
        plugin: &str,
        more: &[&str],
    ) -> Result<Self> {
        let world = lab.world().clone();
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
        let (netns, name) = (format!("chassis.{chassis}"), format!("proxy.{id}"));
        let program = Program { world: world.clone(), netns, name, binary, arguments };
        let process = Process::start(program).await?;
        let (id, chassis) = (id.to_owned(), chassis.to_owned());
        Ok(Self { process, id, chassis, metrics, world })
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

    /// The process, for what it holds and how it fails.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The same, to kill it or start it again with the state that it left.
    #[must_use]
    pub fn process_mut(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its process id as the host sees it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Kills it (SIGKILL) and waits for its end.
    ///
    /// # Errors
    /// It is not there.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Asks it to stop (SIGTERM) and waits for its end.
    ///
    /// # Errors
    /// It is not there, or ends with a failure.
    pub fn terminate(&mut self) -> Result<()> {
        self.process.terminate()
    }

    /// Freezes it (SIGSTOP): its sockets stay open, and nobody answers.
    ///
    /// # Errors
    /// It is not there.
    pub fn pause(&self) -> Result<()> {
        self.process.pause()
    }

    /// Lets a frozen one go on (SIGCONT).
    ///
    /// # Errors
    /// It is not there.
    pub fn resume(&self) -> Result<()> {
        self.process.resume()
    }

    /// Starts it again with the same arguments and the state that it left.
    ///
    /// # Errors
    /// As [`ProxyNode::start`].
    pub async fn start_again(&mut self) -> Result<()> {
        self.process.start_again().await
    }

    /// True while it runs.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Bytes of memory that it has in use (resident set).
    ///
    /// # Errors
    /// It is not there.
    pub fn memory(&self) -> Result<u64> {
        Ok(self.process.usage()?.memory)
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
    /// The system's.
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
}

fn netns_dir(chassis: &str) -> String {
    format!("/run/chassis/{chassis}/netns")
}

/// A free port on loopback of a chassis.
fn free_address(world: &World, chassis: &str) -> Result<std::net::SocketAddr> {
    let netns = world.netns(&format!("chassis.{chassis}"))?;
    Ok(netns.run(|| std::net::TcpListener::bind("127.0.0.1:0"))??.local_addr()?)
}
