//! What nodes and listeners must still be given, and what is not needed any more. Pure; the controller writes it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

use fiberlb_ovn::plan;
use ipnetwork::IpNetwork;
use uuid::Uuid;

use super::records::{FleetKey, PortRecord, ProxyPortRecord, absent, address_guard, put, take_address};
use super::state::State;
use crate::datapath::Carrier;
use crate::store::{Transaction, Write};

/// Ports that proxies listen on. Below the kernel's range for outgoing connections (32768 and up), so that no connection
/// to a backend takes one.
pub(super) const PROXY_PORTS: std::ops::RangeInclusive<u16> = 10_000..=29_999;
/// Most listeners that one transaction gives ports to.
const MOST: usize = 40;

/// Why something cannot be given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AllocationError {
    /// Nothing says which addresses the network has.
    #[error(
        "the proxy nodes need an address on the network and its subnet is not known: set other_config:subnet of the logical \
         switch, or attach a router"
    )]
    NoSubnet,
    /// All addresses are taken.
    #[error("the proxy nodes need an address on the network and its subnet {0} has none left")]
    Exhausted(IpNetwork),
    /// All proxy ports are taken.
    #[error("all proxy ports of the network are taken: it has too many listeners that proxies carry")]
    NoPort,
    /// A record cannot be written.
    #[error("a record cannot be encoded: {0}")]
    Encoding(String),
}

/// What a network is, as far as addresses go.
pub(super) struct Space<'a> {
    /// Its subnets, at most one of each family.
    pub subnets: Vec<IpNetwork>,
    /// Whether somebody else has an address.
    pub taken: &'a dyn Fn(IpAddr) -> bool,
}

/// The next transaction on the way to what a network's nodes and listeners need. Empty: they have all of it.
///
/// # Errors
/// [`AllocationError`]; by then everything that is not needed any more was given back.
pub(super) fn next(
    state: &State,
    network: Uuid,
    space: &Space<'_>,
    now: Instant,
) -> Result<Transaction, AllocationError> {
    let mut transaction = Transaction::default();
    give_back_ports(state, network, now, &mut transaction);
    give_back_proxy_ports(state, network, &mut transaction);
    if !transaction.writes.is_empty() {
        // What is given back may be all that there is to give.
        return Ok(transaction);
    }
    give_ports(state, network, space, now, &mut transaction)?;
    give_proxy_ports(state, network, &mut transaction)?;
    Ok(transaction)
}

fn wanted_nodes(state: &State, network: Uuid, now: Instant) -> Vec<&str> {
    if state.demands.has(network) { state.placed(network, now) } else { Vec::new() }
}

fn give_back_ports(state: &State, network: Uuid, now: Instant, transaction: &mut Transaction) {
    let wanted = wanted_nodes(state, network, now);
    for (node, port) in state.given.ports(network).filter(|(node, _)| !wanted.contains(node)) {
        let key = FleetKey::Port(network, node.to_owned()).to_string();
        transaction.writes.push(Write::Delete { key });
        transaction
            .writes
            .extend(port.hosts().map(|host| Write::Delete { key: address_guard(network, host) }));
    }
}

fn give_ports(
    state: &State,
    network: Uuid,
    space: &Space<'_>,
    now: Instant,
    transaction: &mut Transaction,
) -> Result<(), AllocationError> {
    let mut given: BTreeSet<IpAddr> = BTreeSet::new();
    for node in wanted_nodes(state, network, now) {
        if state.given.port(network, node).is_some() {
            continue;
        }
        if space.subnets.is_empty() {
            return Err(AllocationError::NoSubnet);
        }
        let mut addresses = Vec::new();
        for subnet in &space.subnets {
            let is_taken =
                |host| given.contains(&host) || state.given.has_address(network, host) || (space.taken)(host);
            let host = plan::free_address(*subnet, is_taken).ok_or(AllocationError::Exhausted(*subnet))?;
            given.insert(host);
            addresses.extend(IpNetwork::new(host, subnet.prefix()));
            transaction.compares.push(absent(address_guard(network, host)));
            transaction.writes.push(take_address(network, host, node));
        }
        let key = FleetKey::Port(network, node.to_owned());
        transaction.compares.push(absent(key.to_string()));
        transaction.writes.push(record(&key, &PortRecord::new(addresses))?);
    }
    Ok(())
}

