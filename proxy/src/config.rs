//! Configuration: a TOML file, over it the environment, over that the command line.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use fiberlb_ovn::netns::RUN_NETNS;
use fiberlb_ovn::ovsdb::endpoint::Endpoint;
use serde::Deserialize;

use crate::link::{PluginEndpoint, TlsFiles};

/// Longest name of a node or zone, in bytes.
const NAME_BYTES: usize = 64;

/// All settings of the agent. The file's keys have these names; every one of them may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
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
    pub log: Log,
}

/// Who this node is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Node {
    /// Unique among the nodes of an installation; with TLS the certificate's. Default: the host's name.
    pub id: Option<String>,
    /// Failure domain, for placement. Default: none.
    pub zone: String,
}

/// The plugin.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Dataplane {
    /// Worker threads. Default: one for each core that the process may use.
    pub workers: Option<usize>,
    /// Seconds that connections may go on when the agent stops, or their listener goes. Default 30.
    pub drain_timeout_s: u64,
}

/// What is kept on disk.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct State {
    /// Directory of this agent alone. Default `/var/lib/fiberlb-proxy`.
    pub dir: PathBuf,
}

/// Prometheus metrics.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Address and port of `/metrics`, default `127.0.0.1:9632`.
    pub listen: SocketAddr,
}

/// How logs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One line of text for each event.
    #[default]
    Text,
    /// One JSON object for each event.
    Json,
}

/// Logs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// What is logged: `info`, or by target: `info,fiberlb_proxy::health=debug`. Default `info`.
    pub filter: String,
    /// How.
    pub format: LogFormat,
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
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9632)) }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".to_owned(), format: LogFormat::Text }
    }
}

/// What the command line and the environment say instead of the file.
#[derive(Clone, Debug, Default, Args)]
pub struct Overrides {
    /// Configuration file (TOML)
    #[arg(long, env = "FIBERLB_PROXY_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Unique among the nodes of an installation; with TLS the certificate's [default: the host's name]
    #[arg(long, env = "FIBERLB_PROXY_NODE_ID", value_name = "ID")]
    pub node_id: Option<String>,
    /// Failure domain, for placement [default: none]
    #[arg(long, env = "FIBERLB_PROXY_ZONE", value_name = "ZONE")]
    pub zone: Option<String>,
    /// The plugins, unix:PATH or https://HOST:PORT, one after another in use [default: unix:/run/fiberlb/agents.sock]
    #[arg(long, env = "FIBERLB_PROXY_PLUGIN", value_name = "ENDPOINT", value_delimiter = ',')]
    pub plugin: Vec<String>,
    /// PEM file with the CA of the plugin's certificate, for https
    #[arg(long, env = "FIBERLB_PROXY_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// PEM file with the node's certificate, for https
    #[arg(long, env = "FIBERLB_PROXY_TLS_CERTIFICATE", value_name = "FILE")]
    pub tls_certificate: Option<PathBuf>,
    /// PEM file with the certificate's private key, for https
    #[arg(long, env = "FIBERLB_PROXY_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// The local Open_vSwitch database [default: unix:/var/run/openvswitch/db.sock]
    #[arg(long, env = "FIBERLB_PROXY_OVS_DB", value_name = "ENDPOINT")]
    pub ovs_db: Option<String>,
    /// The integration bridge [default: br-int]
    #[arg(long, env = "FIBERLB_PROXY_BRIDGE", value_name = "BRIDGE")]
    pub bridge: Option<String>,
    /// Where named namespaces are [default: /run/netns]
    #[arg(long, env = "FIBERLB_PROXY_NETNS_DIR", value_name = "DIRECTORY")]
    pub netns_dir: Option<PathBuf>,
    /// Worker threads of the data plane [default: one for each core]
    #[arg(long, env = "FIBERLB_PROXY_WORKERS", value_name = "COUNT")]
    pub workers: Option<usize>,
    /// Seconds that connections may go on when the agent stops, or their listener goes [default: 30]
    #[arg(long, env = "FIBERLB_PROXY_DRAIN_TIMEOUT", value_name = "SECONDS")]
    pub drain_timeout: Option<u64>,
    /// Directory for the last good configuration [default: /var/lib/fiberlb-proxy]
    #[arg(long, env = "FIBERLB_PROXY_STATE_DIR", value_name = "DIRECTORY")]
    pub state_dir: Option<PathBuf>,
    /// Address and port of /metrics [default: 127.0.0.1:9632]
    #[arg(long, env = "FIBERLB_PROXY_METRICS_LISTEN", value_name = "ADDRESS:PORT")]
    pub metrics_listen: Option<SocketAddr>,
    /// What is logged, such as info or info,fiberlb_proxy::health=debug [default: info]
    #[arg(long, env = "FIBERLB_PROXY_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// How logs are written [default: text]
    #[arg(long, env = "FIBERLB_PROXY_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

impl Config {
    /// The settings in force.
    ///
    /// # Errors
    /// Names the file and key, what is wrong with it, and what to do.
    pub fn load(overrides: Overrides) -> anyhow::Result<Self> {
        let mut config = match &overrides.config {
            Some(path) => Self::read(path)?,
            None => Self::default(),
        };
        config.override_with(overrides);
        config.check()?;
        Ok(config)
    }

    fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration file {}", path.display()))?;
        toml::from_str(&text)
            .with_context(|| format!("the configuration file {} is not valid", path.display()))
    }

