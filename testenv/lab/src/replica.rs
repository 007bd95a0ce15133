//! A `fiberlb-plugin` process on a host of the lab: one of several on a store that they share.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use fiberlb_proto::v1;
use fiberlb_proto::v1::load_balancer_service_client::LoadBalancerServiceClient;
use tokio::net::TcpSocket;
use tonic::transport::{Channel, Endpoint};

use crate::binaries::workspace_binary;
use crate::host::Host;
use crate::process::{Process, Program};
use crate::scrape;

/// Port of the API.
const API_PORT: u16 = 9630;
/// Address of the metrics, on loopback of its host.
const METRICS: ([u8; 4], u16) = ([127, 0, 0, 1], 9631);
/// Port for node agents.
const AGENTS_PORT: u16 = 9632;
/// Longest wait for it to answer.
const READY: Duration = Duration::from_secs(60);
/// An answer that takes longer does not count.
const ANSWER: Duration = Duration::from_secs(3);

/// Settings of a replica.
#[derive(Debug, Clone)]
pub struct ReplicaSpec {
    /// Its store, such as `chainfire://172.30.0.2:2379`.
    pub store: String,
    /// Endpoints of the northbound database.
    pub northbound: Vec<String>,
    /// True if it serves node agents, which need the files of an [`crate::authority::Authority`].
    pub agents: bool,
    /// More arguments, such as those of [`crate::authority::Authority::plugin_arguments`].
    pub more: Vec<String>,
}

/// A plugin that runs.
#[derive(Debug)]
pub struct Replica {
    host: Host,
    process: Process,
}

impl Replica {
    /// Starts it. It need not answer yet: see [`Replica::ready`].
    ///
    /// # Errors
    /// It is not built, or ends at once.
    pub async fn start(host: Host, name: &str, spec: &ReplicaSpec) -> Result<Self> {
        Self::start_binary(workspace_binary("fiberlb-plugin")?, host, name, spec).await
    }

    /// The same with a binary of the caller's choosing, such as one of another release.
    ///
    /// # Errors
    /// As [`Replica::start`].
    pub async fn start_binary(binary: PathBuf, host: Host, name: &str, spec: &ReplicaSpec) -> Result<Self> {
        let listen = SocketAddr::new(host.address(), API_PORT).to_string();
        let metrics = SocketAddr::from(METRICS).to_string();
        let agents = SocketAddr::new(host.address(), AGENTS_PORT);
        let agents = if spec.agents { format!("tcp:{agents}") } else { "off".to_owned() };
        let northbound = spec.northbound.join(",");
        let options = [
            ["--listen", &listen],
            ["--metrics-listen", &metrics],
            ["--agents-listen", &agents],
            ["--store", &spec.store],
            ["--northbound", &northbound],
            // Geneve over the lab's underlay.
            ["--mtu", "1400"],
        ];
        let options = options.as_flattened().iter().map(|text| (*text).to_owned());
        // Only the lab reaches it.
        let arguments = options.chain(["--insecure".to_owned()]).chain(spec.more.iter().cloned()).collect();
        let (world, netns, name) = (host.world().clone(), host.netns_name().to_owned(), name.to_owned());
        let program = Program { world, netns, name, binary, arguments };
        Ok(Self { process: Process::start(program).await?, host })
    }

    /// Endpoint for node agents of a plugin on a host, as agents are configured with it.
    #[must_use]
    pub fn agents_endpoint(host: &Host) -> String {
        format!("https://{}", SocketAddr::new(host.address(), AGENTS_PORT))
    }

    /// The host that it runs on.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its process, to kill it and start it again.
    #[must_use]
    pub fn process_mut(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The URL of its API, for a command that runs in the lab.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.api())
    }

    /// A connection to its API from another host. A call without an answer fails after 3 s.
    #[must_use]
    pub fn channel_from(&self, host: &Host) -> Channel {
        let endpoint = Endpoint::from_static("http://fiberlb-plugin").timeout(ANSWER);
        // A host that was cut off must not be waited for by what TCP has in flight.
        let endpoint = endpoint.http2_keep_alive_interval(ANSWER).keep_alive_timeout(ANSWER);
        host.channel(&endpoint.connect_timeout(ANSWER), self.api())
    }

    /// Waits until it answers calls from its own host.
    ///
    /// # Errors
    /// It does not within a minute.
    pub async fn ready(&self) -> Result<()> {
        let started = Instant::now();
        let mut client = LoadBalancerServiceClient::new(self.channel_from(&self.host));
        loop {
            let request = v1::ListLoadBalancersRequest { page_size: 1, ..Default::default() };
            match client.list_load_balancers(request).await {
                Ok(_) => return Ok(()),
                Err(status) if started.elapsed() > READY => {
                    bail!("{} does not answer: {status}", self.process.program().name);
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// The value of one line of its metrics, named with its labels; 0 where there is no such line.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn metric(&self, line: &str) -> Result<f64> {
        let netns = self.host.world().netns(self.host.netns_name())?;
        let socket = netns.run(TcpSocket::new_v4)??;
        let asked = async { scrape::metric(socket.connect(METRICS.into()).await?, line).await };
        tokio::time::timeout(ANSWER, asked).await?
    }

    fn api(&self) -> SocketAddr {
        SocketAddr::new(self.host.address(), API_PORT)
    }
}
