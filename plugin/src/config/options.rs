//! Settings from the command line and the environment, which override the file.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use fiberlb_daemon::logs::LogFormat;
use fiberlb_daemon::settings::{self, set};

use super::{Config, FILE};
use crate::agents;

/// Settings from the command line and the environment, which override the file.
#[derive(Clone, Debug, Default, Args)]
pub struct Overrides {
    /// Configuration file (TOML); see docs/configuration.md for its keys
    #[arg(long, env = "FIBERLB_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address and port of the gRPC API [default: 127.0.0.1:9630]
    #[arg(long, env = "FIBERLB_LISTEN", value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// PEM file with the API's certificate
    #[arg(long, env = "FIBERLB_TLS_CERTIFICATE", value_name = "FILE")]
    pub tls_certificate: Option<PathBuf>,
    /// PEM file with the certificate's private key
    #[arg(long, env = "FIBERLB_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// Listen on an address that is not loopback without TLS: everybody who reaches it may do everything
    #[arg(long, env = "FIBERLB_INSECURE")]
    pub insecure: bool,
    /// File of the embedded store, or chainfire://HOST:PORT,HOST:PORT,... of ChainFire or etcd [default: /var/lib/fiberlb/store.redb]
    #[arg(long, env = "FIBERLB_STORE", value_name = "FILE|URL")]
    pub store: Option<PathBuf>,
    /// Northbound database, unix:PATH, tcp:HOST:PORT or ssl:HOST:PORT, several with commas [default: unix:/var/run/ovn/ovnnb_db.sock]
    #[arg(long, env = "FIBERLB_NORTHBOUND", value_name = "ENDPOINT", value_delimiter = ',')]
    pub northbound: Vec<String>,
    /// PEM file with the CA of the northbound servers' certificates (ssl)
    #[arg(long, env = "FIBERLB_NORTHBOUND_TLS_CA", value_name = "FILE")]
    pub northbound_tls_ca: Option<PathBuf>,
    /// PEM file with the certificate that the northbound servers see (ssl)
    #[arg(long, env = "FIBERLB_NORTHBOUND_TLS_CERTIFICATE", value_name = "FILE")]
    pub northbound_tls_certificate: Option<PathBuf>,
    /// PEM file with that certificate's private key (ssl)
    #[arg(long, env = "FIBERLB_NORTHBOUND_TLS_KEY", value_name = "FILE")]
    pub northbound_tls_key: Option<PathBuf>,
    /// Address for node agents: unix:PATH, tcp:ADDRESS:PORT, or off [default: unix:/run/fiberlb/agents.sock]
    #[arg(long, env = "FIBERLB_AGENTS_LISTEN", value_name = "WHERE")]
    pub agents_listen: Option<agents::Listen>,
    /// PEM file with the certificate that node agents see (tcp)
    #[arg(long, env = "FIBERLB_AGENTS_TLS_CERTIFICATE", value_name = "FILE")]
    pub agents_tls_certificate: Option<PathBuf>,
    /// PEM file with that certificate's private key (tcp)
    #[arg(long, env = "FIBERLB_AGENTS_TLS_KEY", value_name = "FILE")]
    pub agents_tls_key: Option<PathBuf>,
    /// PEM file with the CA that node agents' certificates come from (tcp)
    #[arg(long, env = "FIBERLB_AGENTS_CLIENT_CA", value_name = "FILE")]
    pub agents_client_ca: Option<PathBuf>,
    /// PEM file with revocation lists of that CA (tcp)
    #[arg(long, env = "FIBERLB_AGENTS_CLIENT_CRL", value_name = "FILE")]
    pub agents_client_crl: Option<PathBuf>,
    /// Address of this plugin's listener for node agents, for other plugins: unix:PATH or https://HOST:PORT
    /// [default: derived]
    #[arg(long, env = "FIBERLB_AGENTS_ADVERTISE", value_name = "WHERE")]
    pub agents_advertise: Option<agents::PeerAddress>,
    /// MTU of the proxy nodes' interfaces on tenant networks that do not say their own [default: 1442]
    #[arg(long, env = "FIBERLB_MTU", value_name = "BYTES")]
    pub mtu: Option<u32>,
    /// Take VIPs as they are given on networks of which no subnet of the address family is known
    #[arg(long, env = "FIBERLB_ALLOW_UNKNOWN_SUBNETS")]
    pub allow_unknown_subnets: bool,
    /// Address and port of /metrics [default: 127.0.0.1:9631]
    #[arg(long, env = "FIBERLB_METRICS_LISTEN", value_name = "ADDRESS:PORT")]
    pub metrics_listen: Option<SocketAddr>,
    /// Log filter, such as info or info,audit=off [default: info]
    #[arg(long, env = "FIBERLB_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// Log format [default: text]
    #[arg(long, env = "FIBERLB_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

impl Overrides {
    /// Path of the configuration file that is read: the one of the option, or of the service under systemd.
    #[must_use]
    pub fn file(&self) -> Option<PathBuf> {
        self.config.clone().or_else(|| settings::of_service(FILE))
    }

    /// The same settings, with the file that the service reads if none is given.
    #[must_use]
    pub fn with_file_of_service(self) -> Self {
        Self { config: self.config.or_else(|| settings::of_service_by_hand(FILE)), ..self }
    }

    /// Applies the values that are given.
    pub(super) fn put_over(self, config: &mut Config) {
        set(&mut config.api.listen, self.listen);
        set(&mut config.api.tls_certificate, self.tls_certificate.map(Some));
        set(&mut config.api.tls_key, self.tls_key.map(Some));
        config.api.insecure |= self.insecure;
        set(&mut config.store.path, self.store);
        set(&mut config.northbound.endpoints, (!self.northbound.is_empty()).then_some(self.northbound));
        set(&mut config.northbound.tls_ca, self.northbound_tls_ca.map(Some));
        set(&mut config.northbound.tls_certificate, self.northbound_tls_certificate.map(Some));
        set(&mut config.northbound.tls_key, self.northbound_tls_key.map(Some));
        set(&mut config.agents.listen, self.agents_listen);
        set(&mut config.agents.tls_certificate, self.agents_tls_certificate.map(Some));
        set(&mut config.agents.tls_key, self.agents_tls_key.map(Some));
        set(&mut config.agents.client_ca, self.agents_client_ca.map(Some));
        set(&mut config.agents.client_crl, self.agents_client_crl.map(Some));
        set(&mut config.agents.advertise, self.agents_advertise.map(Some));
        set(&mut config.fleet.mtu, self.mtu);
        config.networks.allow_unknown_subnets |= self.allow_unknown_subnets;
        set(&mut config.metrics.listen, self.metrics_listen);
        set(&mut config.log.filter, self.log);
        set(&mut config.log.format, self.log_format);
    }
}
