//! Addresses of servers, in the notation of ovsdb(7), "Active Connection Methods".

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use thiserror::Error;

/// Address of an OVSDB server, parsed from and displayed as ovsdb(7) writes it.
///
/// ```
/// use ovsdb::endpoint::Endpoint;
///
/// let local: Endpoint = "unix:/run/openvswitch/db.sock".parse()?;
/// let remote: Endpoint = "ssl:[2001:db8::1]:6641".parse()?;
/// assert_eq!(remote.to_string(), "ssl:[2001:db8::1]:6641");
/// # Ok::<(), ovsdb::endpoint::EndpointError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `tcp:HOST:PORT`, without TLS. An IPv6 address is written in brackets.
    Tcp {
        /// Host name or address, without brackets.
        host: String,
        /// TCP port, 1 to 65535.
        port: u16,
    },
    /// `ssl:HOST:PORT`, with TLS 1.2 or 1.3; needs [`Config::tls`](crate::client::Config::tls).
    Ssl {
        /// Host name or address, without brackets.
        host: String,
        /// TCP port, 1 to 65535.
        port: u16,
    },
    /// `unix:PATH`, a stream socket in the file system.
    Unix(PathBuf),
}

/// Text that is not an [`Endpoint`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("an endpoint is tcp:HOST:PORT, ssl:HOST:PORT or unix:PATH; an IPv6 address is written in brackets")]
pub struct EndpointError;

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        match text.split_once(':') {
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.into())),
            Some(("tcp", address)) => {
                host_and_port(address).map(|(host, port)| Self::Tcp { host, port }).ok_or(EndpointError)
            }
            Some(("ssl", address)) => {
                host_and_port(address).map(|(host, port)| Self::Ssl { host, port }).ok_or(EndpointError)
            }
            _ => Err(EndpointError),
        }
    }
}

fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    // Rust would parse a sign, which the notation does not have.
    let port = Some(port).filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()))?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    let host = match host.strip_prefix('[') {
        Some(v6) => v6.strip_suffix(']').filter(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok())?,
        None => Some(host).filter(|host| !host.is_empty() && !host.contains(':'))?,
    };
    Some((host.to_owned(), port))
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => write!(f, "tcp:{}:{port}", bracketed(host)),
            Self::Ssl { host, port } => write!(f, "ssl:{}:{port}", bracketed(host)),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

fn bracketed(host: &str) -> Cow<'_, str> {
    if host.contains(':') { Cow::Owned(format!("[{host}]")) } else { Cow::Borrowed(host) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_survive_their_text_form() {
        for text in [
            "tcp:127.0.0.1:6641",
            "tcp:[::1]:6641",
            "tcp:nb.example:6641",
            "ssl:[::1]:6641",
            "ssl:nb:1",
            "unix:/run/nb.sock",
        ] {
            assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn malformed_endpoints_are_refused() {
        for text in [
            "",
            "tcp:",
            "tcp:host",
            "tcp:host:0",
            "tcp:host:70000",
            "tcp:host:+6641",
            "tcp:::1:6641",
            "ssl:host",
            "tls:host:1",
            "tcp:[x]:1",
            "unix:",
            "/run/nb.sock",
        ] {
            assert_eq!(text.parse::<Endpoint>(), Err(EndpointError), "{text}");
        }
    }
}
