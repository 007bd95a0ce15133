//! A `fiberlb-plugin` process: the real binary, on its embedded store if nothing else is said.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fiberlb_proto::v1;
use fiberlb_proto::v1::load_balancer_service_client::LoadBalancerServiceClient;
use tonic::transport::{Channel, Endpoint};

use anyhow::{Context as _, Result, bail, ensure};

use crate::binaries::workspace_binary;
use crate::{process, procfs, scrape};

/// Longest wait for the plugin to answer. Only a hang meets it.
const READY: Duration = Duration::from_secs(60);

/// A plugin that runs. It is killed when this is dropped.
#[derive(Debug)]
pub struct Plugin {
    child: Child,
    binary: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    api: String,
    metrics: String,
    agents: PathBuf,
}

impl Plugin {
    /// Starts the binary at `binary` with a store in `dir`, on free loopback ports, and waits until it answers. Its log goes
    /// to `dir/plugin.log`. What is in `more` goes over what it would have been given.
    ///
    /// # Errors
    /// It cannot be started, ends at once, or does not answer within a minute.
    pub async fn start(binary: &Path, dir: &Path, northbound: &str, more: &[&str]) -> Result<Self> {
        let (api, metrics) = (free_address()?.to_string(), free_address()?.to_string());
        let store = dir.join("store.redb").display().to_string();
        let agents = dir.join("agents.sock");
        let agents_listen = format!("unix:{}", agents.display());
        let arguments = [
            ["--listen", &api],
            ["--metrics-listen", &metrics],
            ["--store", &store],
            ["--northbound", northbound],
            ["--agents-listen", &agents_listen],
            // Geneve over the lab's underlay.
            ["--mtu", "1400"],
        ];
        let is_left = |argument: &&[&str; 2]| !more.contains(&argument[0]);
        let arguments: Vec<String> =
            arguments.iter().filter(is_left).flatten().chain(more).map(|text| (*text).to_owned()).collect();
        let log = dir.join("plugin.log");
        let child = spawn(binary, &arguments, &log)?;
        let mut plugin = Self { child, binary: binary.to_owned(), arguments, log, api, metrics, agents };
        plugin.ready().await?;
        Ok(plugin)
    }

    /// `fiberlb-plugin` beside the running test's or program's own binary.
    ///
    /// # Errors
    /// It is not built.
    pub fn binary() -> Result<PathBuf> {
        workspace_binary("fiberlb-plugin")
    }

    /// The URL of its API.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.api)
    }

    /// The URL of its metrics.
    #[must_use]
    pub fn metrics_url(&self) -> String {
        format!("http://{}", self.metrics)
    }

    /// Endpoint for node agents, such as `unix:/tmp/x/agents.sock`.
    #[must_use]
    pub fn agents_endpoint(&self) -> String {
        format!("unix:{}", self.agents.display())
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A connection to its API, made when it is first used.
    ///
    /// # Errors
    /// None for the address that it has.
    pub fn channel(&self) -> Result<Channel> {
        let endpoint = Endpoint::from_shared(self.url())?;
        Ok(endpoint.tcp_nodelay(true).connect_lazy())
    }

    /// Waits until it answers calls.
    ///
    /// # Errors
    /// It has ended, or does not answer within a minute.
    pub async fn ready(&mut self) -> Result<()> {
        let started = Instant::now();
        loop {
            let mut client = LoadBalancerServiceClient::new(self.channel()?);
            let request = v1::ListLoadBalancersRequest { page_size: 1, ..Default::default() };
            let answer = client.list_load_balancers(request).await;
            if let Some(status) = self.child.try_wait()? {
                bail!("the plugin ended with {status}: {}", process::end_of(&self.log));
            }
            match answer {
                Ok(_) => return Ok(()),
                Err(status) if started.elapsed() > READY => {
                    bail!("the plugin does not answer: {status}");
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    /// Kills it (SIGKILL) and waits for its end.
    ///
    /// # Errors
    /// It is not there.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to stop (SIGTERM) and waits for its end.
    ///
    /// # Errors
    /// It is not there, or ends with a failure.
    pub fn terminate(&mut self) -> Result<()> {
        let pid = i32::try_from(self.child.id())?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "the plugin ended with {status}");
        Ok(())
    }

    /// Starts it again with the same store and ports, and waits until it answers.
    ///
    /// # Errors
    /// As [`Plugin::start`].
    pub async fn start_again(&mut self) -> Result<()> {
        self.child = spawn(&self.binary, &self.arguments, &self.log)?;
        self.ready().await
    }

    /// The value of one line of its metrics, named with its labels; 0 where there is no such line.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn metric(&self, line: &str) -> Result<f64> {
        scrape::metric(tokio::net::TcpStream::connect(&self.metrics).await?, line).await
    }

    /// CPU time that it has used since it started, in user and kernel mode.
    ///
    /// # Errors
    /// It is not there.
    pub fn cpu(&self) -> Result<Duration> {
        procfs::cpu(self.pid())
    }

    /// Its resident memory in MiB.
    ///
    /// # Errors
    /// It is not there.
    pub fn memory_mib(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }

    /// Transactions that it has committed to the northbound database since it started.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn northbound_transactions(&self) -> Result<f64> {
        self.metric("fiberlb_northbound_transactions_total{outcome=\"committed\"}").await
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(binary: &Path, arguments: &[String], log: &Path) -> Result<Child> {
    let log = std::fs::File::options().create(true).append(true).open(log)?;
    // With the signal nothing is left behind when a test is killed.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(binary).args(arguments);
    // Most topologies of tests have switches without a subnet. A release that does not know it yet takes all addresses.
    command.env("FIBERLB_ALLOW_UNKNOWN_SUBNETS", "true");
    // It chooses the release of the lab, and is no setting.
    command.env_remove("FIBERLB_OVN");
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
    child.with_context(|| format!("cannot start {}", binary.display()))
}

/// A free port on a loopback address that only this process has, made of its process id of at most 22 bits: on 127.0.0.1
/// another process may be given the same port before it is used.
///
/// # Errors
/// The system's.
pub fn free_address() -> Result<SocketAddr> {
    // The ChainFire client's tests have the addresses that end in 0 to 2, for etcd.
    let [_, high, middle, low] = (std::process::id() << 2 | 3).to_be_bytes();
    Ok(TcpListener::bind((Ipv4Addr::new(127, high, middle, low), 0))?.local_addr()?)
}
