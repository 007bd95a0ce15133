use std::collections::BTreeMap;
use std::time::Instant;

use super::*;
use crate::datapath::{Carrier, Families, NodeFeatures};
use crate::fleet::directory::records::NodeRecord;
use crate::fleet::examples;
use crate::fleet::placement::demand::{Demand, ProxiedListener};
use crate::resources::LoadBalancer;
use crate::resources::examples::{LOAD_BALANCER, change, tree};
use crate::status::FleetView;
use fiberlb_store::Revision;

const NETWORK: Uuid = Uuid::from_u128(7);

fn proxied_with(needs: NodeFeatures) -> ProxiedListener {
    ProxiedListener {
        carrier: Carrier::Proxy,
        is_behind_ovn: true,
        ports: 1,
        needs,
        vips: Families::default(),
        backends: Families::default(),
    }
}

fn state(nodes: &[&str], listeners: u128) -> FleetState {
    let mut state = FleetState::new(examples::rules(2), Instant::now());
    for node in nodes {
        join(&mut state, node);
    }
    let needs = NodeFeatures::of_old_agents;
    let proxied: BTreeMap<Uuid, ProxiedListener> =
        (0..listeners).map(|number| (Uuid::from_u128(100 + number), proxied_with(needs()))).collect();
    if listeners > 0 {
        state
            .demands
            .set(Uuid::from_u128(1), Some(Demand { network: NETWORK, proxied, checked: BTreeSet::new() }));
    }
    state
}

fn view(state: &FleetState) -> FleetView {
    let (mut tree, demand) = (tree(), state.demands.of(Uuid::from_u128(1)).unwrap());
    change::<LoadBalancer>(&mut tree, LOAD_BALANCER, |root| root.network = NETWORK);
    state.view(&tree, demand, Instant::now(), str::to_owned)
}

/// Changes the number of ports of a listener, by its place.
fn set_ports(state: &mut FleetState, listener: u128, ports: u16) {
    let tree = Uuid::from_u128(1);
    let mut demand = state.demands.of(tree).unwrap().clone();
    demand.proxied.get_mut(&Uuid::from_u128(100 + listener)).unwrap().ports = ports;
    state.demands.set(tree, Some(demand));
}

#[test]
fn ranges_are_allocated_in_one_piece_and_released_whole() {
    let mut state = state(&["a", "b"], 4);
    let block = |state: &FleetState, listener: u128, ports: u16| {
        state.allocations.proxy_block(NETWORK, Uuid::from_u128(100 + listener), ports)
    };
    set_ports(&mut state, 1, 100);
    set_ports(&mut state, 3, 100);
    settle(&mut state).unwrap();
    let blocks = [(0, 1), (1, 100), (2, 1), (3, 100)].map(|(listener, ports)| block(&state, listener, ports));
    assert_eq!(blocks, [Some(10_000), Some(10_001), Some(10_101), Some(10_102)]);
    assert_eq!(state.allocations.proxy_ports(NETWORK).count(), 202);
    assert!(
        next(&state, NETWORK, &space(), examples::now()).unwrap().writes.is_empty(),
        "nothing is missing"
    );
    // One that is made anew under its id, with more ports.
    set_ports(&mut state, 0, 2);
    settle(&mut state).unwrap();
    assert_eq!([block(&state, 0, 2), block(&state, 1, 100)], [Some(10_202), Some(10_001)]);
    state.demands.set(Uuid::from_u128(1), None);
    settle(&mut state).unwrap();
    assert_eq!(state.allocations.proxy_ports(NETWORK).count(), 0);
}

