//! Carrier of a listener's traffic: OVN itself, or proxies, and the way in which clients reach these. Pure.
//!
//! A table decides: for each requirement of a listener, which releases of OVN meet it, and which proxy nodes.

mod families;
mod features;

use std::borrow::Cow;
use std::net::IpAddr;

use fiberlb_northbound::plan::Capabilities;
use serde::{Deserialize, Serialize};

use families::translation;
pub use families::{Families, backend_families, unserved_family};
pub use features::{NodeFeature, NodeFeatures};

use crate::resources::{
    Algorithm, Datapath, Exposure, Kind, Listener, ListenerProtocol, Pool, PoolProtocol, ProxyLimit, Record,
    Tree, WeightedPools,
};

/// Carrier of a listener's traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Carrier {
    /// OVN, in each chassis.
    Ovn,
    /// Proxies, behind an OVN row that spreads connections over the nodes.
    Proxy,
    /// The proxy of the one node that holds the VIP.
    Direct,
}

impl Carrier {
    /// True if proxies carry it.
    pub fn is_proxy(self) -> bool {
        self != Self::Ovn
    }
}

/// Carrier of one listener, with the reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The carrier.
    pub carrier: Carrier,
    /// Reason, for the listener's owner.
    pub reason: Cow<'static, str>,
}

impl Decision {
    /// OVN, preferred wherever possible.
    pub const OVN: Self = Self {
        carrier: Carrier::Ovn,
        reason: Cow::Borrowed("OVN can balance all that this listener asks for"),
    };
}

/// Conflict in the specification of a listener, or with the connected OVN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Field of the listener.
    pub field: &'static str,
    /// Reason, for its owner.
    pub reason: String,
}

/// True if the VIPs of a tree are on one node at a time. One DIRECT listener decides for all, since an
/// address that a node answers for cannot be balanced by OVN.
pub fn is_direct(tree: &Tree) -> bool {
    listeners(tree).any(|listener| listener.spec.exposure == Exposure::Direct)
}

/// Capabilities that a node needs to serve a listener of a tree.
pub fn needed_features(tree: &Tree, listener: &Listener) -> NodeFeatures {
    let table = requirements(tree, listener, &Capabilities::ALL);
    table.into_iter().filter_map(|requirement| requirement.proxies.feature()).collect()
}

/// Capabilities that a node needs to connect to the backends of a pool of this protocol, and to check them.
pub fn needed_by_protocol(protocol: PoolProtocol) -> NodeFeatures {
    by_pool_protocol(protocol).feature().into_iter().collect()
}

/// True if a listener turns some clients of its VIPs away by their addresses.
pub fn restricts_clients(tree: &Tree, listener: &Listener) -> bool {
    listener.allowed_cidrs.restrict(&tree.load_balancer.spec.vips)
}

/// Setting that bounds the connections of a listener's backends, in words.
fn bounds_backends(tree: &Tree, listener: &Listener) -> Option<&'static str> {
    let has_queue = tree.pools_of(listener).any(|(pool, _)| pool.spec.queue_limit > 0);
    let has_limit = tree.backends_behind(listener).iter().any(|backend| backend.spec.connection_limit > 0);
    has_limit
        .then_some("a connection limit of the pool's backends")
        .or_else(|| has_queue.then_some("the pool's queue"))
}

/// Decides on the carrier of one listener of a tree.
///
/// # Errors
/// Its settings conflict with one another, or the connected OVN lacks a feature.
pub fn decide(tree: &Tree, listener: &Listener, capabilities: &Capabilities) -> Result<Decision, Conflict> {
    let table = requirements(tree, listener, capabilities);
    let only_proxies = table.iter().find(|requirement| requirement.ovn == Ovn::Never);
    let lack = table.iter().find_map(|requirement| requirement.lack(listener.datapath));
    let is_proxied = table.iter().all(|requirement| requirement.proxies != Proxies::None);
    match (listener.datapath, only_proxies, lack) {
        (Datapath::Ovn, Some(Requirement { field, words, .. }), _) => {
            Err(Conflict { field, reason: format!("{words} needs the proxy, and datapath is OVN") })
        }
        (_, Some(Requirement { field, words, .. }), _) if !is_proxied => {
            let protocol = listener.protocol.as_str();
            Err(Conflict {
                field,
                reason: format!("{words} needs the proxy, which does not carry {protocol}"),
            })
        }
        (Datapath::Proxy, _, _) if !is_proxied => {
            let reason = format!("the proxy does not carry {}", listener.protocol.as_str());
            Err(Conflict { field: "datapath", reason })
        }
        (Datapath::Ovn, None, Some(lack)) => Err(Conflict { field: "datapath", reason: lack }),
        (Datapath::Auto, None, Some(lack)) if !is_proxied => {
            Err(Conflict { field: "datapath", reason: lack })
        }
        (Datapath::Proxy, None, _) => Ok(proxied(tree, "the listener requests it".to_owned())),
        (_, Some(Requirement { words, .. }), _) => Ok(proxied(tree, format!("{words} needs it"))),
        (Datapath::Auto, None, Some(lack)) => Ok(proxied(tree, lack)),
        (Datapath::Auto | Datapath::Ovn, None, None) => Ok(Decision::OVN),
    }
}

