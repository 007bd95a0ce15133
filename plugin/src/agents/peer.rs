//! Addresses of the plugins' listeners for node agents, for other plugins on the same store.

use std::fmt;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Address of a plugin's listener for node agents, for other plugins. Its text form is also the stored one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum PeerAddress {
    /// `unix:PATH`: on the same machine.
    Unix(PathBuf),
    /// `https://HOST:PORT`: mutual TLS.
    Https {
        /// A name, an IPv4 address, or an IPv6 address in brackets; the plugin's certificate must be for it.
        host: String,
        /// Its port.
        port: u16,
    },
}

/// A text is no [`PeerAddress`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither unix:PATH nor https://HOST:PORT")]
pub struct PeerAddressError(pub String);

impl FromStr for PeerAddress {
    type Err = PeerAddressError;

    fn from_str(text: &str) -> Result<Self, PeerAddressError> {
        let refused = || PeerAddressError(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:").filter(|path| !path.is_empty()) {
            return Ok(Self::Unix(path.into()));
        }
        let address = text.strip_prefix("https://").ok_or_else(refused)?;
        let (host, port) = address.rsplit_once(':').filter(|(host, _)| is_host(host)).ok_or_else(refused)?;
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|port| *port > 0 && digits).ok_or_else(refused)?;
        Ok(Self::Https { host: host.to_owned(), port })
    }
}

fn is_host(text: &str) -> bool {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    match bare {
        Some(bare) => bare.parse::<Ipv6Addr>().is_ok(),
        None => !text.is_empty() && text.chars().all(legal),
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Https { host, port } => write!(f, "https://{host}:{port}"),
        }
    }
}

impl TryFrom<String> for PeerAddress {
    type Error = PeerAddressError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PeerAddress> for String {
    fn from(address: PeerAddress) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_their_text_form() {
        for text in ["unix:/run/a.sock", "https://plugin-2.example:9633", "https://[fd00::1]:1"] {
            let address: PeerAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            let stored = serde_json::to_string(&address).unwrap();
            assert_eq!(serde_json::from_str::<PeerAddress>(&stored).unwrap(), address);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in
            ["", "unix:", "tcp:a:1", "http://a:1", "https://a", "https://:1", "https://a:0", "https://a:+1"]
        {
            assert_eq!(text.parse::<PeerAddress>(), Err(PeerAddressError(text.to_owned())));
        }
        assert!(serde_json::from_str::<PeerAddress>("\"https://fd00::1:1\"").is_err());
    }
}