/// The listeners on a network that proxies carry behind an OVN row, with their load balancers.
fn proxied(state: &State, network: Uuid) -> impl Iterator<Item = (Uuid, Uuid)> + '_ {
    state.demands.on(network).flat_map(|tree| {
        let listeners = state.demands.of(tree).into_iter().flat_map(|demand| &demand.proxied);
        listeners.filter(|(_, carrier)| **carrier == Carrier::Proxy).map(move |(id, _)| (*id, tree))
    })
}

fn give_back_proxy_ports(state: &State, network: Uuid, transaction: &mut Transaction) {
    let wanted: BTreeSet<Uuid> = proxied(state, network).map(|(listener, _)| listener).collect();
    // A write of which nobody knew whether it was done may have given a listener a second one.
    let in_use =
        |listener: Uuid, port| wanted.contains(&listener) && state.given.proxy_port(listener) == Some(port);
    let stale = state.given.proxy_ports(network).filter(|(listener, port)| !in_use(*listener, *port));
    let delete = |(_, port)| Write::Delete { key: FleetKey::ProxyPort(network, port).to_string() };
    transaction.writes.extend(stale.take(MOST).map(delete));
}

fn give_proxy_ports(
    state: &State,
    network: Uuid,
    transaction: &mut Transaction,
) -> Result<(), AllocationError> {
    let missing: Vec<_> = proxied(state, network)
        .filter(|(listener, _)| state.given.proxy_port(*listener).is_none())
        .take(MOST)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let taken: BTreeSet<u16> = state.given.proxy_ports(network).map(|(_, port)| port).collect();
    let mut free = free_ports(&taken);
    for (listener, load_balancer) in missing {
        let port = free.next().ok_or(AllocationError::NoPort)?;
        let key = FleetKey::ProxyPort(network, port);
        transaction.compares.push(absent(key.to_string()));
        transaction.writes.push(record(&key, &ProxyPortRecord::new(load_balancer, listener))?);
    }
    Ok(())
}

/// Free ports, those above all that are taken first: a port that was given back rests for as long as there are others.
fn free_ports(taken: &BTreeSet<u16>) -> impl Iterator<Item = u16> + '_ {
    let above = taken.last().map_or(*PROXY_PORTS.start(), |last| last.saturating_add(1));
    let upper = above..=*PROXY_PORTS.end();
    let lower = *PROXY_PORTS.start()..above.min(*PROXY_PORTS.end());
    upper.chain(lower).filter(|port| !taken.contains(port))
}