    fn override_with(&mut self, overrides: Overrides) {
        fn set<T>(target: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *target = value;
            }
        }
        set(&mut self.node.id, overrides.node_id.map(Some));
        set(&mut self.node.zone, overrides.zone);
        set(&mut self.plugin.endpoints, (!overrides.plugin.is_empty()).then_some(overrides.plugin));
        set(&mut self.plugin.tls_ca, overrides.tls_ca.map(Some));
        set(&mut self.plugin.tls_certificate, overrides.tls_certificate.map(Some));
        set(&mut self.plugin.tls_key, overrides.tls_key.map(Some));
        set(&mut self.network.ovs_db, overrides.ovs_db);
        set(&mut self.network.bridge, overrides.bridge);
        set(&mut self.network.netns_dir, overrides.netns_dir);
        set(&mut self.dataplane.workers, overrides.workers.map(Some));
        set(&mut self.dataplane.drain_timeout_s, overrides.drain_timeout);
        set(&mut self.state.dir, overrides.state_dir);
        set(&mut self.metrics.listen, overrides.metrics_listen);
        set(&mut self.log.filter, overrides.log);
        set(&mut self.log.format, overrides.log_format);
    }

    fn check(&self) -> anyhow::Result<()> {
        self.node_id()?;
        let zone = &self.node.zone;
        ensure!(
            zone.is_empty() || is_name(zone),
            "node.zone is {zone:?}: give up to 64 letters, digits, '.', '_' or '-'"
        );
        self.ovs()?;
        ensure!(!self.plugin.endpoints.is_empty(), "plugin.endpoints is empty: give at least one");
        let endpoints = self.plugin_endpoints()?;
        for (at, endpoint) in endpoints.iter().enumerate() {
            let is_twice = endpoints.iter().take(at).any(|earlier| earlier == endpoint);
            ensure!(!is_twice, "plugin.endpoints has {endpoint} twice: give each plugin once");
        }
        let is_https = |endpoint: &PluginEndpoint| matches!(endpoint, PluginEndpoint::Https { .. });
        let tls = self.tls()?;
        ensure!(
            tls.is_some() || !endpoints.iter().any(is_https),
            "an https endpoint needs plugin.tls_ca, plugin.tls_certificate and plugin.tls_key: \
             `fiberlb-plugin agent-ca issue` makes the files"
        );
        ensure!(
            tls.is_none() || endpoints.iter().any(is_https),
            "plugin.tls_* are set, but no endpoint is https: remove them, or connect to https://HOST:PORT"
        );
        ensure!(self.dataplane.workers != Some(0), "dataplane.workers is 0: give at least 1");
        ensure!(
            !self.network.bridge.is_empty(),
            "network.bridge is empty: give the integration bridge's name"
        );
        Ok(())
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

fn is_name(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !text.is_empty() && text.len() <= NAME_BYTES && text.chars().all(legal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_goes_over_the_file_and_the_file_over_the_defaults() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[node]\nid = \"a\"\nzone = \"z\"\n[dataplane]\nworkers = 3\n").unwrap();
        let overrides = Overrides {
            config: Some(file.path().to_owned()),
            node_id: Some("b".to_owned()),
            ..Overrides::default()
        };
        let config = Config::load(overrides).unwrap();
        assert_eq!((config.node_id().unwrap().as_str(), config.node.zone.as_str()), ("b", "z"));
        assert_eq!(config.workers(), 3);
        assert_eq!(config.plugin, Plugin::default());
    }

    #[test]
    fn nothing_said_is_a_node_named_like_its_host() {
        let config = Config::load(Overrides::default()).unwrap();
        assert_eq!(config.node_id().unwrap(), nix::unistd::gethostname().unwrap().to_str().unwrap());
        assert!(config.workers() > 0);
    }

    #[test]
    fn an_error_names_key_value_and_reason() {
        let plugin = |endpoints: &[&str]| endpoints.iter().map(|text| (*text).to_owned()).collect();
        let key = Some(PathBuf::from("k"));
        let cases = [
            (Overrides { node_id: Some("a b".to_owned()), ..Overrides::default() }, "node.id is \"a b\""),
            (Overrides { zone: Some("a/b".to_owned()), ..Overrides::default() }, "node.zone is \"a/b\""),
            (Overrides { ovs_db: Some("ssl:x:1".to_owned()), ..Overrides::default() }, "ssl:x:1"),
            (Overrides { plugin: plugin(&["http://x:1"]), ..Overrides::default() }, "http://x:1"),
            (
                Overrides { plugin: plugin(&["unix:/a", "unix:/b", "unix:/a"]), ..Overrides::default() },
                "unix:/a twice",
            ),
            (Overrides { plugin: plugin(&["https://x:1"]), ..Overrides::default() }, "plugin.tls_ca"),
            (Overrides { tls_key: key.clone(), ..Overrides::default() }, "belong together"),
            (
                Overrides {
                    tls_key: key.clone(),
                    tls_ca: key.clone(),
                    tls_certificate: key,
                    ..Overrides::default()
                },
                "no endpoint is https",
            ),
            (Overrides { workers: Some(0), ..Overrides::default() }, "dataplane.workers is 0"),
        ];
        for (overrides, part) in cases {
            let error = format!("{:#}", Config::load(overrides).unwrap_err());
            assert!(error.contains(part), "{error}");
        }
    }
}
