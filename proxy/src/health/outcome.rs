//! Outcomes of probes: about the backend, or about the node itself.

use rustix::io::Errno;

use super::check::{Check, CheckKind};
use crate::shortage::NodeResource;

/// The result of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The backend passed the check.
    Good,
    /// The backend failed the check.
    Bad(Reason),
    /// The probe failed for a reason of the node's own: no verdict on the backend.
    Inconclusive(NodeFailure),
}

/// Reason of the node's own why a probe failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFailure {
    /// In words.
    pub text: String,
    /// Resource that the node is short of; None: it is something else.
    pub resource: Option<NodeResource>,
}

/// Reason of a bad probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No process listens on the port.
    Refused,
    /// The connection was reset.
    Reset,
    /// No such neighbour, or an ICMP message to this effect.
    Unreachable,
    /// The network leads nowhere to the address: it is in none of its subnets, and there is no router.
    NoRoute,
    /// No answer before the timeout.
    NoAnswer,
    /// The connection was closed before the end of the status line.
    Closed,
    /// The answer has no HTTP/1 status line.
    NotHttp,
    /// A status code that is not expected.
    Code(u16),
}

impl ProbeOutcome {
    /// Outcome of an error that the network can cause. All other errors are the node's own.
    pub(super) fn of_network(error: Errno) -> Self {
        match error {
            Errno::CONNREFUSED => Self::Bad(Reason::Refused),
            Errno::CONNRESET | Errno::CONNABORTED | Errno::PIPE => Self::Bad(Reason::Reset),
            Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::HOSTDOWN | Errno::ACCESS | Errno::PROTO => {
                Self::Bad(Reason::Unreachable)
            }
            Errno::TIMEDOUT => Self::Bad(Reason::NoAnswer),
            own => Self::of_node("probe", own),
        }
    }

    /// Outcome of an error that connect(2) returns at once: there was no time for an answer. `has_route`: the
    /// node's configuration leads to the address, so that it is the node that lacks the route.
    pub(super) fn of_connect(error: Errno, has_route: bool) -> Self {
        match error {
            Errno::CONNREFUSED => Self::Bad(Reason::Refused),
            Errno::NETUNREACH | Errno::HOSTUNREACH if !has_route => Self::Bad(Reason::NoRoute),
            own => Self::of_node("connect", own),
        }
    }

    /// The outcome while neighbour tables of the kernel overflow: silence is no verdict then.
    pub(super) fn while_neighbours_are_full(self) -> Self {
        match self {
            Self::Bad(Reason::NoAnswer | Reason::Unreachable) => Self::Inconclusive(NodeFailure {
                text: "no answer, while the kernel's neighbour tables overflow".to_owned(),
                resource: Some(NodeResource::Neighbours),
            }),
            other => other,
        }
    }

    /// Outcome of a socket that cannot be made.
    pub(super) fn of_socket(error: &std::io::Error) -> Self {
        let hint = Errno::from_io_error(error).map_or("", hint);
        let text = format!("cannot make a socket: {error}{hint}");
        Self::Inconclusive(NodeFailure { text, resource: NodeResource::of_error(error) })
    }

    fn of_node(verb: &str, error: Errno) -> Self {
        let text = format!("cannot {verb}: {error}{}", hint(error));
        Self::Inconclusive(NodeFailure { text, resource: NodeResource::of_errno(error) })
    }
}

/// Hint for an operator.
fn hint(error: Errno) -> &'static str {
    match error {
        Errno::MFILE => "; raise the process's limit of open files (LimitNOFILE)",
        Errno::NFILE => "; raise fs.file-max",
        Errno::ADDRNOTAVAIL => "; no source address, or net.ipv4.ip_local_port_range is used up",
        Errno::NETUNREACH | Errno::HOSTUNREACH => {
            "; the node's namespace lacks the route that it should have: see its log"
        }
        Errno::ACCESS | Errno::PERM => "; a rule or route of this node forbids it",
        _ => "",
    }
}

impl Reason {
    /// The reason in words, with values of the check.
    #[must_use]
    pub fn text(self, check: &Check) -> String {
        match (self, check.kind()) {
            (Self::Refused, _) => "connection refused".to_owned(),
            (Self::Reset, _) => "connection reset".to_owned(),
            (Self::Unreachable, _) => "host unreachable".to_owned(),
            (Self::NoRoute, _) => {
                "no route to it from the network: it is in no subnet there, and no router leads to it"
                    .to_owned()
            }
            (Self::NoAnswer, _) => format!("no answer within {} s", check.timeout().as_secs_f64()),
            (Self::Closed, _) => "connection closed without an answer".to_owned(),
            (Self::NotHttp, _) => "answer is not HTTP".to_owned(),
            (Self::Code(code), CheckKind::Http(http)) => format!("HTTP {code}, expected {}", http.expected()),
            (Self::Code(code), CheckKind::Tcp) => format!("HTTP {code}"),
        }
    }
}

/// Text of a good outcome.
pub(super) fn good_text(check: &Check) -> &'static str {
    match check.kind() {
        CheckKind::Tcp => "connected",
        CheckKind::Http(_) => "answered as expected",
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
        assert_eq!(Reason::NoAnswer.text(&check(CheckKind::Tcp, 5000)), "no answer within 5 s");
        assert_eq!(Reason::NoAnswer.text(&check(CheckKind::Tcp, 1500)), "no answer within 1.5 s");
        assert_eq!(Reason::Code(503).text(&check(CheckKind::Http(http), 5000)), "HTTP 503, expected 200-204");
    }

    #[test]
    fn errors_of_our_own_are_no_verdict() {
        for own in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL, Errno::PERM]
        {
            assert!(matches!(ProbeOutcome::of_network(own), ProbeOutcome::Inconclusive(_)), "{own}");
            for has_route in [true, false] {
                let outcome = ProbeOutcome::of_connect(own, has_route);
                assert!(matches!(outcome, ProbeOutcome::Inconclusive(_)), "{own}");
            }
        }
        for routing in [Errno::NETUNREACH, Errno::HOSTUNREACH, Errno::ACCESS] {
            let outcome = ProbeOutcome::of_connect(routing, true);
            assert!(matches!(outcome, ProbeOutcome::Inconclusive(_)), "{routing}");
            assert_eq!(ProbeOutcome::of_network(routing), ProbeOutcome::Bad(Reason::Unreachable));
        }
        for routing in [Errno::NETUNREACH, Errno::HOSTUNREACH] {
            assert_eq!(ProbeOutcome::of_connect(routing, false), ProbeOutcome::Bad(Reason::NoRoute));
        }
        for silent in [Reason::NoAnswer, Reason::Unreachable] {
            let excused = ProbeOutcome::Bad(silent).while_neighbours_are_full();
            assert!(matches!(excused, ProbeOutcome::Inconclusive(_)), "{silent:?}");
        }
        for certain in
            [ProbeOutcome::Good, ProbeOutcome::Bad(Reason::Refused), ProbeOutcome::Bad(Reason::Code(500))]
        {
            assert_eq!(certain.clone().while_neighbours_are_full(), certain);
        }
        let ProbeOutcome::Inconclusive(failure) = ProbeOutcome::of_socket(&Errno::MFILE.into()) else {
            panic!()
        };
        assert!(failure.text.contains("LimitNOFILE"), "{failure:?}");
        assert_eq!(failure.resource, Some(NodeResource::Descriptors));
    }
}
