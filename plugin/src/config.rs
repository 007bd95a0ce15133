//! Configuration: a TOML file, over it the environment, over that the command line.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use fiberlb_ovn::ovsdb::client::TlsFiles;
use fiberlb_ovn::ovsdb::endpoint::Endpoint;
use serde::Deserialize;

use crate::api::Limits;
use crate::api::principal::{Principal, is_name};
use crate::{agents, fleet, reconcile};

/// What the path of a store in a cluster begins with.
const CHAINFIRE: &str = "chainfire://";

/// All settings of the plugin. The file's keys have these names; every one of them may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The gRPC API.
    pub api: Api,
    /// Where specifications are kept.
    pub store: Store,
    /// OVN's northbound database.
    pub northbound: Northbound,
    /// The listener for node agents.
    pub agents: agents::Settings,
    /// How proxy nodes are used.
    pub fleet: fleet::Settings,
    /// How changes are carried out.
    pub reconcile: reconcile::Settings,
    /// What one caller may ask for.
    pub limits: Limits,
    /// Who everybody is that reaches the API.
    pub principal: Principal,
    /// Prometheus metrics.
    pub metrics: Metrics,
    /// Logs.
    pub log: Log,
}

/// The gRPC API.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Api {
    /// Address and port, default `127.0.0.1:9630`.
    pub listen: SocketAddr,
    /// PEM file with the server's certificate and what leads to its CA. With `tls_key`: TLS.
    pub tls_certificate: Option<PathBuf>,
    /// PEM file with the certificate's private key.
    pub tls_key: Option<PathBuf>,
    /// Listen on an address that is not loopback without TLS. Default false: everybody who reaches it may do everything.
    pub insecure: bool,
}

/// Where specifications are kept.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
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
    /// File with the user's password; white space at its end does not count.
    pub password_file: Option<PathBuf>,
    /// Milliseconds that one request to the cluster may take, default 10000.
    pub timeout_ms: u64,
}

/// OVN's northbound database.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Northbound {
    /// `unix:PATH`, `tcp:HOST:PORT` or `ssl:HOST:PORT`, default `unix:/var/run/ovn/ovnnb_db.sock`. All members of a
    /// cluster: its leader is used.
    pub endpoints: Vec<String>,
    /// PEM file with the CA that the servers' certificates come from. For `ssl:`, with the two below; all three are read
    /// anew at each connect.
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
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Metrics {
    /// Address and port of `/metrics`, default `127.0.0.1:9631`.
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
    /// What is logged: `info`, or by target: `info,audit=off,fiberlb_plugin=debug`. Default `info`.
    pub filter: String,
    /// How.
    pub format: LogFormat,
}

impl Default for Api {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9630)),
            tls_certificate: None,
            tls_key: None,
            insecure: false,
        }
    }
}