fn proxied(tree: &Tree, reason: String) -> Decision {
    let carrier = if is_direct(tree) { Carrier::Direct } else { Carrier::Proxy };
    Decision { carrier, reason: reason.into() }
}

/// Row of the table: a requirement of a listener, and the carriers that meet it.
struct Requirement {
    /// Field of the listener that causes it.
    field: &'static str,
    /// In words, as a subject.
    words: Cow<'static, str>,
    ovn: Ovn,
    proxies: Proxies,
}

/// Column of OVN: whether it meets a requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ovn {
    /// Every release does.
    Always,
    /// The connected one does not; text with what it lacks.
    Lacks(&'static str),
    /// No release does.
    Never,
}

/// Column of the proxies: the nodes that meet a requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Proxies {
    /// All nodes do.
    All,
    /// Nodes with a capability do.
    With(NodeFeature),
    /// No release does.
    None,
}

impl Proxies {
    /// The capability that a node needs, if it needs one.
    fn feature(self) -> Option<NodeFeature> {
        match self {
            Self::With(feature) => Some(feature),
            Self::All | Self::None => None,
        }
    }
}

impl Requirement {
    /// Lack of the connected OVN, as a reason.
    fn lack(&self, datapath: Datapath) -> Option<String> {
        let Ovn::Lacks(what) = self.ovn else { return None };
        let by = if datapath == Datapath::Auto { "; proxies can" } else { "" };
        Some(format!("{what}; the connected northbound database does not have it{by}"))
    }
}

/// The table of a listener; of two rows that lead to one carrier the first gives the reason.
fn requirements(tree: &Tree, listener: &Listener, capabilities: &Capabilities) -> Vec<Requirement> {
    let never = |field, words, proxies| Requirement { field, words, ovn: Ovn::Never, proxies };
    let of_pool = |words, proxies| never(listener.pool_field(), words, proxies);
    let protocol = Requirement {
        field: "protocol",
        words: listener.protocol.as_str().into(),
        ovn: Ovn::Always,
        proxies: by_protocol(listener.protocol),
    };
    let range = || Requirement {
        field: "port_end",
        words: "a range of ports".into(),
        ovn: Ovn::Always,
        proxies: Proxies::With(NodeFeature::PORT_RANGES),
    };
    let division = || Requirement {
        field: WeightedPools::FIELD,
        words: "a division among pools".into(),
        ovn: Ovn::Always,
        proxies: Proxies::With(NodeFeature::WEIGHTED_POOLS),
    };
    let difference = |what| of_pool(format!("a difference in {what} between the pools").into(), Proxies::All);
    let pools: Vec<&Pool> = tree.pools_of(listener).map(|(pool, _)| &pool.spec).collect();
    let is_direct = listener.exposure == Exposure::Direct;
    let direct = || never("exposure", "DIRECT exposure".into(), Proxies::All);
    let neighbour = |words: String| never("exposure", words.into(), Proxies::All);
    let limit = |limit: ProxyLimit| never(limit.field(), limit.words().into(), by_limit(limit));
    let restriction = || {
        let proxies = Proxies::With(NodeFeature::ALLOWED_CIDRS);
        never("allowed_cidrs", "a list of allowed CIDRs".into(), proxies)
    };
    let trust = || {
        let proxies = Proxies::With(NodeFeature::PROXY_PROTOCOL);
        never("trusted_proxies", "a list of trusted proxies".into(), proxies)
    };
    let header = |pool: &Pool| {
        let words = format!("the pool's protocol {}", pool.protocol.as_str());
        of_pool(words.into(), by_pool_protocol(pool.protocol))
    };
    let by_algorithm = |pool: &Pool| {
        let words = format!("the pool's algorithm {}", pool.algorithm.as_str());
        let proxies = if pool.algorithm.draws() { Proxies::With(NodeFeature::RANDOM) } else { Proxies::All };
        of_pool(words.into(), proxies)
    };
    let deadline = || {
        let proxies = Proxies::With(NodeFeature::DRAIN_TIMEOUT);
        of_pool("the pool's drain timeout of more than 0 s".into(), proxies)
    };
    let slow_start = || of_pool("the pool's slow start".into(), Proxies::With(NodeFeature::SLOW_START));
    let passive_health =
        || of_pool("the pool's passive health check".into(), Proxies::With(NodeFeature::PASSIVE_HEALTH));
    let translated = |words: String| of_pool(words.into(), Proxies::All);
    let bound = |words: &'static str| of_pool(words.into(), Proxies::With(NodeFeature::BACKEND_LIMITS));
    let of_any = |asks: fn(&Pool) -> bool| pools.iter().copied().filter(move |pool| asks(pool));
    [protocol]
        .into_iter()
        .chain((listener.port_count() > 1).then(range))
        .chain((listener.pools().count() > 1).then(division))
        .chain(is_direct.then(direct))
        .chain(listener.limits.set().map(limit))
        .chain(restricts_clients(tree, listener).then(restriction))
        .chain((!listener.trusted_proxies.is_empty()).then(trust))
        .chain(of_any(|pool| pool.protocol.has_header()).map(header))
        .chain(of_any(|pool| pool.algorithm.needs_proxy()).map(by_algorithm))
        .chain(of_any(Pool::waits_for_connections).map(|_| deadline()))
        .chain(of_any(|pool| pool.slow_start_ms.is_some()).map(|_| slow_start()))
        .chain(of_any(|pool| pool.passive_health_check.is_some()).map(|_| passive_health()))
        .chain(ovn_difference(&pools).map(difference))
        .chain(bounds_backends(tree, listener).map(bound))
        .chain(translation(tree, listener).map(translated))
        .chain(direct_neighbour(tree, listener).map(neighbour))
        .chain(pools.iter().flat_map(|pool| by_release(tree, listener, pool, capabilities)))
        .collect()
}

