//! Health checks: request, interval, timeout and thresholds.

use std::net::SocketAddr;
use std::time::Duration;

use super::codes::ExpectedCodes;
use crate::proxy_protocol::{self, Endpoints, Subject, Version};

/// Shortest pause between two probes of one target.
pub const MIN_DELAY: Duration = Duration::from_millis(100);
/// Longest pause between two probes of one target.
pub const MAX_DELAY: Duration = Duration::from_secs(3600);
/// Most probes in a row that `rise` and `fall` can ask for.
pub const MAX_THRESHOLD: u32 = 10;
/// Longest method, path and host of an HTTP check, in bytes each.
const LONGEST: usize = 1024;

/// Reason why a check is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// `delay` out of range.
    #[error("delay is {0:?}, must be 100 ms to 3600 s")]
    Delay(Duration),
    /// `timeout` out of range.
    #[error("timeout is {0:?}, must be above 0 and at most delay ({1:?})")]
    Timeout(Duration, Duration),
    /// `rise` or `fall` out of range.
    #[error("{0} is {1}, must be 1 to 10")]
    Threshold(&'static str, u32),
    /// A part of the HTTP request that would break it.
    #[error("HTTP {0} must be 1 to 1024 visible ASCII characters{1}")]
    Request(&'static str, &'static str),
}

/// A health check of one backend address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Check {
    kind: CheckKind,
    delay: Duration,
    timeout: Duration,
    rise: u32,
    fall: u32,
    header: Option<Version>,
}

/// Kind of a check.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CheckKind {
    /// The backend accepts a TCP connection. It is reset before the backend's process sees it.
    Tcp,
    /// The backend answers an HTTP/1.1 request with an expected status code.
    Http(Http),
}

/// Request of an HTTP check, and the expected answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Http {
    method: String,
    path: String,
    /// Empty: the backend's address.
    host: String,
    expected: ExpectedCodes,
}

impl Check {
    /// A check with `delay` (from the start of one probe to the start of the next, 100 ms to 3600 s),
    /// `timeout` (for one probe as a whole, at most `delay`), and the numbers of good (`rise`) and bad
    /// (`fall`) probes in a row that turn the verdict (1 to 10).
    ///
    /// # Errors
    /// A value out of range.
    pub fn new(
        kind: CheckKind,
        delay: Duration,
        timeout: Duration,
        rise: u32,
        fall: u32,
    ) -> Result<Self, CheckError> {
        if !(MIN_DELAY..=MAX_DELAY).contains(&delay) {
            return Err(CheckError::Delay(delay));
        }
        if timeout.is_zero() || timeout > delay {
            return Err(CheckError::Timeout(timeout, delay));
        }
        for (name, value) in [("rise", rise), ("fall", fall)] {
            if !(1..=MAX_THRESHOLD).contains(&value) {
                return Err(CheckError::Threshold(name, value));
            }
        }
        Ok(Self { kind, delay, timeout, rise, fall, header: None })
    }

    /// The same check with a header of PROXY protocol before all else. A TCP check then reaches the backend's process, as a
    /// connection that ends after the header.
    #[must_use]
    pub fn with_header(self, version: Version) -> Self {
        Self { header: Some(version), ..self }
    }

    /// Writes the first bytes of a probe from `local` into `out`, replacing its content.
    pub(super) fn write_first(&self, local: Option<SocketAddr>, address: SocketAddr, out: &mut Vec<u8>) {
        out.clear();
        if let Some(version) = self.header {
            out.extend(proxy_protocol::encode(version, &header(version, local, address).into()));
        }
        if let CheckKind::Http(http) = &self.kind {
            http.write_request(address, out);
        }
    }

    /// True if its probes begin with a header.
    pub(super) fn has_header(&self) -> bool {
        self.header.is_some()
    }

    /// The kind of the check.
    #[must_use]
    pub fn kind(&self) -> &CheckKind {
        &self.kind
    }

    /// Time from the start of one probe to the start of the next.
    #[must_use]
    pub fn delay(&self) -> Duration {
        self.delay
    }

    /// The longest that one probe may take, from connecting to the end of the final status line.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Good probes in a row that bring a backend back.
    #[must_use]
    pub fn rise(&self) -> u32 {
        self.rise
    }

    /// Bad probes in a row that take a backend out.
    #[must_use]
    pub fn fall(&self) -> u32 {
        self.fall
    }
}

impl Http {
    /// A request with `method` (capital letters), `path` (begins with `/`) and `host` (the value of the Host
    /// header; the backend's address if `None` or empty). Each is at most 1024 visible ASCII characters.
    ///
    /// # Errors
    /// A part that would break the request.
    pub fn new(
        method: &str,
        path: &str,
        host: Option<&str>,
        expected: ExpectedCodes,
    ) -> Result<Self, CheckError> {
        if !visible(method) || !method.bytes().all(|byte| byte.is_ascii_uppercase()) {
            return Err(CheckError::Request("method", ", A to Z only"));
        }
        if !visible(path) || !path.starts_with('/') {
            return Err(CheckError::Request("path", ", \"/\" first"));
        }
        let host = host.unwrap_or_default();
        if !host.is_empty() && !visible(host) {
            return Err(CheckError::Request("host", ""));
        }
        Ok(Self { method: method.to_owned(), path: path.to_owned(), host: host.to_owned(), expected })
    }

    /// The codes that mean healthy.
    #[must_use]
    pub fn expected(&self) -> &ExpectedCodes {
        &self.expected
    }