#[test]
fn a_range_that_fits_nowhere_keeps_no_port_from_others() {
    let (mut state, other) = (state(&["a", "b"], 2), Uuid::from_u128(2));
    let in_use = PROXY_PORTS.step_by(2).map(|port| (port, Uuid::from_u128(u128::from(port))));
    let in_use: Vec<(u16, Uuid)> = in_use.collect();
    let needs = NodeFeatures::of_old_agents;
    let single = |(_, listener): &(u16, Uuid)| (*listener, proxied_with(needs()));
    let proxied = in_use.iter().map(single).collect();
    state.demands.set(other, Some(Demand { network: NETWORK, proxied, checked: BTreeSet::new() }));
    for (port, listener) in in_use {
        let record = serde_json::to_vec(&ProxyPortRecord::new(other, listener, 0)).unwrap();
        state.apply(&FleetKey::ProxyPort(NETWORK, port), Some(&record), Revision::ZERO, Instant::now());
    }
    set_ports(&mut state, 0, 2);
    assert_eq!(settle(&mut state), Err(AllocationError::NoPort));
    let ports = [0, 1].map(|number| state.allocations.proxy_port(Uuid::from_u128(100 + number)));
    assert_eq!(ports, [None, Some(29_999)]);
    assert!(state.set_trouble(NETWORK, Some(&AllocationError::NoPort)));
    let view = view(&state);
    let troubles = [0, 1].map(|number| view.trouble_of(Uuid::from_u128(100 + number)));
    assert_eq!(troubles, [Some(AllocationError::NoPort.to_string()), None]);
}

#[test]
fn a_listener_that_is_made_anew_with_more_ports_is_at_none_of_others() {
    let mut state = state(&["a", "b"], 2);
    settle(&mut state).unwrap();
    let port_in = |state: &FleetState| view(state).proxied[&Uuid::from_u128(100)].port;
    assert_eq!(port_in(&state), Some(10_000));
    set_ports(&mut state, 0, 2);
    assert_eq!(port_in(&state), None, "the next port is another listener's");
    settle(&mut state).unwrap();
    assert_eq!(port_in(&state), Some(10_002));
}

#[test]
fn a_range_of_which_an_older_leader_has_released_ports_is_made_whole_again() {
    let mut state = state(&["a", "b"], 2);
    set_ports(&mut state, 0, 3);
    settle(&mut state).unwrap();
    let block = |state: &FleetState| state.allocations.proxy_block(NETWORK, Uuid::from_u128(100), 3);
    let first = block(&state).unwrap();
    // It knows one port of each listener, and takes the others for stale.
    for port in [first + 1, first + 2] {
        state.apply(&FleetKey::ProxyPort(NETWORK, port), None, Revision::ZERO, Instant::now());
    }
    assert_eq!(block(&state), None);
    settle(&mut state).unwrap();
    assert!(block(&state).is_some());
    assert_eq!(state.allocations.proxy_ports(NETWORK).count(), 4);
}

#[test]
fn a_range_fits_into_a_gap_that_is_large_enough_or_nowhere() {
    let taken = |ports: &[u16]| ports.iter().copied().collect::<BTreeSet<u16>>();
    assert_eq!(free_block(&taken(&[]), 100), Some(10_000));
    assert_eq!(free_block(&taken(&[10_000, 10_050]), 100), Some(10_051));
    assert_eq!(free_block(&taken(&[29_899]), 100), Some(29_900));
    assert_eq!(free_block(&taken(&[29_900]), 100), Some(10_000), "those above are too few");
    assert_eq!(free_block(&taken(&[10_000, 10_099, 29_950]), 99), Some(10_100));
    assert_eq!(free_block(&taken(&[10_000, 10_099, 29_950]), 98), Some(10_001));
    let crowded: BTreeSet<u16> = PROXY_PORTS.step_by(10).collect();
    assert_eq!([free_block(&crowded, 9), free_block(&crowded, 10)], [Some(29_991), None]);
    assert_eq!(free_block(&PROXY_PORTS.collect(), 1), None);
}

