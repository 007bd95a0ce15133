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

use crate::link::{PluginEndpoint, TlsFiles};

mod check;
mod options;
#[cfg(test)]
mod page;
#[cfg(test)]
mod tests;

pub use options::Overrides;

/// All settings of the agent. The file's keys have these names; every one of them may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Who this node is.
    pub node: Node,
    /// The plugin.
    pub plugin: Plugin,
    /// The local Open vSwitch, and namespaces.
    pub network: Network,
    /// The data plane.
    pub dataplane: Dataplane,
    /// What is kept on disk.
    pub state: State,
    /// Prometheus metrics.
    pub metrics: Metrics,
    /// Logs.
    pub log: LogSettings,
}

/// Who this node is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Node {
    /// Unique among the nodes of an installation; with TLS the certificate's. Default: the host's name.
    pub id: Option<String>,
    /// Failure domain, for placement. Default: none.
    pub zone: String,
}

/// The plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Plugin {
    /// Each plugin: `unix:PATH` or `https://HOST:PORT`. One of them is connected to, the next when that one fails. Default `unix:/run/fiberlb/agents.sock`.
    pub endpoints: Vec<String>,
    /// PEM file with the CA's certificates that the plugin's certificate must come from.
    pub tls_ca: Option<PathBuf>,
    /// PEM file with the node's certificate and what leads to its CA.
    pub tls_certificate: Option<PathBuf>,
    /// PEM file with the certificate's private key.
    pub tls_key: Option<PathBuf>,
}

/// The local Open vSwitch, and namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// Its database, `unix:PATH` or `tcp:HOST:PORT`. Default `unix:/var/run/openvswitch/db.sock`.
    pub ovs_db: String,
    /// The integration bridge. Default `br-int`.
    pub bridge: String,
    /// Where named namespaces are. Default `/run/netns`, where `ip netns` looks.
    pub netns_dir: PathBuf,
}

/// The data plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dataplane {
    /// Worker threads. Default: one for each core that the process may use.
    pub workers: Option<usize>,
    /// Seconds that connections may go on when the agent stops, or their listener goes. Default 30.
    pub drain_timeout_s: u64,
}

/// What is kept on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct State {
    /// Directory of this agent alone. Default `/var/lib/fiberlb-proxy`.
    pub dir: PathBuf,
}

/// Prometheus metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Address and port of `/metrics`, `/livez` and `/readyz`, default `127.0.0.1:9632`.
    pub listen: SocketAddr,
    /// Limits on its connections.
    pub connections: ConnectionSettings,
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
        Self { workers: None, drain_timeout_s: 30 }
    }
}

impl Default for State {
    fn default() -> Self {
        Self { dir: PathBuf::from("/var/lib/fiberlb-proxy") }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9632)), connections: ConnectionSettings::default() }
    }
}

impl Config {
    /// The settings in force.
    ///
    /// # Errors
    /// Names the file and key, what is wrong with it, and what to do.
    pub fn load(overrides: Overrides) -> anyhow::Result<Self> {
        let mut config: Self = settings::load(overrides.config.as_deref())?;
        overrides.put_over(&mut config);
        config.check()?;
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

    /// Where the plugin is.
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

    /// How many workers the data plane has.
    #[must_use]
    pub fn workers(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.dataplane.workers.unwrap_or_else(cores)
    }

    /// How long connections may go on.
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
