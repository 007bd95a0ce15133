//! Next allocations and releases for nodes and listeners. Pure; the controller writes them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Range;
use std::time::Instant;

use fiberlb_northbound::plan;
use ipnetwork::IpNetwork;
use uuid::Uuid;

use super::moves::Fate;
use crate::fleet::directory::records::{
    FleetKey, PortRecord, ProxyPortRecord, absent, address_guard, put, reserve_address, unchanged,
};
use crate::fleet::state::{FleetState, Now};
use fiberlb_store::{Transaction, Write};

/// Ports that proxies listen on. Below the kernel's range for outgoing connections (32768 and up), so that no
/// connection to a backend takes one.
pub(in crate::fleet) const PROXY_PORTS: std::ops::RangeInclusive<u16> = 10_000..=29_999;
/// Free addresses of a subnet that further ones of nodes leave alone: for VIPs, and for nodes that come.
const RESERVE: usize = 8;
/// Most proxy ports that one transaction allocates or releases: as many as a range has.
const MOST: usize = 100;

/// Reason why an allocation fails.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::fleet) enum AllocationError {
    /// The subnet of the network is unknown.
    #[error(
        "the proxy nodes need an address on the network and its subnet is not known: set other_config:subnet of the logical \
         switch, or attach a router"
    )]
    NoSubnet,
    /// All addresses are in use.
    #[error("the proxy nodes need an address on the network and its subnet {0} has none left")]
    Exhausted(IpNetwork),
    /// All proxy ports are in use, or not enough of them in a row are free.
    #[error(
        "no proxy ports of the network are free, or too few in a row: it has too many listeners that proxies carry"
    )]
    NoPort,
    /// A record cannot be written.
    #[error("a record cannot be encoded: {0}")]
    Encoding(String),
}

/// Address space of a network.
pub(in crate::fleet) struct Space<'a> {
    /// Its subnets, at most one of each family.
    subnets: Vec<IpNetwork>,
    /// Checks whether an address is in use outside of the fleet.
    taken: &'a dyn Fn(IpAddr) -> bool,
}

impl<'a> Space<'a> {
    /// A network with these subnets, of which the first of each family counts.
    pub(in crate::fleet) fn new(subnets: &[IpNetwork], taken: &'a dyn Fn(IpAddr) -> bool) -> Self {
        let first = |family: fn(&IpNetwork) -> bool| subnets.iter().copied().find(family);
        let subnets = [first(IpNetwork::is_ipv4), first(IpNetwork::is_ipv6)];
        Self { subnets: subnets.into_iter().flatten().collect(), taken }
    }
}

/// Next transaction towards the allocations that a network needs. Empty: all are there.
///
/// # Errors
/// [`AllocationError`]; by then every possible allocation and all releases were made.
pub(in crate::fleet) fn next(
    state: &FleetState,
    network: Uuid,
    space: &Space<'_>,
    now: Now,
) -> Result<Transaction, AllocationError> {
    let mut transaction = Transaction::default();
    move_ports(state, network, now, &mut transaction)?;
    release_proxy_ports(state, network, &mut transaction);
    if !transaction.writes.is_empty() {
        // The released addresses may be the only free ones.
        return Ok(transaction);
    }
    allocate_missing_families(state, network, space, now.at, &mut transaction)?;
    if !transaction.writes.is_empty() {
        // Addresses count as taken once they are stored.
        return Ok(transaction);
    }
    let given = allocate_ports(state, network, space, now.at, &mut transaction);
    if let Err(AllocationError::Exhausted(subnet)) = &given {
        release_source(state, network, |port| port.last_source_in(subnet), &mut transaction)?;
    }
    let given = match transaction.writes.is_empty() {
        true => given.and(allocate_proxy_ports(state, network, &mut transaction)),
        false => given,
    };
    if transaction.writes.is_empty() {
        // Last of all: whatever else needs an address has one by now.
        allocate_sources(state, network, space, now.at, &mut transaction)?;
        release_source(
            state,
            network,
            |port| surplus(port, space, state.rules.source_addresses),
            &mut transaction,
        )?;
    }
    if transaction.writes.is_empty() { given.map(|()| transaction) } else { Ok(transaction) }
}

/// Starts draining ports whose successors serve, and releases those that are no longer needed.
fn move_ports(
    state: &FleetState,
    network: Uuid,
    now: Now,
    transaction: &mut Transaction,
) -> Result<(), AllocationError> {
    for (node, port, fate) in state.fates(network, now) {
        let key = FleetKey::Port(network, node.to_owned());
        let write = match fate {
            Fate::Stays | Fate::Waits(_) => continue,
            Fate::Drains => record(&key, &port.draining(now.ms, state.clock.ms(now.at)))?,
            Fate::Returns => record(&key, &port.serving())?,
            Fate::Goes => Write::Delete { key: key.to_string() },
        };
        // Another plugin may have written it meanwhile.
        transaction.compares.push(unchanged(&key, state.allocations.revision(network, node)));
        transaction.writes.push(write);
        if fate == Fate::Goes {
            let guards = port.all_hosts().map(|host| Write::Delete { key: address_guard(network, host) });
            transaction.writes.extend(guards);
        }
    }
    Ok(())
}

