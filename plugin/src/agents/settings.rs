//! Settings of the listener for node agents.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use fiberlb_daemon::listen::ConnectionSettings;
use fiberlb_daemon::settings::{RangeError, in_range};
use serde::{Deserialize, Serialize};

use super::peer::PeerAddress;

/// Silence of four heartbeats ends a stream: 2 s at most, so that a dead node is out of OVN's rows within 3
/// s.
const HEARTBEATS_MS: std::ops::RangeInclusive<u32> = 50..=500;

/// Range of the longest age of streams, in seconds: to 30 days.
const STREAM_AGE_S: std::ops::RangeInclusive<u64> = 1..=30 * 24 * 3600;

/// Address of the listener for node agents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Listen {
    /// `off`: nowhere; there are no proxy nodes.
    Off,
    /// `unix:PATH`: a socket of mode 0600; for agents on the plugin's own machine, and for tunnels.
    Unix(PathBuf),
    /// `tcp:ADDRESS:PORT`: always with mutual TLS.
    Tcp(SocketAddr),
}

/// The listener for node agents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Settings {
    /// `unix:PATH`, `tcp:ADDRESS:PORT`, `off`: address that node agents connect to. `tcp:` is always mutual TLS and
    /// needs the three files below.
    #[cfg_attr(test, schemars(with = "String"))]
    pub listen: Listen,
    /// PEM file: certificate that nodes and other plugins see, and its chain to the CA. Replaced without a restart.
    pub tls_certificate: Option<PathBuf>,
    /// PEM file: private key of that certificate. Replaced without a restart.
    pub tls_key: Option<PathBuf>,
    /// PEM file: CA of the certificates of nodes and of other plugins. Replaced without a restart.
    pub client_ca: Option<PathBuf>,
    /// PEM file: certificate revocation lists (`X509 CRL`) of that CA, or of several. Certificates on them are refused, and open
    /// streams with one end within a second. Replaced without a restart. Default: nothing is revoked.
    pub client_crl: Option<PathBuf>,
    /// `unix:PATH`, `https://HOST:PORT`: address at which node agents and other plugins on the same store reach
    /// `agents.listen`; followers redirect nodes to the leader's. To be given where that is on all addresses
    /// (`tcp:0.0.0.0:9633`) or behind a name. Default: derived from `agents.listen`.
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub advertise: Option<PeerAddress>,
    /// Heartbeat interval of each side; silence of four intervals ends a stream. With a longer one, a node that dies
    /// in silence would leave OVN's rows later than 3 s after its death.
    pub heartbeat_ms: u32,
    /// Age, less up to a tenth, at which a node renews its stream: over a new connection, with the certificates of that moment,
    /// before the old one ends. A node that does not is disconnected 10 s later.
    pub stream_age_s: u64,
    /// Limits on its connections.
    pub connections: ConnectionSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: Listen::Unix(PathBuf::from("/run/fiberlb/agents.sock")),
            tls_certificate: None,
            tls_key: None,
            client_ca: None,
            client_crl: None,
            advertise: None,
            heartbeat_ms: 500,
            stream_age_s: 3600,
            connections: ConnectionSettings::default(),
        }
    }
}

/// Settings that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Not an address that can be listened on.
    #[error("{0:?} is none of unix:PATH, tcp:ADDRESS:PORT (an IP address) and off")]
    Listen(String),
    /// TCP without all that mutual TLS needs.
    #[error(
        "agents.listen is {listen}, which needs mutual TLS, and agents.{missing} is not set: \
         `fiberlb-plugin agent-ca init` makes the files"
    )]
    NoTls {
        /// The configured address.
        listen: Listen,
        /// Key that is not set.
        missing: &'static str,
    },
    /// TLS settings without TCP.
    #[error(
        "agents.{key} is set, but agents.listen is {listen}, which has no TLS: remove it, or listen on tcp:ADDRESS:PORT"
    )]
    UnusedTls {
        /// The configured address.
        listen: Listen,
        /// Key that is set.
        key: &'static str,
    },
    /// An address to advertise, but no listener.
    #[error("agents.advertise is {0}, but agents.listen is off: remove it, or listen")]
    UnusedAdvertise(PeerAddress),
    /// Out of range.
    #[error(
        "agents.heartbeat_ms is {0}: give 50 to 500; with more, a node that dies in silence would take connections for \
         longer than 3 s"
    )]
    Heartbeat(u32),
    /// A number out of range.
    #[error(transparent)]
    Range(#[from] RangeError),
}

