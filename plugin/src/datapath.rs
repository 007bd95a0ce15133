//! Carrier of a listener's traffic: OVN itself, or proxies, and the way in which clients reach these. Pure.

use std::borrow::Cow;
use std::net::IpAddr;

use fiberlb_northbound::plan::Capabilities;
use serde::{Deserialize, Serialize};

use crate::resources::{Algorithm, Datapath, Exposure, Listener, Pool, Record, Transport, Tree};

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

/// Decides on the carrier of one listener of a tree.
///
/// # Errors
/// Its settings conflict with one another, or the connected OVN lacks a feature.
pub fn decide(tree: &Tree, listener: &Listener, capabilities: &Capabilities) -> Result<Decision, Conflict> {
    let pool = pool_of(tree, listener);
    let requirement = proxy_requirement(listener, pool).or_else(|| follows_direct(tree, listener));
    let lack = lacking(tree, listener, pool, capabilities);
    let transport = listener.protocol.transport();
    match (listener.datapath, requirement, lack) {
        (Datapath::Ovn, Some((field, why)), _) => {
            Err(Conflict { field, reason: format!("{why} needs the proxy, and datapath is OVN") })
        }
        (_, Some((field, why)), _) if transport != Transport::Tcp => {
            Err(Conflict { field, reason: format!("{why} needs the proxy, which carries TCP alone") })
        }
        (Datapath::Proxy, _, _) if transport != Transport::Tcp => {
            Err(Conflict { field: "datapath", reason: "the proxy carries TCP alone".to_owned() })
        }
        (Datapath::Ovn, None, Some(lack)) => Err(Conflict { field: "datapath", reason: lack }),
        (Datapath::Auto, None, Some(lack)) if transport != Transport::Tcp => {
            Err(Conflict { field: "datapath", reason: lack })
        }
        (Datapath::Proxy, None, _) => Ok(proxied(tree, "it is asked for".to_owned())),
        (_, Some((_, why)), _) => Ok(proxied(tree, format!("{why} needs it"))),
        (Datapath::Auto, None, Some(lack)) => Ok(proxied(tree, lack)),
        (Datapath::Auto | Datapath::Ovn, None, None) => Ok(Decision::OVN),
    }
}

fn proxied(tree: &Tree, reason: String) -> Decision {
    let carrier = if is_direct(tree) { Carrier::Direct } else { Carrier::Proxy };
    Decision { carrier, reason: reason.into() }
}

/// Setting of a listener or its pool that only a proxy can provide: the field, and in words.
fn proxy_requirement(listener: &Listener, pool: Option<&Pool>) -> Option<(&'static str, String)> {
    let direct = (listener.exposure == Exposure::Direct).then_some(("exposure", "DIRECT exposure"));
    let least = pool
        .is_some_and(|pool| pool.algorithm == Algorithm::LeastConnections)
        .then_some(("default_pool_id", "the pool's algorithm LEAST_CONNECTIONS"));
    let found = direct.or_else(|| listener.limits.first_set()).or(least);
    found.map(|(field, words)| (field, words.to_owned()))
}

fn follows_direct(tree: &Tree, listener: &Listener) -> Option<(&'static str, String)> {
    let other = listeners(tree).find(|other| other.spec.exposure == Exposure::Direct)?;
    (listener.exposure != Exposure::Direct)
        .then(|| ("exposure", format!("the DIRECT exposure of listener {} on the same VIP", other.id)))
}

/// Feature for a listener that the connected OVN lacks.
fn lacking(
    tree: &Tree,
    listener: &Listener,
    pool: Option<&Pool>,
    capabilities: &Capabilities,
) -> Option<String> {
    let pool = pool?;
    let has_v6 = tree.load_balancer.spec.vips.iter().any(IpAddr::is_ipv6);
    let lacks = [
        (
            pool.algorithm == Algorithm::SourceIp && has_v6 && !capabilities.ipv6_selection,
            "SOURCE_IP on an IPv6 VIP needs OVN 25.03 or later",
        ),
        (
            pool.algorithm == Algorithm::SourceIp && !capabilities.selection_fields,
            "a source IP algorithm needs OVN 20.03 or later",
        ),
        (
            pool.persistence.is_some() && !capabilities.affinity,
            "SOURCE_IP session persistence needs OVN 22.12 or later",
        ),
    ];
    let found = lacks.into_iter().find(|(lacks, _)| *lacks);
    let by = if listener.datapath == Datapath::Auto { "; proxies can" } else { "" };
    found.map(|(_, what)| format!("{what}; the connected northbound database does not have it{by}"))
}