/// Setting in which OVN cannot keep some of these pools apart, in words.
fn ovn_difference(pools: &[&Pool]) -> Option<&'static str> {
    let (first, others) = pools.split_first()?;
    others.iter().find_map(|other| first.ovn_difference(other)).map(|(_, words)| words)
}

/// Nodes that serve a protocol.
fn by_protocol(protocol: ListenerProtocol) -> Proxies {
    match protocol {
        // HTTPS is passed through: a byte stream as any other.
        ListenerProtocol::Tcp | ListenerProtocol::Https => Proxies::With(NodeFeature::TCP),
        ListenerProtocol::Udp => Proxies::With(NodeFeature::UDP),
        ListenerProtocol::Sctp => Proxies::None,
    }
}

/// Nodes that connect to the backends of a pool of a protocol.
fn by_pool_protocol(protocol: PoolProtocol) -> Proxies {
    if protocol.has_header() { Proxies::With(NodeFeature::PROXY_PROTOCOL) } else { Proxies::All }
}

/// Nodes that enforce a limit.
fn by_limit(limit: ProxyLimit) -> Proxies {
    match limit {
        ProxyLimit::ClientConnections | ProxyLimit::ConnectionRate | ProxyLimit::ClientConnectionRate => {
            Proxies::With(NodeFeature::CLIENT_LIMITS)
        }
        ProxyLimit::Bandwidth => Proxies::With(NodeFeature::BANDWIDTH),
        ProxyLimit::HalfClose => Proxies::With(NodeFeature::HALF_CLOSE),
        ProxyLimit::Connections
        | ProxyLimit::ClientData
        | ProxyLimit::BackendConnect
        | ProxyLimit::BackendData => Proxies::All,
    }
}

/// DIRECT exposure of another listener on the same VIP, which takes this one with it, in words.
fn direct_neighbour(tree: &Tree, listener: &Listener) -> Option<String> {
    let other = listeners(tree).find(|other| other.spec.exposure == Exposure::Direct)?;
    (listener.exposure != Exposure::Direct)
        .then(|| format!("the DIRECT exposure of {} on the same VIP", tree.called(Kind::Listener, other.id)))
}

/// Requirements of a pool that only some releases of OVN meet.
fn by_release(
    tree: &Tree,
    listener: &Listener,
    pool: &Pool,
    capabilities: &Capabilities,
) -> impl Iterator<Item = Requirement> + use<> {
    let field = listener.pool_field();
    let has_v6 = tree.load_balancer.spec.vips.iter().any(IpAddr::is_ipv6);
    let is_hashed = pool.algorithm == Algorithm::SourceIp;
    let cuts = pool.drain_timeout_ms == Some(0);
    let rows = [
        (
            is_hashed && has_v6,
            capabilities.ipv6_selection,
            "SOURCE_IP on an IPv6 VIP needs OVN 25.03 or later",
            Proxies::All,
        ),
        (
            is_hashed,
            capabilities.selection_fields,
            "a source IP algorithm needs OVN 20.03 or later",
            Proxies::All,
        ),
        (
            pool.persistence.is_some(),
            capabilities.affinity,
            "SOURCE_IP session persistence needs OVN 22.12 or later",
            Proxies::All,
        ),
        (
            cuts,
            capabilities.flush,
            "a drain timeout of 0 s needs OVN 23.03.1 or later",
            Proxies::With(NodeFeature::DRAIN_TIMEOUT),
        ),
    ];
    let row = |has, what: &'static str, proxies| Requirement {
        field,
        words: what.into(),
        ovn: if has { Ovn::Always } else { Ovn::Lacks(what) },
        proxies,
    };
    rows.into_iter().filter(|(asks, ..)| *asks).map(move |(_, has, what, proxies)| row(has, what, proxies))
}

fn listeners(tree: &Tree) -> impl Iterator<Item = &Record<Listener>> {
    tree.listeners.values().map(AsRef::as_ref).filter(|listener| !listener.deleting)
}

#[cfg(test)]
mod tests;
