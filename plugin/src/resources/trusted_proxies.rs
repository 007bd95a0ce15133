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