impl Settings {
    /// Checks that the settings fit together.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check(&self) -> Result<(), SettingsError> {
        if let (Listen::Off, Some(address)) = (&self.listen, &self.advertise) {
            return Err(SettingsError::UnusedAdvertise(address.clone()));
        }
        self.connections.check("agents.connections")?;
        in_range("agents.stream_age_s", self.stream_age_s, &STREAM_AGE_S)?;
        let listen = || self.listen.clone();
        for (key, file) in self.files() {
            match (&self.listen, file) {
                (Listen::Tcp(_), None) => {
                    return Err(SettingsError::NoTls { listen: listen(), missing: key });
                }
                (Listen::Unix(_), Some(_)) => return Err(SettingsError::UnusedTls { listen: listen(), key }),
                _ => {}
            }
        }
        if let (Listen::Unix(_), Some(_)) = (&self.listen, &self.client_crl) {
            return Err(SettingsError::UnusedTls { listen: listen(), key: "client_crl" });
        }
        Ok(())
    }

    /// Checks that a dead node is detected in time. The protocol itself would do with any interval.
    ///
    /// # Errors
    /// It is not.
    pub fn check_heartbeat(&self) -> Result<(), SettingsError> {
        let is_in_time = HEARTBEATS_MS.contains(&self.heartbeat_ms);
        if is_in_time { Ok(()) } else { Err(SettingsError::Heartbeat(self.heartbeat_ms)) }
    }

    /// Address at which other plugins reach this listener: `agents.advertise`, or derived from `actual`, the
    /// bound address. None: there is no listener, or it is on all addresses (`tcp:0.0.0.0:PORT`), and only
    /// the operator knows which one others can use.
    pub fn advertised(&self, actual: &Listen) -> Option<PeerAddress> {
        let derived = || match actual {
            Listen::Off => None,
            // Without a working directory the path stays as it is.
            Listen::Unix(path) => {
                Some(PeerAddress::Unix(std::path::absolute(path).unwrap_or_else(|_| path.clone())))
            }
            Listen::Tcp(address) if address.ip().is_unspecified() => None,
            Listen::Tcp(address) => format!("https://{address}").parse().ok(),
        };
        self.advertise.clone().or_else(derived)
    }

    fn files(&self) -> [(&'static str, Option<&PathBuf>); 3] {
        [
            ("tls_certificate", self.tls_certificate.as_ref()),
            ("tls_key", self.tls_key.as_ref()),
            ("client_ca", self.client_ca.as_ref()),
        ]
    }

    pub(crate) fn stream_age(&self) -> Duration {
        Duration::from_secs(self.stream_age_s)
    }

    pub(crate) fn heartbeat(&self) -> Duration {
        Duration::from_millis(u64::from(self.heartbeat_ms))
    }
}

impl FromStr for Listen {
    type Err = SettingsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || SettingsError::Listen(text.to_owned());
        match text.split_once(':') {
            None if text == "off" => Ok(Self::Off),
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(PathBuf::from(path))),
            Some(("tcp", address)) => address.parse().map(Self::Tcp).map_err(|_| refused()),
            _ => Err(refused()),
        }
    }
}

impl TryFrom<String> for Listen {
    type Error = SettingsError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Listen> for String {
    fn from(listen: Listen) -> Self {
        listen.to_string()
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Settings, String> {
        let settings: Settings = toml::from_str(text).map_err(|error| error.to_string())?;
        settings.check().and(settings.check_heartbeat()).map_err(|error| error.to_string())?;
        Ok(settings)
    }

    #[test]
    fn nothing_said_is_a_unix_socket() {
        let settings = read("").unwrap();
        assert_eq!(settings.listen.to_string(), "unix:/run/fiberlb/agents.sock");
        assert_eq!(settings.heartbeat(), Duration::from_millis(500));
    }

    #[test]
    fn tcp_needs_all_three_files_also_on_loopback() {
        let error =
            read("listen = \"tcp:127.0.0.1:1\"\ntls_certificate = \"a\"\ntls_key = \"b\"").unwrap_err();
        assert!(error.contains("agents.client_ca") && error.contains("tcp:127.0.0.1:1"), "{error}");
        let error = read("listen = \"tcp:[::1]:1\"").unwrap_err();
        assert!(error.contains("agents.tls_certificate"), "{error}");
        assert!(
            read("listen = \"tcp:0.0.0.0:1\"\ntls_certificate = \"a\"\ntls_key = \"b\"\nclient_ca = \"c\"")
                .is_ok()
        );
    }

    #[test]
    fn what_would_be_ignored_or_cannot_be_is_refused_by_name() {
        for (text, part) in [
            ("tls_key = \"b\"", "agents.tls_key"),
            ("client_crl = \"b\"", "agents.client_crl"),
            ("stream_age_s = 0", "agents.stream_age_s is 0"),
            ("advertise = \"tcp:a:1\"", "https://HOST:PORT"),
            ("listen = \"off\"\nadvertise = \"https://a:1\"", "agents.listen is off"),
            ("heartbeat_ms = 49", "heartbeat_ms is 49"),
            ("heartbeat_ms = 501", "longer than 3 s"),
            ("listen = \"tcp:somewhere:1\"", "tcp:somewhere:1"),
            ("listen = \"unix:\"", "unix:"),
            ("listen = \"/run/x\"", "/run/x"),
            ("lisen = \"off\"", "lisen"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert_eq!(read("listen = \"off\"").unwrap().listen, Listen::Off);
    }

    #[test]
    fn others_are_told_where_it_listens_if_that_can_be_known() {
        let advertised = |text: &str, actual: &str| {
            let settings = Settings { advertise: text.parse().ok(), ..Settings::default() };
            settings.advertised(&actual.parse().unwrap()).map(|address| address.to_string())
        };
        assert_eq!(advertised("", "unix:/run/a").unwrap(), "unix:/run/a");
        assert_eq!(advertised("", "tcp:192.0.2.1:9633").unwrap(), "https://192.0.2.1:9633");
        assert_eq!(advertised("", "tcp:[fd00::1]:9633").unwrap(), "https://[fd00::1]:9633");
        assert_eq!(advertised("https://a:1", "tcp:0.0.0.0:9633").unwrap(), "https://a:1");
        assert_eq!(advertised("", "tcp:0.0.0.0:9633"), None);
        assert_eq!(advertised("", "off"), None);
    }
}