fn record<T: serde::Serialize>(key: &FleetKey, record: &T) -> Result<Write, AllocationError> {
    put(key, record).map_err(|error| AllocationError::Encoding(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::super::demand::Demand;
    use super::super::examples;
    use super::super::records::NodeRecord;
    use super::super::state::Rules;
    use super::*;

    const NETWORK: Uuid = Uuid::from_u128(7);

    fn state(nodes: &[&str], listeners: u128) -> State {
        let rules = Rules { nodes_per_network: 2, move_after: Duration::from_secs(60) };
        let mut state = State::new(rules, Instant::now());
        for node in nodes {
            join(&mut state, node);
        }
        let proxied: BTreeMap<Uuid, Carrier> =
            (0..listeners).map(|number| (Uuid::from_u128(100 + number), Carrier::Proxy)).collect();
        if listeners > 0 {
            state.demands.set(Uuid::from_u128(1), Some(Demand { network: NETWORK, proxied, checked: false }));
        }
        state
    }

    fn apply(state: &mut State, transaction: &Transaction) {
        for write in &transaction.writes {
            let Some(key) = FleetKey::parse(write.key()) else { continue };
            let value = match write {
                Write::Put { value, .. } => Some(value.as_slice()),
                Write::Delete { .. } => None,
            };
            state.apply(&key, value);
        }
    }

    fn join(state: &mut State, node: &str) {
        let record = serde_json::to_vec(&NodeRecord::new(node, "", "", "", 0)).unwrap();
        state.apply(&FleetKey::Node(node.to_owned()), Some(&record));
        state.joined(&examples::hello(node), 1, Instant::now());
    }

    fn settle(state: &mut State) -> Result<(), AllocationError> {
        settle_in(state, &Space { subnets: vec!["10.0.0.0/24".parse().unwrap()], taken: &|_| false })
    }

    fn settle_in(state: &mut State, space: &Space<'_>) -> Result<(), AllocationError> {
        for _ in 0..10 {
            let transaction = next(state, NETWORK, space, Instant::now())?;
            if transaction.writes.is_empty() {
                return Ok(());
            }
            apply(state, &transaction);
        }
        panic!("it does not come to an end");
    }

    #[test]
    fn nodes_get_addresses_and_listeners_ports_until_nothing_is_missing() {
        let mut state = state(&["a", "b", "c"], 50);
        settle(&mut state).unwrap();
        assert_eq!(state.given.ports(NETWORK).count(), 2);
        let ports: BTreeSet<u16> = state.given.proxy_ports(NETWORK).map(|(_, port)| port).collect();
        assert_eq!(ports.len(), 50);
        assert!(ports.iter().all(|port| PROXY_PORTS.contains(port)));
    }

    #[test]
    fn what_nobody_asks_for_any_more_is_given_back() {
        let mut state = state(&["a", "b"], 3);
        settle(&mut state).unwrap();
        state.demands.set(Uuid::from_u128(1), None);
        settle(&mut state).unwrap();
        assert_eq!(state.given.ports(NETWORK).count(), 0);
        assert_eq!(state.given.proxy_ports(NETWORK).count(), 0);
    }

    #[test]
    fn what_cannot_be_given_is_said() {
        let state = state(&["a", "b"], 1);
        let none = Space { subnets: Vec::new(), taken: &|_| false };
        assert_eq!(next(&state, NETWORK, &none, Instant::now()), Err(AllocationError::NoSubnet));
        let subnet: IpNetwork = "10.0.0.0/29".parse().unwrap();
        let full = Space { subnets: vec![subnet], taken: &|_| true };
        assert_eq!(next(&state, NETWORK, &full, Instant::now()), Err(AllocationError::Exhausted(subnet)));
    }

    #[test]
    fn the_address_of_a_node_that_is_gone_is_given_to_the_one_that_takes_its_place() {
        let mut state = state(&["a", "b"], 1);
        let subnet: IpNetwork = "10.0.0.0/29".parse().unwrap();
        // Room for two nodes.
        let others = ["10.0.0.4", "10.0.0.3", "10.0.0.2"].map(|host| host.parse::<IpAddr>().unwrap());
        let space = Space { subnets: vec![subnet], taken: &|host| others.contains(&host) };
        settle_in(&mut state, &space).unwrap();
        state.apply(&FleetKey::Node("a".to_owned()), None);
        join(&mut state, "c");
        settle_in(&mut state, &space).unwrap();
        assert!(state.given.port(NETWORK, "c").is_some());
    }

    #[test]
    fn a_listener_that_got_two_ports_gives_one_back() {
        let mut state = state(&["a"], 1);
        settle(&mut state).unwrap();
        let port = state.given.proxy_port(Uuid::from_u128(100)).unwrap();
        let record = ProxyPortRecord::new(Uuid::from_u128(1), Uuid::from_u128(100));
        let twice = serde_json::to_vec(&record).unwrap();
        state.apply(&FleetKey::ProxyPort(NETWORK, port + 1), Some(&twice));
        settle(&mut state).unwrap();
        assert_eq!(state.given.proxy_ports(NETWORK).count(), 1);
        assert!(state.given.proxy_port(Uuid::from_u128(100)).is_some());
    }

    #[test]
    fn a_port_that_was_given_back_rests() {
        let taken = BTreeSet::from([10_000, 10_005]);
        assert_eq!(free_ports(&taken).next(), Some(10_006));
        let last = BTreeSet::from([29_999]);
        assert_eq!(free_ports(&last).next(), Some(10_000));
        let all: BTreeSet<u16> = PROXY_PORTS.collect();
        assert_eq!(free_ports(&all).next(), None);
    }
}