impl Default for Store {
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

impl Default for Northbound {
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

impl Default for Metrics {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9631)) }
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
    /// File of the embedded store, or chainfire://HOST:PORT,HOST:PORT,... [default: /var/lib/fiberlb/store.redb]
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
    /// Where node agents connect: unix:PATH, tcp:ADDRESS:PORT, or off [default: unix:/run/fiberlb/agents.sock]
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
    /// Where other plugins reach this one's listener for node agents: unix:PATH or https://HOST:PORT [default: derived]
    #[arg(long, env = "FIBERLB_AGENTS_ADVERTISE", value_name = "WHERE")]
    pub agents_advertise: Option<agents::PeerAddress>,
    /// MTU of the proxy nodes' interfaces on tenant networks that do not say their own [default: 1442]
    #[arg(long, env = "FIBERLB_MTU", value_name = "BYTES")]
    pub mtu: Option<u32>,
    /// Address and port of /metrics [default: 127.0.0.1:9631]
    #[arg(long, env = "FIBERLB_METRICS_LISTEN", value_name = "ADDRESS:PORT")]
    pub metrics_listen: Option<SocketAddr>,
    /// What is logged, such as info or info,audit=off [default: info]
    #[arg(long, env = "FIBERLB_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// How logs are written [default: text]
    #[arg(long, env = "FIBERLB_LOG_FORMAT", value_name = "FORMAT")]
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
        set(&mut self.api.listen, overrides.listen);
        set(&mut self.api.tls_certificate, overrides.tls_certificate.map(Some));
        set(&mut self.api.tls_key, overrides.tls_key.map(Some));
        self.api.insecure |= overrides.insecure;
        set(&mut self.store.path, overrides.store);
        set(
            &mut self.northbound.endpoints,
            (!overrides.northbound.is_empty()).then_some(overrides.northbound),
        );
        set(&mut self.northbound.tls_ca, overrides.northbound_tls_ca.map(Some));
        set(&mut self.northbound.tls_certificate, overrides.northbound_tls_certificate.map(Some));
        set(&mut self.northbound.tls_key, overrides.northbound_tls_key.map(Some));
        set(&mut self.agents.listen, overrides.agents_listen);
        set(&mut self.agents.tls_certificate, overrides.agents_tls_certificate.map(Some));
        set(&mut self.agents.tls_key, overrides.agents_tls_key.map(Some));
        set(&mut self.agents.client_ca, overrides.agents_client_ca.map(Some));
        set(&mut self.agents.advertise, overrides.agents_advertise.map(Some));
        set(&mut self.fleet.mtu, overrides.mtu);
        set(&mut self.metrics.listen, overrides.metrics_listen);
        set(&mut self.log.filter, overrides.log);
        set(&mut self.log.format, overrides.log_format);
    }

    fn check(&self) -> anyhow::Result<()> {
        let api = &self.api;
        if api.tls_certificate.is_some() != api.tls_key.is_some() {
            bail!("api.tls_certificate and api.tls_key belong together: give both or none");
        }
        let open = !api.listen.ip().is_loopback() && api.tls_certificate.is_none() && !api.insecure;
        ensure!(
            !open,
            "api.listen is {}, which is not a loopback address, and there is no TLS: give api.tls_certificate and api.tls_key, \
             or say api.insecure = true (--insecure) if everybody who reaches it may do everything",
            api.listen
        );
        self.store.check()?;
        self.northbound.check(&self.endpoints()?)?;
        for (key, text) in [("org_id", &self.principal.org_id), ("project_id", &self.principal.project_id)] {
            ensure!(
                is_name(text),
                "principal.{key} is {text:?}: give 1 to 64 letters, digits, '.', '_' or '-'"
            );
        }
        self.agents.check()?;
        self.agents.check_heartbeat()?;
        ensure!(
            self.fleet.nodes_per_network > 0,
            "fleet.nodes_per_network is 0: give at least 1, or set agents.listen to off"
        );
        ensure!(
            (1280..=65_535).contains(&self.fleet.mtu),
            "fleet.mtu is {}: give 1280 (the least that IPv6 needs) to 65535",
            self.fleet.mtu
        );
        ensure!(self.reconcile.batch > 0, "reconcile.batch is 0: give at least 1");
        ensure!(
            self.limits.max_page > 0 && self.limits.default_page > 0,
            "limits.max_page and limits.default_page must be above 0"
        );
        Ok(())
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

impl Northbound {
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

    fn check(&self, endpoints: &[Endpoint]) -> anyhow::Result<()> {
        ensure!(!endpoints.is_empty(), "northbound.endpoints is empty: give at least one");
        let files = [&self.tls_ca, &self.tls_certificate, &self.tls_key];
        let given = files.iter().filter(|file| file.is_some()).count();
        ensure!(
            given == 0 || given == files.len(),
            "northbound.tls_ca, northbound.tls_certificate and northbound.tls_key belong together: give all three or none"
        );
        let ssl = endpoints.iter().find(|endpoint| matches!(endpoint, Endpoint::Ssl { .. }));
        match ssl {
            Some(endpoint) if given == 0 => bail!(
                "northbound.endpoints has {endpoint}, and there are no certificates: give northbound.tls_ca, \
                 northbound.tls_certificate and northbound.tls_key"
            ),
            None if given > 0 => bail!(
                "northbound.tls_ca, northbound.tls_certificate and northbound.tls_key are for ssl: endpoints, and \
                 northbound.endpoints has none: leave them out, or give ssl:HOST:PORT"
            ),
            _ => Ok(()),
        }
    }
}

impl Store {
    /// The members of the configured cluster; `None`: the store is a file.
    pub fn members(&self) -> Option<Vec<String>> {
        let members = self.path.to_str()?.strip_prefix(CHAINFIRE)?;
        Some(members.split(',').map(str::to_owned).collect())
    }

    fn check(&self) -> anyhow::Result<()> {
        let text = self.path.to_string_lossy();
        if self.members().is_none() {
            ensure!(
                !text.contains("://"),
                "store.path is {text:?}: give a file, or chainfire://HOST:PORT,HOST:PORT,..."
            );
            let cluster = [&self.tls_ca, &self.tls_certificate, &self.tls_key, &self.password_file];
            ensure!(
                self.user.is_none() && cluster.iter().all(|file| file.is_none()),
                "store.path is the file {text:?}, and store.tls_*, store.user and store.password_file are for a cluster: \
                 leave them out, or give chainfire://HOST:PORT,..."
            );
        }
        ensure!(self.timeout_ms > 0, "store.timeout_ms is 0: give some milliseconds");
        ensure!(
            self.tls_certificate.is_some() == self.tls_key.is_some(),
            "store.tls_certificate and store.tls_key belong together: give both or none"
        );
        ensure!(
            self.tls_ca.is_some() || self.tls_certificate.is_none(),
            "store.tls_certificate is given without store.tls_ca: give the CA of the members' certificates"
        );
        ensure!(
            self.user.is_some() == self.password_file.is_some(),
            "store.user and store.password_file belong together: give both or none"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_refuses_to_listen_elsewhere_without_tls_unless_told_so() {
        let overrides = Overrides { listen: Some("0.0.0.0:9630".parse().unwrap()), ..Overrides::default() };
        let error = Config::load(overrides.clone()).unwrap_err().to_string();
        assert!(error.contains("api.listen is 0.0.0.0:9630") && error.contains("--insecure"), "{error}");
        assert!(Config::load(Overrides { insecure: true, ..overrides }).is_ok());
    }

    #[test]
    fn the_command_line_goes_over_the_file_and_the_file_over_the_defaults() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[api]\nlisten = \"127.0.0.1:1\"\n[store]\npath = \"a.redb\"\n").unwrap();
        let overrides = Overrides {
            config: Some(file.path().to_owned()),
            store: Some("b.redb".into()),
            ..Overrides::default()
        };
        let config = Config::load(overrides).unwrap();
        assert_eq!(config.api.listen.port(), 1);
        assert_eq!(config.store.path, Path::new("b.redb"));
        assert_eq!(config.metrics, Metrics::default());
    }

    #[test]
    fn a_store_is_a_file_or_a_cluster() {
        let with = |path: &str| Store { path: path.into(), ..Store::default() };
        assert_eq!(with("/a/b").members(), None);
        assert_eq!(with("chainfire://a:1,[::1]:2,c").members().unwrap(), ["a:1", "[::1]:2", "c"]);
        let wrong = [
            (with("etcd://a"), "chainfire://"),
            (Store { user: Some("u".into()), ..with("/a") }, "for a cluster"),
            (Store { user: Some("u".into()), ..with("chainfire://a") }, "password_file"),
            (Store { tls_key: Some("k".into()), ..with("chainfire://a") }, "belong together"),
            (Store { timeout_ms: 0, ..with("chainfire://a") }, "timeout_ms"),
        ];
        for (store, words) in wrong {
            let error = store.check().unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    #[test]
    fn an_error_names_key_value_and_reason() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[api]\nlisen = \"127.0.0.1:1\"\n").unwrap();
        let error = format!(
            "{:#}",
            Config::load(Overrides { config: Some(file.path().to_owned()), ..Overrides::default() })
                .unwrap_err()
        );
        assert!(error.contains("lisen") && error.contains("listen"), "{error}");
        let endpoints = Overrides { northbound: vec!["tls:host:6641".to_owned()], ..Overrides::default() };
        let error = format!("{:#}", Config::load(endpoints).unwrap_err());
        assert!(error.contains("tls:host:6641"), "{error}");
    }

    #[test]
    fn certificates_and_ssl_endpoints_go_together() {
        let load = |endpoints: &[&str], files: usize| {
            let file = |number| (number < files).then(|| PathBuf::from("x.pem"));
            Config::load(Overrides {
                northbound: endpoints.iter().map(|text| (*text).to_owned()).collect(),
                northbound_tls_ca: file(0),
                northbound_tls_certificate: file(1),
                northbound_tls_key: file(2),
                ..Overrides::default()
            })
        };
        let config = load(&["ssl:a:6641", "ssl:b:6641"], 3).unwrap();
        assert!(config.northbound.tls().is_some() && config.endpoints().unwrap().len() == 2);
        assert!(load(&["tcp:a:6641"], 0).unwrap().northbound.tls().is_none());
        for (endpoint, files, words) in [
            ("ssl:a:6641", 0, "ssl:a:6641, and there are no certificates"),
            ("ssl:a:6641", 2, "belong together"),
            ("tcp:a:6641", 3, "for ssl: endpoints"),
        ] {
            let error = load(&["unix:/x", endpoint], files).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
