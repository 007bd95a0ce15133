//! What one probe says, about the backend or about ourselves.

use rustix::io::Errno;

use super::check::{Check, Kind};

/// The result of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The backend did what is asked of it.
    Good,
    /// It did not.
    Bad(Reason),
    /// The probe failed for a reason of our own, in words: says nothing about the backend.
    Inconclusive(String),
}

/// Why a probe was bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Nobody listens on the port.
    Refused,
    /// The connection was reset.
    Reset,
    /// No such neighbour, or an ICMP message that says so.
    Unreachable,
    /// No answer before the timeout.
    NoAnswer,
    /// The connection was closed before the end of the status line.
    Closed,
    /// What came is no HTTP/1 status line.
    NotHttp,
    /// A status code that is not expected.
    Code(u16),
}

impl Outcome {
    /// What an error says that the network sent. Errors that it cannot send are our own.
    pub(super) fn of_network(error: Errno) -> Self {
        match error {
            Errno::CONNREFUSED => Self::Bad(Reason::Refused),
            Errno::CONNRESET | Errno::CONNABORTED | Errno::PIPE => Self::Bad(Reason::Reset),
            Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::HOSTDOWN | Errno::ACCESS | Errno::PROTO => {
                Self::Bad(Reason::Unreachable)
            }
            Errno::TIMEDOUT => Self::Bad(Reason::NoAnswer),
            own => Self::Inconclusive(format!("cannot probe: {own}{}", hint(own))),
        }
    }

    /// What an error says that connect(2) returns at once: there was no time for an answer, so that it is our own.
    pub(super) fn of_connect(error: Errno) -> Self {
        match error {
            Errno::CONNREFUSED => Self::Bad(Reason::Refused),
            own => Self::Inconclusive(format!("cannot connect: {own}{}", hint(own))),
        }
    }

    /// No socket could be had.
    pub(super) fn of_socket(error: &std::io::Error) -> Self {
        let hint = Errno::from_io_error(error).map_or("", hint);
        Self::Inconclusive(format!("cannot make a socket: {error}{hint}"))
    }
}

/// What an operator can do about it.
fn hint(error: Errno) -> &'static str {
    match error {
        Errno::MFILE => "; raise the process's limit of open files (LimitNOFILE)",
        Errno::NFILE => "; raise fs.file-max",
        Errno::ADDRNOTAVAIL => "; no source address, or net.ipv4.ip_local_port_range is used up",
        Errno::NETUNREACH | Errno::HOSTUNREACH => "; the namespace has no route to the backend",
        Errno::ACCESS | Errno::PERM => "; a rule or route of this node forbids it",
        _ => "",
    }
}

impl Reason {
    /// The reason in words, with what was asked for.
    #[must_use]
    pub fn text(self, check: &Check) -> String {
        match (self, check.kind()) {
            (Self::Refused, _) => "connection refused".to_owned(),
            (Self::Reset, _) => "connection reset".to_owned(),
            (Self::Unreachable, _) => "host unreachable".to_owned(),
            (Self::NoAnswer, _) => format!("no answer within {} s", check.timeout().as_secs_f64()),
            (Self::Closed, _) => "connection closed without an answer".to_owned(),
            (Self::NotHttp, _) => "answer is not HTTP".to_owned(),
            (Self::Code(code), Kind::Http(http)) => format!("HTTP {code}, expected {}", http.expected()),
            (Self::Code(code), Kind::Tcp) => format!("HTTP {code}"),
        }
    }
}

/// What a good probe is called.
pub(super) fn good_text(check: &Check) -> &'static str {
    match check.kind() {
        Kind::Tcp => "connected",
        Kind::Http(_) => "answered as expected",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::check::Http;
    use super::*;

    #[test]
    fn reasons_are_sentences_with_their_values() {
        let http = Http::new("GET", "/", None, "200-204".parse().unwrap()).unwrap();
        let check = |kind, timeout| {
            Check::new(kind, Duration::from_secs(5), Duration::from_millis(timeout), 1, 1).unwrap()
        };
        assert_eq!(Reason::NoAnswer.text(&check(Kind::Tcp, 5000)), "no answer within 5 s");
        assert_eq!(Reason::NoAnswer.text(&check(Kind::Tcp, 1500)), "no answer within 1.5 s");
        assert_eq!(Reason::Code(503).text(&check(Kind::Http(http), 5000)), "HTTP 503, expected 200-204");
    }

    #[test]
    fn errors_of_our_own_are_no_verdict() {
        for own in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL, Errno::PERM]
        {
            assert!(matches!(Outcome::of_network(own), Outcome::Inconclusive(_)), "{own}");
            assert!(matches!(Outcome::of_connect(own), Outcome::Inconclusive(_)), "{own}");
        }
        for own in [Errno::NETUNREACH, Errno::HOSTUNREACH, Errno::ACCESS] {
            assert!(matches!(Outcome::of_connect(own), Outcome::Inconclusive(_)), "{own}");
            assert_eq!(Outcome::of_network(own), Outcome::Bad(Reason::Unreachable));
        }
        let Outcome::Inconclusive(text) = Outcome::of_socket(&Errno::MFILE.into()) else { panic!() };
        assert!(text.contains("LimitNOFILE"), "{text}");
    }
}
