//! Configuration: a TOML file, over it the environment, over that the command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use fiberlb_daemon::listen::ConnectionSettings;
use fiberlb_daemon::logs::LogSettings;
use fiberlb_daemon::names::is_name;
use fiberlb_daemon::settings;
use fiberlb_node::netns::RUN_NETNS;
use ovsdb::endpoint::Endpoint;
use serde::{Deserialize, Serialize};

use crate::access_log::{CollectorEndpoint, CollectorTls, OtlpSettings};
use crate::link::{PluginEndpoint, TlsFiles};

mod check;
#[cfg(test)]
mod docs;
mod options;
#[cfg(test)]
mod tests;

pub use options::Overrides;

/// Name of the configuration file that the systemd unit reads.
const FILE: &str = "proxy.toml";

/// All settings of the agent. The file's keys have these names; every one of them may be left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Config {
    /// Identity of this node.
    pub node: Node,
    /// The plugin.
    pub plugin: Plugin,
    /// The local Open vSwitch, and namespaces.
    pub network: Network,
    /// The data plane.
    pub dataplane: Dataplane,
    /// State on disk.
    pub state: State,
    /// Prometheus metrics.
    pub metrics: Metrics,
    /// Logs.
    pub log: LogSettings,
    /// A line for each connection, or some of them.
    pub access_log: AccessLogConfig,
}

/// Identity of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Node {
    /// 1 to 64 letters, digits, `.`, `_`, `-`: id of this node, unique in the installation; with TLS the one in the
    /// certificate. Default: the host's name.
    pub id: Option<String>,
    /// Up to 64 such characters: failure domain; the nodes of a network are taken from different zones where they can
    /// be.
    pub zone: String,
}

/// The plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Plugin {
    /// List of `unix:PATH`, `https://HOST:PORT`: all plugins, each once; one is connected to, the next when that one
    /// fails.
    pub endpoints: Vec<String>,
    /// PEM file: CA of the plugins' certificates; for `https:`, with the two below. All three are reread at each
    /// connect.
    pub tls_ca: Option<PathBuf>,
    /// PEM file: certificate of the node, and its chain to the CA.
    pub tls_certificate: Option<PathBuf>,
    /// PEM file: private key of that certificate.
    pub tls_key: Option<PathBuf>,
}

/// The local Open vSwitch, and namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Network {
    /// `unix:PATH`, `tcp:HOST:PORT`: the local Open_vSwitch database.
    pub ovs_db: String,
    /// Name: the integration bridge.
    pub bridge: String,
    /// Directory: place of the named namespaces; `ip netns` looks in the default one.
    pub netns_dir: PathBuf,
}

/// The data plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Dataplane {
    /// Worker threads. Default: one for each core that the process may use.
    pub workers: Option<usize>,
    /// Most proxied connections at a time, over all networks, which share them. Default: as many as the descriptors of
    /// the process allow.
    pub max_connections: Option<usize>,
    /// Drain deadline: how long connections may go on when the agent stops, or their listener goes.
    pub drain_timeout_s: u64,
}

/// State on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct State {
    /// Directory: place of the agent's last good configuration, with which it serves when no plugin is there; of this
    /// agent alone.
    pub dir: PathBuf,
}

/// Prometheus metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Metrics {
    /// `ADDRESS:PORT`: address that answers `GET /metrics`, `/livez` and `/readyz`, without TLS.
    pub listen: SocketAddr,
    /// Most checked backends with series of their own, the first by id; 0: none has any.
    pub backends: usize,
    /// Limits on its connections.
    pub connections: ConnectionSettings,
}

/// A line for each connection, or some of them, as JSON. Without a directory, syslog or a collector there is none; what
/// `fiberlb logs` shows does not depend on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AccessLogConfig {
    /// 0 to 1: part of the connections that have a line, by chance.
    pub sample: f64,
    /// Most lines a second of one project; those above are lost, and counted.
    pub lines_per_second: u32,
    /// Directory: place of the lines, in `PROJECT.log` for each project; made unless it is there.
    pub directory: Option<PathBuf>,
    /// Size of a file, in MiB, at which it becomes `PROJECT.log.1`, in place of the one before, and a new one begins.
    pub max_file_mib: u64,
    /// Socket such as `/dev/log`: syslog that gets the lines, too, with the tag `fiberlb-access` and the facility local0.
    pub syslog: Option<PathBuf>,
    /// `http://HOST:PORT`, `https://HOST:PORT`: collector that gets the lines, too, as records of OTLP by gRPC.
    pub otlp_endpoint: Option<String>,
    /// PEM file: CA of the collector's certificate, for `https:`. It and the two below are reread at each connect.
    pub otlp_tls_ca: Option<PathBuf>,
    /// PEM file: certificate of the node, if the collector asks for one.
    pub otlp_tls_certificate: Option<PathBuf>,
    /// PEM file: private key of that certificate.
    pub otlp_tls_key: Option<PathBuf>,
}

impl Default for AccessLogConfig {
    fn default() -> Self {
        Self {
            sample: 1.0,
            lines_per_second: 5000,
            directory: None,
            max_file_mib: 100,
            syslog: None,
            otlp_endpoint: None,
            otlp_tls_ca: None,
            otlp_tls_certificate: None,
            otlp_tls_key: None,
        }
    }
}

