//! Configuration: a TOML file, over it the environment, over that the command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use fiberlb_daemon::listen::ConnectionSettings;
use fiberlb_daemon::logs::LogSettings;
use fiberlb_daemon::settings;
use ovsdb::client::TlsFiles;
use ovsdb::endpoint::Endpoint;
use serde::{Deserialize, Serialize};

use crate::api::{Limits, NetworkSettings};
use crate::auth::Principal;
use crate::{agents, fleet, reconcile};

mod check;
#[cfg(test)]
mod docs;
mod options;
#[cfg(test)]
mod tests;

pub use options::Overrides;

/// Name of the configuration file that the systemd unit reads.
const FILE: &str = "plugin.toml";
/// Prefix of the path of a store in a cluster.
const CHAINFIRE: &str = "chainfire://";

/// All settings of the plugin. The file's keys have these names; every one of them may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Config {
    /// The gRPC API.
    pub api: ApiSettings,
    /// Store of the specifications.
    pub store: StoreSettings,
    /// OVN's northbound database.
    pub northbound: NorthboundSettings,
    /// The listener for node agents.
    pub agents: agents::Settings,
    /// Use of the proxy nodes.
    pub fleet: fleet::FleetSettings,
    /// Reconciliation.
    pub reconcile: reconcile::ReconcileSettings,
    /// Limits on one caller.
    pub limits: Limits,
    /// Rules for tenant networks.
    pub networks: NetworkSettings,
    /// Principal of everybody who reaches the API.
    pub principal: Principal,
    /// Prometheus metrics.
    pub metrics: MetricsSettings,
    /// Logs.
    pub log: LogSettings,
}

/// The gRPC API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ApiSettings {
    /// `ADDRESS:PORT`: address that the gRPC API listens on.
    pub listen: SocketAddr,
    /// PEM file: the API's certificate and its chain to the CA; with `api.tls_key`. Replaced without a restart.
    pub tls_certificate: Option<PathBuf>,
    /// PEM file: private key of that certificate. Replaced without a restart.
    pub tls_key: Option<PathBuf>,
    /// Permission to listen without TLS on an address that is not loopback: everybody who reaches it may do
    /// everything.
    pub insecure: bool,
    /// Limits on its connections.
    pub connections: ConnectionSettings,
}

/// Store of the specifications.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct StoreSettings {
    /// File, or `chainfire://HOST:PORT,HOST:PORT,...`: file of the embedded store, or the cluster that keeps the
    /// store; the other keys of the store are for a cluster only.
    pub path: PathBuf,
    /// PEM file: CA of the members' certificates. With it: TLS.
    pub tls_ca: Option<PathBuf>,
    /// PEM file: certificate that the plugin shows to members; with `store.tls_key` and `store.tls_ca`.
    pub tls_certificate: Option<PathBuf>,
    /// PEM file: private key of that certificate.
    pub tls_key: Option<PathBuf>,
    /// Text: user of the cluster; with `store.password_file`.
    pub user: Option<String>,
    /// File: password of the user; white space at its end is ignored.
    pub password_file: Option<PathBuf>,
    /// Permission to send the password without TLS.
    pub insecure: bool,
    /// Deadline of one request to the cluster.
    pub timeout_ms: u64,
}

/// OVN's northbound database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NorthboundSettings {
    /// List of `unix:PATH`, `tcp:HOST:PORT`, `ssl:HOST:PORT`: all members of OVN's northbound database, of which the
    /// leader is used.
    pub endpoints: Vec<String>,
    /// PEM file: CA of the servers' certificates; for `ssl:`, with the two below. All three are reread at each
    /// connect.
    pub tls_ca: Option<PathBuf>,
    /// PEM file: certificate that the plugin shows to the servers.
    pub tls_certificate: Option<PathBuf>,
    /// PEM file: private key of that certificate.
    pub tls_key: Option<PathBuf>,
    /// Silence after which a server is probed; after as much again it is given up.
    pub probe_s: u64,
    /// Time after which the outcome of a transaction counts as unknown.
    pub timeout_s: u64,
    /// Longest message that a server may send. The database may be larger: see [the northbound
    /// database](#the-northbound-database).
    pub max_message_bytes: usize,
}

/// Prometheus metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MetricsSettings {
    /// `ADDRESS:PORT`: address that answers `GET /metrics`, `/livez` and `/readyz`, without TLS.
    pub listen: SocketAddr,
    /// Limits on its connections.
    pub connections: ConnectionSettings,
}

impl Default for ApiSettings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9630)),
            tls_certificate: None,
            tls_key: None,
            insecure: false,
            connections: ConnectionSettings::default(),
        }
    }
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            path: PathBuf::from("/var/lib/fiberlb/store.redb"),
            tls_ca: None,
            tls_certificate: None,
            tls_key: None,
            user: None,
            password_file: None,
            insecure: false,
            timeout_ms: 10_000,
        }
    }
}

impl Default for NorthboundSettings {
    fn default() -> Self {
        Self {
            endpoints: vec!["unix:/var/run/ovn/ovnnb_db.sock".to_owned()],
            tls_ca: None,
            tls_certificate: None,
            tls_key: None,
            probe_s: 5,
            timeout_s: 10,
            max_message_bytes: 128 << 20,
        }
    }
}

impl Default for MetricsSettings {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9631)), connections: ConnectionSettings::default() }
    }
}

impl Config {
    /// Loads the effective settings.
    ///
    /// # Errors
    /// Names the file and key, what is wrong with it, and what to do.
    pub fn load(overrides: Overrides) -> anyhow::Result<Self> {
        let config = Self::read(overrides)?;
        config.check()?;
        Ok(config)
    }

    /// Loads the effective settings, unchecked.
    ///
    /// # Errors
    /// Names the file and the first place in it that cannot be read.
    pub fn read(overrides: Overrides) -> anyhow::Result<Self> {
        let mut config: Self = settings::load(overrides.file().as_deref())?;
        overrides.put_over(&mut config);
        Ok(config)
    }

    /// The endpoints of the northbound database.
    ///
    /// # Errors
    /// Names the one that cannot be read.
    pub fn endpoints(&self) -> anyhow::Result<Vec<Endpoint>> {
        let parse = |text: &String| {
            text.parse::<Endpoint>().with_context(|| format!("northbound.endpoints has {text:?}"))
        };
        self.northbound.endpoints.iter().map(parse).collect()
    }
}

impl NorthboundSettings {
    /// The files for `ssl:` endpoints; `None` without them.
    #[must_use]
    pub fn tls(&self) -> Option<TlsFiles> {
        match (&self.tls_ca, &self.tls_certificate, &self.tls_key) {
            (Some(ca), Some(certificate), Some(key)) => {
                Some(TlsFiles { ca: ca.clone(), certificate: certificate.clone(), key: key.clone() })
            }
            _ => None,
        }
    }
}

impl StoreSettings {
    /// The members of the configured cluster; `None`: the store is a file.
    pub fn members(&self) -> Option<Vec<String>> {
        let members = self.path.to_str()?.strip_prefix(CHAINFIRE)?;
        Some(members.split(',').map(str::to_owned).collect())
    }
}
