//! Settings on the command line and in the environment, which override the file.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use fiberlb_daemon::logs::LogFormat;
use fiberlb_daemon::settings::{self, set};

use super::{Config, FILE};

/// Settings on the command line and in the environment, which override the file.
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
    /// Directory of named network namespaces [default: /run/netns]
    #[arg(long, env = "FIBERLB_PROXY_NETNS_DIR", value_name = "DIRECTORY")]
    pub netns_dir: Option<PathBuf>,
    /// Worker threads of the data plane [default: one for each core]
    #[arg(long, env = "FIBERLB_PROXY_WORKERS", value_name = "COUNT")]
    pub workers: Option<usize>,
    /// Most proxied connections at a time [default: as many as the descriptors allow]
    #[arg(long, env = "FIBERLB_PROXY_MAX_CONNECTIONS", value_name = "COUNT")]
    pub max_connections: Option<usize>,
    /// Seconds that connections may go on when the agent stops, or their listener goes [default: 30]
    #[arg(long, env = "FIBERLB_PROXY_DRAIN_TIMEOUT", value_name = "SECONDS")]
    pub drain_timeout: Option<u64>,
    /// Directory for the last good configuration [default: /var/lib/fiberlb-proxy]
    #[arg(long, env = "FIBERLB_PROXY_STATE_DIR", value_name = "DIRECTORY")]
    pub state_dir: Option<PathBuf>,
    /// Address and port of /metrics [default: 127.0.0.1:9632]
    #[arg(long, env = "FIBERLB_PROXY_METRICS_LISTEN", value_name = "ADDRESS:PORT")]
    pub metrics_listen: Option<SocketAddr>,
    /// Log filter, such as info or info,fiberlb_proxy::health=debug [default: info]
    #[arg(long, env = "FIBERLB_PROXY_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// Log format [default: text]
    #[arg(long, env = "FIBERLB_PROXY_LOG_FORMAT", value_name = "FORMAT")]
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

    /// Sets what is given.
    pub(super) fn put_over(self, config: &mut Config) {
        set(&mut config.node.id, self.node_id.map(Some));
        set(&mut config.node.zone, self.zone);
        set(&mut config.plugin.endpoints, (!self.plugin.is_empty()).then_some(self.plugin));
        set(&mut config.plugin.tls_ca, self.tls_ca.map(Some));
        set(&mut config.plugin.tls_certificate, self.tls_certificate.map(Some));
        set(&mut config.plugin.tls_key, self.tls_key.map(Some));
        set(&mut config.network.ovs_db, self.ovs_db);
        set(&mut config.network.bridge, self.bridge);
        set(&mut config.network.netns_dir, self.netns_dir);
        set(&mut config.dataplane.workers, self.workers.map(Some));
        set(&mut config.dataplane.max_connections, self.max_connections.map(Some));
        set(&mut config.dataplane.drain_timeout_s, self.drain_timeout);
        set(&mut config.state.dir, self.state_dir);
        set(&mut config.metrics.listen, self.metrics_listen);
        set(&mut config.log.filter, self.log);
        set(&mut config.log.format, self.log_format);
    }
}
