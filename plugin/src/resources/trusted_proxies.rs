//! Proxies whose word on their clients a listener takes.

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use super::ListenerProtocol;
use super::cidrs;
use super::listener::Transport;
use super::violation::Form;

/// Field of a listener.
const FIELD: &str = "trusted_proxies";

/// Subnets of proxies, in the order in which they were given: connections from them begin with a header of PROXY protocol,
/// which states their client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TrustedProxies(Vec<IpNetwork>);

impl TrustedProxies {
    /// Most subnets of a listener.
    pub const MOST: usize = 100;

    /// Returns true if it has no subnet.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The subnets.
    pub fn iter(&self) -> impl Iterator<Item = &IpNetwork> {
        self.0.iter()
    }

    pub(super) fn check(&self, protocol: ListenerProtocol, form: &mut Form<'_>) {
        cidrs::check(&self.0, FIELD, Self::MOST, form);
        if !self.is_empty() && protocol.transport() != Transport::Tcp {
            form.invalid(FIELD, "PROXY protocol is taken over TCP alone");
        }
    }
}

impl FromIterator<IpNetwork> for TrustedProxies {
    fn from_iter<I: IntoIterator<Item = IpNetwork>>(cidrs: I) -> Self {
        Self(cidrs.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Violations;
    use super::*;

    #[test]
    fn proxies_are_trusted_over_tcp_alone() {
        let found = |cidrs: &[&str], protocol| {
            let list: TrustedProxies = cidrs.iter().map(|cidr| cidr.parse::<IpNetwork>().unwrap()).collect();
            let mut violations = Violations::default();
            list.check(protocol, &mut Form::new("", &mut violations));
            violations.paths().map(str::to_owned).collect::<Vec<_>>()
        };
        use ListenerProtocol::{Https, Sctp, Tcp, Udp};
        for protocol in [Tcp, Https] {
            assert_eq!(found(&["10.0.0.9/32"], protocol), [""; 0]);
            assert_eq!(found(&["10.0.0.9/24"], protocol), ["trusted_proxies[0]"]);
        }
        for protocol in [Udp, Sctp] {
            assert_eq!(found(&["10.0.0.9/32"], protocol), ["trusted_proxies"]);
            assert_eq!(found(&[], protocol), [""; 0]);
        }
    }
}