fn pool_of<'a>(tree: &'a Tree, listener: &Listener) -> Option<&'a Pool> {
    let pool = tree.pools.get(&listener.default_pool_id?)?;
    (!pool.deleting).then_some(&pool.spec)
}

fn listeners(tree: &Tree) -> impl Iterator<Item = &Record<Listener>> {
    tree.listeners.values().map(AsRef::as_ref).filter(|listener| !listener.deleting)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::examples::{LISTENER, POOL, change, listener, put, tree};
    use crate::resources::{ListenerProtocol, ProxyLimits};

    const OTHER: uuid::Uuid = uuid::Uuid::from_u128(33);

    fn decided(tree: &Tree, capabilities: &Capabilities) -> Result<Carrier, &'static str> {
        let decision = decide(tree, &tree.listeners[&LISTENER].spec, capabilities);
        decision.map(|decision| decision.carrier).map_err(|conflict| conflict.field)
    }

    fn with(edit: impl FnOnce(&mut Listener)) -> Tree {
        let mut tree = tree();
        change(&mut tree, LISTENER, edit);
        tree
    }

    #[test]
    fn only_what_a_tenant_has_set_asks_for_the_proxy() {
        let all = Capabilities::ALL;
        assert_eq!(decided(&tree(), &all), Ok(Carrier::Ovn));
        let https = with(|listener| listener.protocol = ListenerProtocol::Https);
        assert_eq!(decided(&https, &all), Ok(Carrier::Ovn));
        let limits = ProxyLimits { connections: Some(10), ..ProxyLimits::default() };
        assert_eq!(decided(&with(|listener| listener.limits = limits), &all), Ok(Carrier::Proxy));
        assert_eq!(decided(&with(|listener| listener.datapath = Datapath::Proxy), &all), Ok(Carrier::Proxy));
        let mut least = tree();
        change::<Pool>(&mut least, POOL, |pool| pool.algorithm = Algorithm::LeastConnections);
        assert_eq!(decided(&least, &all), Ok(Carrier::Proxy));
    }

    #[test]
    fn what_cannot_be_had_together_names_the_field() {
        let all = Capabilities::ALL;
        let limits = ProxyLimits { client_data_ms: Some(1), ..ProxyLimits::default() };
        let ovn = with(|listener| (listener.datapath, listener.limits) = (Datapath::Ovn, limits));
        assert_eq!(decided(&ovn, &all), Err("client_data_timeout"));
        let udp = with(|listener| {
            (listener.protocol, listener.datapath) = (ListenerProtocol::Udp, Datapath::Proxy);
        });
        assert_eq!(decided(&udp, &all), Err("datapath"));
        let direct = with(|listener| {
            (listener.protocol, listener.exposure) = (ListenerProtocol::Udp, Exposure::Direct);
        });
        assert_eq!(decided(&direct, &all), Err("exposure"));
    }

    #[test]
    fn what_the_connected_ovn_lacks_goes_through_the_proxy_unless_ovn_is_asked_for() {
        let old = Capabilities { affinity: false, ..Capabilities::ALL };
        let mut sticky = tree();
        change::<Pool>(&mut sticky, POOL, |pool| {
            pool.persistence = Some(crate::resources::Persistence::SourceIp { timeout_s: 60 });
        });
        assert_eq!(decided(&sticky, &Capabilities::ALL), Ok(Carrier::Ovn));
        assert_eq!(decided(&sticky, &old), Ok(Carrier::Proxy));
        change::<Listener>(&mut sticky, LISTENER, |listener| listener.datapath = Datapath::Ovn);
        assert_eq!(decided(&sticky, &old), Err("datapath"));
    }

    #[test]
    fn one_direct_listener_takes_all_of_its_vip_with_it() {
        let mut tree = tree();
        put(&mut tree, OTHER, Listener { port: 81, exposure: Exposure::Direct, ..listener() });
        assert!(is_direct(&tree));
        assert_eq!(decided(&tree, &Capabilities::ALL), Ok(Carrier::Direct));
        change::<Listener>(&mut tree, LISTENER, |listener| listener.datapath = Datapath::Ovn);
        assert_eq!(decided(&tree, &Capabilities::ALL), Err("exposure"));
    }
}