impl Default for Plugin {
    fn default() -> Self {
        let endpoints = vec!["unix:/run/fiberlb/agents.sock".to_owned()];
        Self { endpoints, tls_ca: None, tls_certificate: None, tls_key: None }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self {
            ovs_db: "unix:/var/run/openvswitch/db.sock".to_owned(),
            bridge: "br-int".to_owned(),
            netns_dir: PathBuf::from(RUN_NETNS),
        }
    }
}

impl Default for Dataplane {
    fn default() -> Self {
        Self { workers: None, max_connections: None, drain_timeout_s: 30 }
    }
}

impl Default for State {
    fn default() -> Self {
        Self { dir: PathBuf::from("/var/lib/fiberlb-proxy") }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let listen = SocketAddr::from(([127, 0, 0, 1], 9632));
        Self { listen, backends: 0, connections: ConnectionSettings::default() }
    }
}

impl Config {
    /// The settings in force.
    ///
    /// # Errors
    /// Names the file and key, what is wrong with it, and what to do.
    pub fn load(overrides: Overrides) -> anyhow::Result<Self> {
        let config = Self::read(overrides)?;
        config.check()?;
        Ok(config)
    }

    /// The same, unchecked.
    ///
    /// # Errors
    /// Names the file and the first place in it that cannot be read.
    pub fn read(overrides: Overrides) -> anyhow::Result<Self> {
        let mut config: Self = settings::load(overrides.file().as_deref())?;
        overrides.put_over(&mut config);
        Ok(config)
    }

    /// The node's id.
    ///
    /// # Errors
    /// It cannot be one.
    pub fn node_id(&self) -> anyhow::Result<String> {
        let id = match &self.node.id {
            Some(id) => id.clone(),
            None => host_name()?,
        };
        ensure!(is_name(&id), "node.id is {id:?}: give 1 to 64 letters, digits, '.', '_' or '-'");
        Ok(id)
    }

    /// Endpoints of the plugins.
    ///
    /// # Errors
    /// Names the one that cannot be read.
    pub fn plugin_endpoints(&self) -> anyhow::Result<Vec<PluginEndpoint>> {
        let parse = |text: &String| text.parse().with_context(|| format!("plugin.endpoints has {text:?}"));
        self.plugin.endpoints.iter().map(parse).collect()
    }

    /// The files for TLS, if there are any.
    ///
    /// # Errors
    /// Some are set and others not.
    pub fn tls(&self) -> anyhow::Result<Option<TlsFiles>> {
        let Plugin { tls_ca, tls_certificate, tls_key, .. } = self.plugin.clone();
        match (tls_ca, tls_certificate, tls_key) {
            (Some(ca), Some(certificate), Some(key)) => Ok(Some(TlsFiles { ca, certificate, key })),
            (None, None, None) => Ok(None),
            _ => bail!(
                "plugin.tls_ca, plugin.tls_certificate and plugin.tls_key belong together: give all or none"
            ),
        }
    }

    /// The collector of the access log, if there is one.
    ///
    /// # Errors
    /// It is no endpoint, or lacks files for TLS; some files are set and others not.
    pub fn otlp(&self) -> anyhow::Result<Option<OtlpSettings>> {
        let AccessLogConfig { otlp_endpoint, otlp_tls_ca, otlp_tls_certificate, otlp_tls_key, .. } =
            self.access_log.clone();
        let identity = match (otlp_tls_certificate, otlp_tls_key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => bail!(
                "access_log.otlp_tls_certificate and access_log.otlp_tls_key belong together: give both or none"
            ),
        };
        let is_https = |endpoint: &CollectorEndpoint| endpoint.is_https();
        let endpoint = otlp_endpoint.map(|text| text.parse::<CollectorEndpoint>());
        let endpoint = endpoint.transpose().context("access_log.otlp_endpoint")?;
        let tls = otlp_tls_ca.map(|ca| CollectorTls { ca, identity: identity.clone() });
        ensure!(
            tls.is_some() == endpoint.as_ref().is_some_and(is_https) && (tls.is_some() || identity.is_none()),
            "access_log.otlp_tls_ca and an https endpoint in access_log.otlp_endpoint belong together: give both, \
             or no access_log.otlp_tls_*"
        );
        Ok(endpoint.map(|endpoint| OtlpSettings { endpoint, tls }))
    }

    /// The local Open_vSwitch database.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn ovs(&self) -> anyhow::Result<Endpoint> {
        let text = &self.network.ovs_db;
        let endpoint: Endpoint = text.parse().with_context(|| format!("network.ovs_db is {text:?}"))?;
        ensure!(
            !matches!(endpoint, Endpoint::Ssl { .. }),
            "network.ovs_db is {text:?}: the local Open vSwitch is reached by unix:PATH or tcp:HOST:PORT"
        );
        Ok(endpoint)
    }

    /// Number of workers of the data plane.
    #[must_use]
    pub fn workers(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.dataplane.workers.unwrap_or_else(cores)
    }

    /// Drain deadline.
    #[must_use]
    pub fn drain_timeout(&self) -> Duration {
        Duration::from_secs(self.dataplane.drain_timeout_s)
    }
}

fn host_name() -> anyhow::Result<String> {
    let name =
        nix::unistd::gethostname().context("cannot ask for the host's name; give node.id (--node-id)")?;
    name.into_string()
        .map_err(|name| anyhow::anyhow!("the host's name is {name:?}; give node.id (--node-id)"))
}