/// Allocates a port to each node that needs one, as long as there are addresses.
fn allocate_ports(
    state: &FleetState,
    network: Uuid,
    space: &Space<'_>,
    now: Instant,
    transaction: &mut Transaction,
) -> Result<(), AllocationError> {
    let mut given: BTreeSet<IpAddr> = BTreeSet::new();
    let lacking = |node: &&str| state.allocations.port(network, node).is_none();
    for node in state.wanted(network, now).into_iter().filter(lacking) {
        let addresses = free_addresses(state, network, space, &given)?;
        given.extend(addresses.iter().map(IpNetwork::ip));
        let key = FleetKey::Port(network, node.to_owned());
        let port = record(&key, &PortRecord::new(addresses.clone()))?;
        reserve_addresses(network, node, &addresses, transaction);
        transaction.compares.push(absent(key.to_string()));
        transaction.writes.push(port);
    }
    Ok(())
}

/// Adds addresses of a family that the network gained after its nodes were allocated theirs. Nodes go on
/// without one if none is free.
fn allocate_missing_families(
    state: &FleetState,
    network: Uuid,
    space: &Space<'_>,
    now: Instant,
    transaction: &mut Transaction,
) -> Result<(), AllocationError> {
    let mut given: BTreeSet<IpAddr> = BTreeSet::new();
    for node in state.wanted(network, now) {
        let Some(port) = state.allocations.port(network, node) else { continue };
        let missing = space.subnets.iter().filter(|subnet| port.lacks_family_of(subnet));
        let found = missing.filter_map(|subnet| free_address(state, network, *subnet, space, &given).ok());
        let addresses: Vec<IpNetwork> = found.collect();
        if addresses.is_empty() {
            continue;
        }
        given.extend(addresses.iter().map(IpNetwork::ip));
        reserve_addresses(network, node, &addresses, transaction);
        change_port(state, network, node, &port.with(addresses), transaction)?;
    }
    Ok(())
}

/// Allocates one further address to each node that has fewer than it should, while [`RESERVE`] are left.
fn allocate_sources(
    state: &FleetState,
    network: Uuid,
    space: &Space<'_>,
    now: Instant,
    transaction: &mut Transaction,
) -> Result<(), AllocationError> {
    let mut given: BTreeSet<IpAddr> = BTreeSet::new();
    for node in state.wanted(network, now) {
        let Some(port) = state.allocations.port(network, node) else { continue };
        let mut lacking = space.subnets.iter().filter(|subnet| {
            !port.lacks_family_of(subnet) && port.sources_in(subnet) < state.rules.source_addresses
        });
        let source = lacking.find_map(|subnet| spare_address(state, network, *subnet, space, &given));
        let Some(source) = source else { continue };
        given.insert(source.ip());
        reserve_addresses(network, node, &[source], transaction);
        change_port(state, network, node, &port.with_source(source), transaction)?;
    }
    Ok(())
}

/// A free address of a network that has more than [`RESERVE`].
fn spare_address(
    state: &FleetState,
    network: Uuid,
    subnet: IpNetwork,
    space: &Space<'_>,
    given: &BTreeSet<IpAddr>,
) -> Option<IpNetwork> {
    let mut found = given.clone();
    for _ in 0..RESERVE {
        found.insert(free_address(state, network, subnet, space, &found).ok()?.ip());
    }
    free_address(state, network, subnet, space, &found).ok()
}

/// A further address that a port has above the number of addresses that nodes should have.
fn surplus(port: &PortRecord, space: &Space<'_>, wanted: usize) -> Option<IpNetwork> {
    let mut subnets = space.subnets.iter().filter(|subnet| port.sources_in(subnet) > wanted);
    subnets.find_map(|subnet| port.last_source_in(subnet))
}

/// Releases one further address of each node for which `chosen` has one.
fn release_source(
    state: &FleetState,
    network: Uuid,
    chosen: impl Fn(&PortRecord) -> Option<IpNetwork>,
    transaction: &mut Transaction,
) -> Result<(), AllocationError> {
    for (node, port) in state.allocations.ports(network) {
        let Some(source) = chosen(port) else { continue };
        let key = FleetKey::Port(network, node.to_owned());
        let is_written = transaction.writes.iter().any(|write| write.key() == key.to_string());
        if is_written {
            continue;
        }
        change_port(state, network, node, &port.without_source(source), transaction)?;
        transaction.writes.push(Write::Delete { key: address_guard(network, source.ip()) });
    }
    Ok(())
}

/// Replaces the record of a port, on condition that nobody else has.
fn change_port(
    state: &FleetState,
    network: Uuid,
    node: &str,
    port: &PortRecord,
    transaction: &mut Transaction,
) -> Result<(), AllocationError> {
    let key = FleetKey::Port(network, node.to_owned());
    transaction.compares.push(unchanged(&key, state.allocations.revision(network, node)));
    transaction.writes.push(record(&key, port)?);
    Ok(())
}

