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

use crate::api::Limits;
use crate::auth::Principal;
use crate::{agents, fleet, reconcile};

mod check;
mod options;
#[cfg(test)]
mod page;
#[cfg(test)]
mod tests;

pub use options::Overrides;

/// Prefix of the path of a store in a cluster.
const CHAINFIRE: &str = "chainfire://";

/// All settings of the plugin. The file's keys have these names; every one of them may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
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
pub struct ApiSettings {
    /// Address and port, default `127.0.0.1:9630`.
    pub listen: SocketAddr,
    /// PEM file with the server's certificate and its chain to the CA. With `tls_key`: TLS.
    pub tls_certificate: Option<PathBuf>,
    /// PEM file with the certificate's private key.
    pub tls_key: Option<PathBuf>,
    /// Listen on an address that is not loopback without TLS. Default false: everybody who reaches it may do everything.
    pub insecure: bool,
    /// Limits on its connections.
    pub connections: ConnectionSettings,
}

/// Store of the specifications.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreSettings {
    /// File of the embedded store, default `/var/lib/fiberlb/store.redb`; or `chainfire://HOST:PORT,HOST:PORT,...`: a
    /// cluster of ChainFire (or etcd). What follows is for a cluster only.
    pub path: PathBuf,
    /// PEM file with the CA that the members' certificates come from. With it: TLS.
    pub tls_ca: Option<PathBuf>,
    /// PEM file with the certificate that the plugin shows to members. With `tls_key`.
    pub tls_certificate: Option<PathBuf>,
    /// PEM file with the certificate's private key.
    pub tls_key: Option<PathBuf>,
    /// User of the cluster. With `password_file`.
    pub user: Option<String>,
    /// File with the user's password; trailing white space is ignored.
    pub password_file: Option<PathBuf>,
    /// Deadline of one request to the cluster in milliseconds, default 10000.
    pub timeout_ms: u64,
}

/// OVN's northbound database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NorthboundSettings {
    /// `unix:PATH`, `tcp:HOST:PORT` or `ssl:HOST:PORT`, default `unix:/var/run/ovn/ovnnb_db.sock`. All members of a
    /// cluster: its leader is used.
    pub endpoints: Vec<String>,
    /// PEM file with the CA that the servers' certificates come from. For `ssl:`, with the two below; all
    /// three are reread at each connect.
    pub tls_ca: Option<PathBuf>,
    /// PEM file with the certificate that the plugin shows to the servers.
    pub tls_certificate: Option<PathBuf>,
    /// PEM file with the certificate's private key.
    pub tls_key: Option<PathBuf>,
    /// Seconds of silence after which the server is probed, default 5.
    pub probe_s: u64,
    /// Seconds after which the outcome of a transaction counts as unknown, default 10.
    pub timeout_s: u64,
}

/// Prometheus metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsSettings {
    /// Address and port of `/metrics`, `/livez` and `/readyz`, default `127.0.0.1:9631`.
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
        let mut config: Self = settings::load(overrides.config.as_deref())?;
        overrides.put_over(&mut config);
        config.check()?;
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