    /// Appends the request for a backend.
    fn write_request(&self, address: SocketAddr, out: &mut Vec<u8>) {
        for piece in [&self.method, " ", &self.path, " HTTP/1.1\r\nHost: "] {
            out.extend_from_slice(piece.as_bytes());
        }
        match self.host.is_empty() {
            true => push_authority(address, out),
            false => out.extend_from_slice(self.host.as_bytes()),
        }
        out.extend_from_slice(
            concat!("\r\nUser-Agent: fiberlb-health/", env!("CARGO_PKG_VERSION")).as_bytes(),
        );
        // Without it, a server may answer 411 to a method that usually brings a body.
        if matches!(self.method.as_str(), "POST" | "PUT" | "PATCH") {
            out.extend_from_slice(b"\r\nContent-Length: 0");
        }
        out.extend_from_slice(b"\r\nAccept: */*\r\nConnection: close\r\n\r\n");
    }
}

/// Header of a probe. Version 2 says that the connection is the node's own. Version 1 can only say UNKNOWN, which some servers
/// refuse, so that it states the probe's endpoints, as the protocol recommends.
fn header(version: Version, local: Option<SocketAddr>, address: SocketAddr) -> Subject {
    match (version, local) {
        (Version::V2, _) => Subject::Local,
        (Version::V1, None) => Subject::Unknown,
        (Version::V1, Some(source)) => Subject::Tcp(Endpoints { source, destination: address }),
    }
}

/// Appends an address in the form of a Host header: IPv6 in brackets, no zone, and the port unless it is 80.
fn push_authority(address: SocketAddr, out: &mut Vec<u8>) {
    use std::io::Write as _;
    let written = match address {
        SocketAddr::V4(address) => write!(out, "{}", address.ip()),
        SocketAddr::V6(address) => write!(out, "[{}]", address.ip()),
    };
    let written = written.and_then(|()| match address.port() {
        80 => Ok(()),
        port => write!(out, ":{port}"),
    });
    debug_assert!(written.is_ok(), "writing to memory does not fail");
}

fn visible(text: &str) -> bool {
    (1..=LONGEST).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn http(method: &str, path: &str, host: Option<&str>) -> Result<Http, CheckError> {
        Http::new(method, path, host, "200".parse().unwrap())
    }

    fn request(http: &Http, address: &str) -> String {
        let check = Check::new(CheckKind::Http(http.clone()), SECOND, SECOND, 1, 1).unwrap();
        first(&check, address)
    }

    fn first(check: &Check, address: &str) -> String {
        let mut out = b"left over".to_vec();
        let local = "192.0.2.9:40000".parse().ok();
        check.write_first(local, address.parse().unwrap(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_header_comes_before_all_else() {
        let tcp = Check::new(CheckKind::Tcp, SECOND, SECOND, 1, 1).unwrap();
        assert_eq!(first(&tcp, "192.0.2.1:80"), "");
        let line = "PROXY TCP4 192.0.2.9 192.0.2.1 40000 80\r\n";
        assert_eq!(first(&tcp.clone().with_header(Version::V1), "192.0.2.1:80"), line);
        let local = "\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
        assert_eq!(first(&tcp.with_header(Version::V2), "192.0.2.1:80"), local);
        let http = CheckKind::Http(http("GET", "/", None).unwrap());
        let http = Check::new(http, SECOND, SECOND, 1, 1).unwrap();
        let request = first(&http, "192.0.2.1:80");
        assert_eq!(first(&http.with_header(Version::V2), "192.0.2.1:80"), format!("{local}{request}"));
    }

    #[test]
    fn a_request_is_one_request() {
        let lines = "GET /up?a=b HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: fiberlb-health/0.1.0\r\n\
                     Accept: */*\r\nConnection: close\r\n\r\n";
        assert_eq!(request(&http("GET", "/up?a=b", Some("shop.example")).unwrap(), "192.0.2.1:80"), lines);
        assert!(
            request(&http("POST", "/", None).unwrap(), "192.0.2.1:80").contains("\r\nContent-Length: 0\r\n")
        );
    }

    #[test]
    fn without_a_host_the_address_is_named() {
        let http = http("GET", "/", None).unwrap();
        for (address, host) in [
            ("192.0.2.1:80", "192.0.2.1"),
            ("192.0.2.1:8080", "192.0.2.1:8080"),
            ("[2001:db8::1]:80", "[2001:db8::1]"),
            ("[fe80::1%3]:81", "[fe80::1]:81"),
        ] {
            assert!(request(&http, address).contains(&format!("\r\nHost: {host}\r\n")), "{address}");
        }
    }

    #[test]
    fn nothing_can_be_smuggled_into_a_request() {
        for (method, path, host) in [
            ("get", "/", None),
            ("", "/", None),
            ("GET", "", None),
            ("GET", "up", None),
            ("GET", "/ HTTP/1.0", None),
            ("GET", "/\r\nX: y", None),
            ("GET", "/\u{e9}", None),
            ("GET", "/", Some("a\nb")),
        ] {
            assert!(http(method, path, host).is_err(), "{method:?} {path:?} {host:?}");
        }
        assert!(http("GET", &format!("/{}", "a".repeat(1024)), None).is_err());
    }

    #[test]
    fn values_out_of_range_are_refused() {
        let check = |delay, timeout, rise, fall| Check::new(CheckKind::Tcp, delay, timeout, rise, fall);
        assert!(check(SECOND, SECOND, 1, 10).is_ok());
        assert!(check(SECOND * 3601, SECOND, 1, 1).is_err());
        assert!(check(Duration::from_millis(99), MIN_DELAY / 2, 1, 1).is_err());
        assert!(check(SECOND, SECOND * 2, 1, 1).is_err());
        assert!(check(SECOND, Duration::ZERO, 1, 1).is_err());
        assert!(check(SECOND, SECOND, 0, 1).is_err());
        assert!(check(SECOND, SECOND, 1, 11).is_err());
    }
}