/// Reserves addresses for a node, on condition that nobody else has them.
fn reserve_addresses(network: Uuid, node: &str, addresses: &[IpNetwork], transaction: &mut Transaction) {
    for host in addresses.iter().map(IpNetwork::ip) {
        transaction.compares.push(absent(address_guard(network, host)));
        transaction.writes.push(reserve_address(network, host, node));
    }
}

/// A free address of each family; those in `given` are taken.
fn free_addresses(
    state: &FleetState,
    network: Uuid,
    space: &Space<'_>,
    given: &BTreeSet<IpAddr>,
) -> Result<Vec<IpNetwork>, AllocationError> {
    if space.subnets.is_empty() {
        return Err(AllocationError::NoSubnet);
    }
    space.subnets.iter().map(|subnet| free_address(state, network, *subnet, space, given)).collect()
}

fn free_address(
    state: &FleetState,
    network: Uuid,
    subnet: IpNetwork,
    space: &Space<'_>,
    given: &BTreeSet<IpAddr>,
) -> Result<IpNetwork, AllocationError> {
    let is_taken =
        |host| given.contains(&host) || state.allocations.has_address(network, host) || (space.taken)(host);
    let host = plan::free_address(subnet, is_taken);
    let address = host.and_then(|host| IpNetwork::new(host, subnet.prefix()).ok());
    address.ok_or(AllocationError::Exhausted(subnet))
}

/// The listeners on a network that proxies carry behind an OVN row, with their load balancers and the numbers of their ports.
fn proxied(state: &FleetState, network: Uuid) -> impl Iterator<Item = (Uuid, Uuid, u16)> + '_ {
    state.demands.on(network).flat_map(|tree| {
        let listeners = state.demands.of(tree).into_iter().flat_map(|demand| &demand.proxied);
        let behind_ovn = listeners.filter(|(_, listener)| listener.is_behind_ovn);
        behind_ovn.map(move |(id, listener)| (*id, tree, listener.ports))
    })
}

fn release_proxy_ports(state: &FleetState, network: Uuid, transaction: &mut Transaction) {
    let block = |(listener, _, ports)| {
        let first = state.allocations.proxy_block(network, listener, ports)?;
        Some((listener, first..first.saturating_add(ports)))
    };
    let blocks: BTreeMap<Uuid, Range<u16>> = proxied(state, network).filter_map(block).collect();
    // A write with unknown outcome may have allocated a second port to a listener.
    let in_use = |listener: Uuid, port| blocks.get(&listener).is_some_and(|block| block.contains(&port));
    let stale = state.allocations.proxy_ports(network).filter(|(listener, port)| !in_use(*listener, *port));
    let delete = |(_, port)| Write::Delete { key: FleetKey::ProxyPort(network, port).to_string() };
    transaction.writes.extend(stale.take(MOST).map(delete));
}

fn allocate_proxy_ports(
    state: &FleetState,
    network: Uuid,
    transaction: &mut Transaction,
) -> Result<(), AllocationError> {
    let has_none = |(listener, _, _): &(Uuid, Uuid, u16)| state.allocations.proxy_port(*listener).is_none();
    let mut missing = proxied(state, network).filter(has_none).peekable();
    if missing.peek().is_none() {
        return Ok(());
    }
    let mut taken: BTreeSet<u16> = state.allocations.proxy_ports(network).map(|(_, port)| port).collect();
    let (mut room, mut too_many) = (MOST, None);
    for (listener, load_balancer, ports) in missing {
        if too_many.is_some_and(|many| ports >= many) {
            continue;
        }
        let Some(left) = room.checked_sub(ports.into()) else { break };
        let Some(first) = free_block(&taken, ports) else {
            // Shorter ranges, which may be others', still find a gap.
            too_many = Some(ports);
            continue;
        };
        for offset in 0..ports {
            let port = first.saturating_add(offset);
            let key = FleetKey::ProxyPort(network, port);
            transaction.compares.push(absent(key.to_string()));
            let allocated = ProxyPortRecord::new(load_balancer, listener, offset);
            transaction.writes.push(record(&key, &allocated)?);
            taken.insert(port);
        }
        room = left;
    }
    if too_many.is_some() { Err(AllocationError::NoPort) } else { Ok(()) }
}

/// First one of so many free ports in a row, those above all allocated ones before the others: a released port is reused as late as
/// possible.
fn free_block(taken: &BTreeSet<u16>, ports: u16) -> Option<u16> {
    let above = taken.last().map_or(*PROXY_PORTS.start(), |last| last.saturating_add(1));
    let upper = above..=*PROXY_PORTS.end();
    if upper.len() >= usize::from(ports) {
        return Some(above);
    }
    let mut begin = *PROXY_PORTS.start();
    for port in PROXY_PORTS {
        if taken.contains(&port) {
            begin = port.saturating_add(1);
        } else if port - begin + 1 == ports {
            return Some(begin);
        }
    }
    None
}

fn record<T: serde::Serialize>(key: &FleetKey, record: &T) -> Result<Write, AllocationError> {
    put(key, record).map_err(|error| AllocationError::Encoding(error.to_string()))
}

#[cfg(test)]
mod tests;
