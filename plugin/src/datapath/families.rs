//! Address families of VIPs and of the backends behind them, between which proxies translate.

use std::fmt;
use std::net::IpAddr;

use crate::resources::{Listener, Tree};

/// Set of address families.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Families {
    v4: bool,
    v6: bool,
}

impl Families {
    /// True if it has none.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// True if a node with these addresses reaches backends of some of them, should there be any.
    pub fn are_reached_from(self, hosts: &[IpAddr]) -> bool {
        let own: Self = hosts.iter().copied().collect();
        self.is_empty() || self.without(own) != self
    }

    /// Families that `other` lacks.
    pub fn without(self, other: Self) -> Self {
        Self { v4: self.v4 && !other.v4, v6: self.v6 && !other.v6 }
    }
}

impl FromIterator<IpAddr> for Families {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(addresses: I) -> Self {
        addresses.into_iter().fold(Self::default(), |all, address| Self {
            v4: all.v4 || address.is_ipv4(),
            v6: all.v6 || address.is_ipv6(),
        })
    }
}

impl fmt::Display for Families {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match (self.v4, self.v6) {
            (true, true) => "IPv4 and IPv6",
            (true, false) => "IPv4",
            (false, true) => "IPv6",
            (false, false) => "no",
        })
    }
}

/// Families of the backends of a listener's pools; empty: there is none.
pub fn backend_families(tree: &Tree, listener: &Listener) -> Families {
    tree.backends_behind(listener).iter().map(|backend| backend.spec.address.ip()).collect()
}

/// Translation between families that a listener asks of its carrier, in words: a backend is of no VIP's family. OVN gives each VIP
/// the backends of its own.
pub(super) fn translation(tree: &Tree, listener: &Listener) -> Option<String> {
    let vips = vip_families(tree);
    let foreign = backend_families(tree, listener).without(vips);
    (!foreign.is_empty()).then(|| format!("an {foreign} backend behind an {vips} VIP"))
}

/// Reason why a VIP serves nobody where OVN carries the listener, for its owner: all backends are of the other VIP's family.
pub fn unserved_family(tree: &Tree, listener: &Listener) -> Option<String> {
    let backends = backend_families(tree, listener);
    let alone = vip_families(tree).without(backends);
    (!alone.is_empty() && !backends.is_empty()).then(|| {
        format!(
            "the pool has {backends} backends alone: OVN refuses connections to the {alone} VIP; with datapath PROXY they \
             are served"
        )
    })
}

fn vip_families(tree: &Tree) -> Families {
    tree.load_balancer.spec.vips.iter().copied().collect()
}