fn apply(state: &mut FleetState, transaction: &Transaction) {
    for write in &transaction.writes {
        let Some(key) = FleetKey::parse(write.key()) else { continue };
        let value = match write {
            Write::Put { value, .. } => Some(value.as_slice()),
            Write::Delete { .. } => None,
        };
        state.apply(&key, value, Revision::ZERO, Instant::now());
    }
}

fn join(state: &mut FleetState, node: &str) {
    let record = serde_json::to_vec(&NodeRecord::new(node, "", "", "", 0)).unwrap();
    state.apply(&FleetKey::Node(node.to_owned()), Some(&record), Revision::ZERO, Instant::now());
    state.joined(&examples::hello(node), 1, Instant::now());
}

fn settle(state: &mut FleetState) -> Result<(), AllocationError> {
    settle_in(state, &space())
}

fn space() -> Space<'static> {
    Space::new(&["10.0.0.0/24".parse().unwrap()], &|_| false)
}

fn settle_in(state: &mut FleetState, space: &Space<'_>) -> Result<(), AllocationError> {
    for _ in 0..10 {
        let transaction = next(state, NETWORK, space, examples::now())?;
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
    assert_eq!(state.allocations.ports(NETWORK).count(), 2);
    let ports: BTreeSet<u16> = state.allocations.proxy_ports(NETWORK).map(|(_, port)| port).collect();
    assert_eq!(ports.len(), 50);
    assert!(ports.iter().all(|port| PROXY_PORTS.contains(port)));
}

#[test]
fn what_nobody_asks_for_any_more_is_given_back() {
    let mut state = state(&["a", "b"], 3);
    settle(&mut state).unwrap();
    state.demands.set(Uuid::from_u128(1), None);
    settle(&mut state).unwrap();
    assert_eq!(state.allocations.ports(NETWORK).count(), 0);
    assert_eq!(state.allocations.proxy_ports(NETWORK).count(), 0);
}

#[test]
fn what_cannot_be_given_is_said() {
    let mut state = state(&["a", "b"], 1);
    let none = Space::new(&[], &|_| false);
    assert_eq!(settle_in(&mut state, &none), Err(AllocationError::NoSubnet));
    let subnet: IpNetwork = "10.0.0.0/29".parse().unwrap();
    let full = Space::new(&[subnet], &|_| true);
    assert_eq!(settle_in(&mut state, &full), Err(AllocationError::Exhausted(subnet)));
    assert_eq!(state.allocations.proxy_ports(NETWORK).count(), 1, "listeners need not wait for nodes");
}

#[test]
fn nodes_get_an_address_of_a_family_that_the_network_gains() {
    let mut state = state(&["a", "b"], 1);
    settle(&mut state).unwrap();
    let subnets = ["10.0.0.0/24", "fd00::/64", "fd01::/64"].map(|subnet| subnet.parse().unwrap());
    let hosts = |state: &FleetState| -> Vec<Vec<IpAddr>> {
        state.allocations.ports(NETWORK).map(|(_, port)| port.hosts().collect()).collect()
    };
    let before = hosts(&state);
    let full = Space::new(&subnets, &|host| host.is_ipv6());
    settle_in(&mut state, &full).unwrap();
    assert_eq!(hosts(&state), before, "where there is none, they go on without");

    let both = Space::new(&subnets, &|_| false);
    let transaction = next(&state, NETWORK, &both, examples::now()).unwrap();
    let guards = transaction.compares.iter().filter(|compare| compare.key.contains("fd00"));
    assert_eq!(guards.count(), 2, "{transaction:?}");
    settle_in(&mut state, &both).unwrap();
    let after = hosts(&state);
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(after[..1], before[..], "what they had stays");
        assert!(after.len() == 2 && after[1].is_ipv6(), "{after:?}");
    }
    assert_ne!(after[0][1], after[1][1]);
}

