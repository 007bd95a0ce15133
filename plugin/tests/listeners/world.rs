//! A plugin in a process of its own, and clients of its listeners.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Instant;

use fiberlb_daemon::descriptors;
use fiberlb_daemon::testing::{Daemon, PATIENCE, get};
use fiberlb_plugin::agents::certificates::{AgentCaCommand, Ca};
use fiberlb_proto::agent::v1::peer_service_client::PeerServiceClient;
use fiberlb_proto::v1::RemoveNodeRequest;
use tempfile::TempDir;
use tokio::time::timeout;
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

/// Address that attacks come from.
pub(crate) const ATTACKER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// Address of everybody else.
const HONEST: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));

/// Listener of the plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// The API, with TLS.
    Api,
    /// The node agents', with mutual TLS.
    Agents,
    /// Metrics, without TLS.
    Metrics,
}

impl Target {
    pub(crate) const ALL: [Self; 3] = [Self::Api, Self::Agents, Self::Metrics];

    /// Name in metrics and logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Agents => "agents",
            Self::Metrics => "metrics",
        }
    }
}

/// A plugin that runs.
pub(crate) struct World {
    pub(crate) plugin: Daemon,
    started: Instant,
    api: SocketAddr,
    agents: SocketAddr,
    metrics: SocketAddr,
    ca: PathBuf,
    _directory: TempDir,
}

impl World {
    /// Starts a plugin. `connections`: limits of each of its listeners. `files`: its limit of open files.
    pub(crate) async fn start(connections: &str, files: Option<u32>) -> Self {
        // For the attacks.
        descriptors::raise_limit().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let ca = directory.path().join("ca");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        AgentCaCommand::Init { dir: ca.clone(), names: names.clone(), days: 2, server_days: 1 }
            .run()
            .unwrap();
        let issuer = Ca { dir: ca.clone(), days: 1 };
        AgentCaCommand::Api { ca: issuer, outdir: directory.path().join("api"), names }.run().unwrap();
        let config = directory.path().join("plugin.toml");
        std::fs::write(&config, settings(directory.path(), &ca, connections)).unwrap();
        let arguments = ["--config", config.to_str().unwrap(), "--log-format", "json"];
        let mut plugin = Daemon::start(env!("CARGO_BIN_EXE_fiberlb-plugin"), &arguments, files);
        let started = Instant::now();
        let api = plugin.serving("api_address").await.parse().unwrap();
        let metrics = plugin.serving("metrics_address").await.parse().unwrap();
        let agents = plugin.serving("agents").await.strip_prefix("tcp:").unwrap().parse().unwrap();
        Self { plugin, started, api, agents, metrics, ca, _directory: directory }
    }

    pub(crate) fn address(&self, target: Target) -> SocketAddr {
        match target {
            Target::Api => self.api,
            Target::Agents => self.agents,
            Target::Metrics => self.metrics,
        }
    }

    /// A client that connects anew gets its answer.
    pub(crate) async fn serves(&self, target: Target) {
        let answer = async {
            match target {
                Target::Api => {
                    let mut client = HealthClient::new(self.channel(target));
                    let answer = client.check(HealthCheckRequest::default()).await;
                    answer.map(drop).map_err(|status| status.to_string())
                }
                Target::Agents => {
                    let question = RemoveNodeRequest { id: "nobody".to_owned() };
                    match PeerServiceClient::new(self.channel(target)).remove_node(question).await {
                        Err(status) if status.code() == Code::NotFound => Ok(()),
                        other => Err(format!("{other:?}")),
                    }
                }
                Target::Metrics => match get(HONEST, self.metrics, "/livez").await {
                    Ok((200, _)) => Ok(()),
                    other => Err(format!("{other:?}")),
                },
            }
        };
        let answer = timeout(PATIENCE, answer).await.expect("it answers");
        assert_eq!(answer, Ok(()), "{target:?}: {:?}", self.plugin.log());
    }

    /// Value of a series.
    pub(crate) async fn metric(&self, series: &str) -> u64 {
        let (status, text) = get(HONEST, self.metrics, "/metrics").await.unwrap();
        assert_eq!(status, 200);
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no {series} in {text}"))
    }

    /// Open connections of a listener.
    pub(crate) async fn connections(&self, target: Target) -> u64 {
        self.metric(&format!("fiberlb_listener_connections{{listener=\"{}\"}}", target.name())).await
    }

    /// Checks that no listener has logged more than one line a second, and that something was logged of those that must have.
    pub(crate) fn check_log(&self, attacked: &[Target]) {
        let (log, seconds) = (self.plugin.log(), self.started.elapsed().as_secs() + 1);
        for target in Target::ALL {
            let of = format!("\"listener\":\"{}\"", target.name());
            let lines = log.iter().filter(|line| line.contains(&of)).count() as u64;
            assert!(lines <= seconds, "{target:?}: {lines} lines in {seconds} s");
            assert!(lines > 0 || !attacked.contains(&target), "{target:?} was attacked: {log:?}");
        }
        assert!((log.len() as u64) < 3 * seconds + 20, "{} lines in {seconds} s", log.len());
    }

    fn channel(&self, target: Target) -> Channel {
        let read = |name: &str| std::fs::read(self.ca.join(name)).unwrap();
        let identity = Identity::from_pem(read("server.pem"), read("server.key"));
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read("ca.pem")));
        let tls = if target == Target::Agents { tls.identity(identity) } else { tls };
        let endpoint = Endpoint::from_shared(format!("https://{}", self.address(target))).unwrap();
        endpoint.tls_config(tls).unwrap().local_address(Some(HONEST)).connect_lazy()
    }
}

fn settings(directory: &Path, ca: &Path, connections: &str) -> String {
    let (directory, ca) = (directory.display(), ca.display());
    format!(
        "[api]\nlisten = \"127.0.0.1:0\"\ntls_certificate = \"{directory}/api/server.pem\"\ntls_key = \"{directory}/api/server.key\"\n\
         [api.connections]\n{connections}\n\
         [agents]\nlisten = \"tcp:127.0.0.1:0\"\ntls_certificate = \"{ca}/server.pem\"\n\
         tls_key = \"{ca}/server.key\"\nclient_ca = \"{ca}/ca.pem\"\n\
         [agents.connections]\n{connections}\n\
         [metrics]\nlisten = \"127.0.0.1:0\"\n\
         [metrics.connections]\n{connections}\n\
         [store]\npath = \"{directory}/store.redb\"\n\
         [northbound]\nendpoints = [\"unix:{directory}/nb.sock\"]\n"
    )
}
