//! Settings of a client.

use std::fmt;
use std::time::Duration;

/// Port of an endpoint that names none.
pub const DEFAULT_PORT: u16 = 2379;

/// Settings of a [`Client`](crate::Client).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `host:port` or `host` of the members ([`DEFAULT_PORT`]), at least one. All belong to one cluster.
    pub endpoints: Vec<String>,
    /// TLS to all endpoints. Default: none.
    pub tls: Option<Tls>,
    /// User, where the cluster requires one. Default: none.
    pub credentials: Option<Credentials>,
    /// Deadline of one call, including connecting and all attempts. Default 10 s.
    pub timeout: Duration,
    /// Timeout of one endpoint to accept a connection and check the credentials. Default 1 s.
    pub connect_timeout: Duration,
    /// Silence after which a connection or watch is probed, and, if the probe is not answered for as long
    /// again, dropped. Default 1500 ms.
    pub probe_interval: Duration,
}

impl Config {
    /// The default settings for these endpoints.
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            tls: None,
            credentials: None,
            timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(1),
            probe_interval: Duration::from_millis(1500),
        }
    }
}

/// TLS: the authorities that the members' certificates are checked against, and the client's certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// PEM: the certificate authorities that issue the members' certificates.
    pub ca: Vec<u8>,
    /// Client certificate, where the members require one.
    pub certificate: Option<Certificate>,
    /// The name in the members' certificates. Default: the endpoint's host.
    pub server_name: Option<String>,
}

/// A client certificate.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    /// PEM: the certificate and its chain.
    pub chain: Vec<u8>,
    /// PEM: its private key.
    pub key: Vec<u8>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").finish_non_exhaustive()
    }
}

/// A user of the cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Its name.
    pub user: String,
    /// Its password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}
