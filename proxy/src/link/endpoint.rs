//! Endpoints of plugins, and mutual TLS with them.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use fiberlb_daemon::errors::chain;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use crate::client_tls::{self, TlsFileError};

/// Longest wait for a connection, TLS included: a machine that is dead must not keep the node from the next
/// plugin.
const CONNECT: Duration = Duration::from_secs(1);
/// Idle time after which a connection is probed, and further time after which it is given up.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// Endpoint on which a plugin listens for node agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginEndpoint {
    /// `unix:PATH`.
    Unix(PathBuf),
    /// `https://HOST:PORT`: mutual TLS.
    Https {
        /// A name or an address; the plugin's certificate must be for it.
        host: String,
        /// Its port.
        port: u16,
    },
}

/// A text is no [`PluginEndpoint`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither unix:PATH nor https://HOST:PORT")]
pub struct PluginEndpointError(pub String);

/// PEM files for mutual TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The CA that has issued the plugin's certificate.
    pub ca: PathBuf,
    /// The node's certificate.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Error of the TLS files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error(transparent)]
    Read(#[from] TlsFileError),
    /// There are no files.
    #[error("https:// needs mutual TLS: give --tls-ca, --tls-certificate and --tls-key")]
    NoFiles,
    /// Their content is unusable.
    #[error("cannot use the files for TLS: {0}")]
    Refused(String),
}

impl FromStr for PluginEndpoint {
    type Err = PluginEndpointError;

    fn from_str(text: &str) -> Result<Self, PluginEndpointError> {
        let refused = || PluginEndpointError(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(path.into()));
        }
        let address = text.strip_prefix("https://").ok_or_else(refused)?;
        let (host, port) = address.rsplit_once(':').ok_or_else(refused)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_address = bare.is_some_and(|host| host.parse::<std::net::Ipv6Addr>().is_ok());
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
        let is_host = is_address || (!host.is_empty() && host.chars().all(legal));
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|port| *port > 0 && digits && is_host).ok_or_else(refused)?;
        Ok(Self::Https { host: host.to_owned(), port })
    }
}

impl fmt::Display for PluginEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Https { host, port } => write!(f, "https://{host}:{port}"),
        }
    }
}

impl PluginEndpoint {
    /// Connects. The files are read anew each time: certificates are renewed while the agent runs.
    ///
    /// # Errors
    /// The reason, for people.
    pub(super) async fn connect(&self, tls: Option<&TlsFiles>) -> Result<Channel, String> {
        let endpoint = Endpoint::from_shared(self.to_string()).map_err(|error| chain(&error))?;
        let endpoint = endpoint
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .tcp_nodelay(true);
        let endpoint = match self {
            Self::Unix(_) => endpoint,
            Self::Https { .. } => {
                let tls = mutual(tls).map_err(|error| error.to_string())?;
                endpoint.tls_config(tls).map_err(|error| chain(&error))?
            }
        };
        let connected = tokio::time::timeout(CONNECT, endpoint.connect()).await;
        connected.map_err(|_| format!("no connection within {CONNECT:?}"))?.map_err(|error| chain(&error))
    }
}

fn mutual(files: Option<&TlsFiles>) -> Result<ClientTlsConfig, TlsError> {
    let files = files.ok_or(TlsError::NoFiles)?;
    Ok(client_tls::read(&files.ca, Some((&files.certificate, &files.key)))?)
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_that_others_can_read_is_refused_with_what_to_run() {
        let directory = tempfile::tempdir().unwrap();
        let [ca, certificate, key] =
            ["ca.pem", "node.pem", "node.key"].map(|name| directory.path().join(name));
        for file in [&ca, &certificate, &key] {
            std::fs::write(file, "").unwrap();
        }
        let files = TlsFiles { ca, certificate, key };
        std::fs::set_permissions(&files.key, Permissions::from_mode(0o644)).unwrap();
        let error = mutual(Some(&files)).unwrap_err().to_string();
        assert!(error.contains("node.key has mode 0644") && error.contains("run chmod 6"), "{error}");
        std::fs::set_permissions(&files.key, Permissions::from_mode(0o600)).unwrap();
        mutual(Some(&files)).unwrap();
    }

    #[test]
    fn endpoints_survive_their_text_form() {
        for text in ["unix:/run/fiberlb/agents.sock", "https://plugin.example:9633", "https://[fd00::1]:1"] {
            assert_eq!(text.parse::<PluginEndpoint>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        for text in [
            "",
            "unix:",
            "http://a:1",
            "https://a",
            "https://:1",
            "https://a:0",
            "https://a:+1",
            "https://a/b:1",
        ] {
            assert_eq!(text.parse::<PluginEndpoint>(), Err(PluginEndpointError(text.to_owned())), "{text}");
        }
    }
}
