//! Capabilities of data planes: those that a node states, and those that a listener needs.

use std::borrow::Cow;
use std::collections::{BTreeSet, btree_set};
use std::fmt;

use serde::{Deserialize, Serialize};

/// Capability of a proxy node, by its word in `Hello.capabilities`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeFeature(Cow<'static, str>);

impl NodeFeature {
    /// Relays byte streams.
    pub const TCP: Self = Self(Cow::Borrowed("tcp"));
    /// Relays datagrams in sessions.
    pub const UDP: Self = Self(Cow::Borrowed("udp"));
    /// Sends the access log of listeners that somebody reads.
    pub const ACCESS_LOG: Self = Self(Cow::Borrowed("access-log"));
    /// Resets clients that a listener does not admit.
    pub const ALLOWED_CIDRS: Self = Self(Cow::Borrowed("allowed-cidrs"));
    /// Sends headers of PROXY protocol to backends, and takes those of trusted proxies.
    pub const PROXY_PROTOCOL: Self = Self(Cow::Borrowed("proxy-protocol"));
    /// Resets connections whose backend is gone, after the drain timeout of their pool.
    pub const DRAIN_TIMEOUT: Self = Self(Cow::Borrowed("drain-timeout"));
    /// Draws backends at random.
    pub const RANDOM: Self = Self(Cow::Borrowed("random"));
    /// Lets the share of a backend that begins grow.
    pub const SLOW_START: Self = Self(Cow::Borrowed("slow-start"));
    /// Leaves backends out that fail connections.
    pub const PASSIVE_HEALTH: Self = Self(Cow::Borrowed("passive-health"));
    /// Bounds the connections of one client, and the rates of all.
    pub const CLIENT_LIMITS: Self = Self(Cow::Borrowed("client-limits"));
    /// Bounds the bandwidth of a listener.
    pub const BANDWIDTH: Self = Self(Cow::Borrowed("bandwidth"));
    /// Ends half-closed connections by a timeout of their own.
    pub const HALF_CLOSE: Self = Self(Cow::Borrowed("half-close"));
    /// Bounds the connections of backends, for which others wait.
    pub const BACKEND_LIMITS: Self = Self(Cow::Borrowed("backend-limits"));
    /// Listens on ranges of ports.
    pub const PORT_RANGES: Self = Self(Cow::Borrowed("port-ranges"));
    /// Divides the connections of a listener among several pools.
    pub const WEIGHTED_POOLS: Self = Self(Cow::Borrowed("weighted-pools"));
}

/// Set of capabilities: those that a node has, or those that a listener needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeFeatures(BTreeSet<NodeFeature>);

impl NodeFeatures {
    /// Capabilities that a node states. A node that states none is of a release without such words, and relays
    /// byte streams.
    pub fn stated(words: impl IntoIterator<Item = String>) -> Self {
        let stated: BTreeSet<NodeFeature> =
            words.into_iter().map(|word| NodeFeature(Cow::Owned(word))).collect();
        if stated.is_empty() { Self::of_old_agents() } else { Self(stated) }
    }

    /// Capabilities of agents that state none.
    pub fn of_old_agents() -> Self {
        Self(BTreeSet::from([NodeFeature::TCP]))
    }

    /// True if a node with these capabilities can serve a listener that needs `needed`.
    pub fn cover(&self, needed: &Self) -> bool {
        needed.0.is_subset(&self.0)
    }

    /// True if one of them is this one.
    pub fn has(&self, feature: &NodeFeature) -> bool {
        self.0.contains(feature)
    }

    /// Their words, in alphabetical order.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|NodeFeature(word)| word.as_ref())
    }

    /// Adds capabilities.
    pub fn add(&mut self, more: &Self) {
        self.0.extend(more.0.iter().cloned());
    }
}

impl FromIterator<NodeFeature> for NodeFeatures {
    fn from_iter<I: IntoIterator<Item = NodeFeature>>(features: I) -> Self {
        Self(features.into_iter().collect())
    }
}

impl IntoIterator for NodeFeatures {
    type Item = NodeFeature;
    type IntoIter = btree_set::IntoIter<NodeFeature>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for NodeFeatures {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<&str> = self.words().collect();
        let noun = if words.len() == 1 { "capability" } else { "capabilities" };
        write!(out, "{noun} {}", words.join(", "))
    }
}