#[test]
fn nodes_get_further_addresses_as_far_as_there_are_any() {
    let mut state = state(&["a", "b"], 1);
    state.rules.source_addresses = 3;
    let subnets: Vec<IpNetwork> = ["10.0.0.0/28", "fd00::/64"].map(|subnet| subnet.parse().unwrap()).into();
    // Five of IPv4 are left for both, beside those that sources leave alone.
    let all_taken = std::cell::Cell::new(false);
    let first = 15 - 5 - RESERVE as u8;
    let taken = |host: IpAddr| match host {
        IpAddr::V4(host) => all_taken.get() || host.octets()[3] < first,
        IpAddr::V6(_) => false,
    };
    let space = Space::new(&subnets, &taken);
    settle_in(&mut state, &space).unwrap();
    let ports = |state: &FleetState| -> Vec<PortRecord> {
        state.allocations.ports(NETWORK).map(|(_, port)| port.clone()).collect()
    };
    let in_all = |state: &FleetState, subnet: usize| -> usize {
        ports(state).iter().map(|port| port.sources_in(&subnets[subnet])).sum()
    };
    assert_eq!((in_all(&state, 0), in_all(&state, 1)), (5, 6));
    let hosts: Vec<IpAddr> =
        ports(&state).iter().flat_map(|port| port.all_hosts().collect::<Vec<_>>()).collect();
    assert_eq!(hosts.iter().collect::<BTreeSet<_>>().len(), hosts.len(), "{hosts:?}");

    // A node that comes takes the address of a source, where there is no other one.
    all_taken.set(true);
    join(&mut state, "c");
    state.rules.nodes_per_network = 3;
    let _ = settle_in(&mut state, &space);
    assert!(in_all(&state, 0) < 5);

    state.rules.source_addresses = 1;
    settle_in(&mut state, &Space::new(&subnets, &|_| false)).unwrap();
    assert!(ports(&state).iter().all(|port| port.sources.is_empty() && port.addresses.len() == 2));
}

#[test]
fn the_address_of_a_node_that_is_gone_is_given_to_the_one_that_takes_its_place() {
    let mut state = state(&["a", "b"], 1);
    let subnet: IpNetwork = "10.0.0.0/29".parse().unwrap();
    // Room for two nodes.
    let others = ["10.0.0.4", "10.0.0.3", "10.0.0.2"].map(|host| host.parse::<IpAddr>().unwrap());
    let taken = |host| others.contains(&host);
    let space = Space::new(&[subnet], &taken);
    settle_in(&mut state, &space).unwrap();
    state.node_of_stream("a", 1).unwrap().contact.connected = false;
    state.apply(&FleetKey::Node("a".to_owned()), None, Revision::ZERO, Instant::now());
    join(&mut state, "c");
    settle_in(&mut state, &space).unwrap();
    assert!(state.allocations.port(NETWORK, "c").is_some());
}

#[test]
fn a_listener_that_got_two_ports_gives_one_back() {
    let mut state = state(&["a"], 1);
    settle(&mut state).unwrap();
    let port = state.allocations.proxy_port(Uuid::from_u128(100)).unwrap();
    let record = ProxyPortRecord::new(Uuid::from_u128(1), Uuid::from_u128(100), 0);
    let twice = serde_json::to_vec(&record).unwrap();
    state.apply(&FleetKey::ProxyPort(NETWORK, port + 1), Some(&twice), Revision::ZERO, Instant::now());
    settle(&mut state).unwrap();
    assert_eq!(state.allocations.proxy_ports(NETWORK).count(), 1);
    assert!(state.allocations.proxy_port(Uuid::from_u128(100)).is_some());
}

#[test]
fn a_port_that_was_given_back_rests() {
    let taken = BTreeSet::from([10_000, 10_005]);
    assert_eq!(free_block(&taken, 1), Some(10_006));
    let last = BTreeSet::from([29_999]);
    assert_eq!(free_block(&last, 1), Some(10_000));
    let all: BTreeSet<u16> = PROXY_PORTS.collect();
    assert_eq!(free_block(&all, 1), None);
}
