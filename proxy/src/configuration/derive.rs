//! Configurations of the data plane and of the health checker. Pure.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::{Configuration, Listener, Network, Pool};
use crate::dataplane::{
    BackendSpec, DataplaneSpec, ListenerSpec, NodeAddresses, PoolSpec, SourceIpPersistence,
};
use crate::health::{Target, TargetKey, Targets};
use crate::sockets::SocketFactory;

/// Socket factories of the networks, by network.
pub type Factories = HashMap<Uuid, Arc<dyn SocketFactory>>;

/// Configuration of the data plane. `in_rotation` is true for backends that take connections, as far as their
/// health goes.
#[must_use]
pub fn dataplane(
    configuration: &Configuration,
    networks: Factories,
    drain_timeout: Duration,
    in_rotation: impl Fn(Uuid) -> bool,
) -> DataplaneSpec {
    let listeners: Vec<ListenerSpec> =
        configuration.listeners.values().map(|item| listener(&item.value, configuration)).collect();
    // OVN balances over pools that are only checked.
    let used: BTreeSet<Uuid> =
        listeners.iter().flat_map(|listener| &listener.pools).map(|pool| pool.id).collect();
    let pools = used.iter().filter_map(|id| configuration.pools.get(id));
    DataplaneSpec {
        networks,
        leaving: HashSet::new(),
        nodes: nodes(configuration),
        pools: pools.map(|item| pool(&item.value, &in_rotation)).collect(),
        listeners,
        drain_timeout,
    }
}

/// Nodes on each network, and VIPs: a node that is its own backend has one for its source.
fn nodes(configuration: &Configuration) -> HashMap<Uuid, NodeAddresses> {
    let of_network = |network: &Network| {
        let own: HashSet<IpAddr> = network.hosts().collect();
        let direct = network.vips.iter().map(|vip| vip.address);
        let all = own.iter().copied().chain(network.nodes.iter().copied()).chain(direct).collect();
        NodeAddresses { own, all }
    };
    let networks = configuration.networks.values();
    let mut nodes: HashMap<Uuid, NodeAddresses> =
        networks.map(|item| (item.value.id, of_network(&item.value))).collect();
    for listener in configuration.listeners.values().map(|item| &item.value) {
        if let Some(nodes) = nodes.get_mut(&listener.network) {
            nodes.all.extend(&listener.vips);
        }
    }
    nodes
}

/// Numbers of backends that are neighbours of this node, by family: each has an entry in a table of the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NeighbourCounts {
    /// IPv4.
    pub v4: usize,
    /// IPv6.
    pub v6: usize,
}

/// Neighbours that connections and probes of a configuration can meet.
#[must_use]
pub fn neighbours(configuration: &Configuration) -> NeighbourCounts {
    let of_pool = |pool: &Pool| -> Vec<(Uuid, IpAddr)> {
        let Some(network) = configuration.networks.get(&pool.network) else { return Vec::new() };
        let is_near =
            |address: &IpAddr| network.value.addresses.iter().any(|subnet| subnet.contains(*address));
        let addresses =
            pool.backends.iter().flat_map(|backend| [backend.address.ip(), backend.monitor_address.ip()]);
        addresses.filter(is_near).map(|address| (pool.network, address)).collect()
    };
    let all: HashSet<(Uuid, IpAddr)> =
        configuration.pools.values().flat_map(|item| of_pool(&item.value)).collect();
    let v4 = all.iter().filter(|(_, address)| address.is_ipv4()).count();
    NeighbourCounts { v4, v6: all.len() - v4 }
}

fn listener(listener: &Listener, configuration: &Configuration) -> ListenerSpec {
    let serves = |id: &Uuid| configuration.pools.get(id).is_some_and(|item| item.value.enabled);
    ListenerSpec {
        id: listener.id,
        name: name(listener),
        load_balancer: listener.load_balancer,
        project: listener.names.project.clone(),
        network: listener.network,
        protocol: listener.protocol,
        addresses: listener.addresses.clone(),
        ports: listener.ports,
        pools: listener.pools.iter().filter(|pool| serves(&pool.id)).copied().collect(),
        limits: listener.limits,
        allowed_cidrs: listener.allowed_cidrs.clone(),
        trusted_proxies: listener.trusted_proxies.clone(),
        frontends: frontends(listener),
        enabled: listener.enabled,
    }
}

/// Name of a listener in logs, as the command `fiberlb` takes it: `web/http`, or `web/80` without a name. What has none is
/// called by its id.
fn name(listener: &Listener) -> String {
    let names = &listener.names;
    let or_id = |name: &str, id: Uuid| if name.is_empty() { id.to_string() } else { name.to_owned() };
    let own = match listener.port {
        Some(port) if names.listener.is_empty() => port.to_string(),
        _ => or_id(&names.listener, listener.id),
    };
    format!("{}/{own}", or_id(&names.load_balancer, listener.load_balancer))
}

/// Addresses that clients know a listener by.
fn frontends(listener: &Listener) -> Vec<SocketAddr> {
    let Some(port) = listener.port else { return Vec::new() };
    listener.vips.iter().map(|vip| SocketAddr::new(*vip, port)).collect()
}

fn pool(pool: &Pool, in_rotation: impl Fn(Uuid) -> bool) -> PoolSpec {
    let backend = |backend: &super::Backend| BackendSpec {
        id: backend.id,
        address: backend.address,
        weight: backend.weight,
        backup: backend.backup,
        enabled: backend.enabled,
        connection_limit: backend.connection_limit,
        starts_in_rotation: in_rotation(backend.id),
    };
    PoolSpec {
        id: pool.id,
        algorithm: pool.algorithm,
        persistence: pool.persistence.map(|timeout| SourceIpPersistence { timeout }),
        header: pool.header,
        drain_timeout: pool.drain_timeout,
        slow_start: pool.slow_start,
        passive_health: pool.passive_health,
        queue: pool.queue,
        backends: pool.backends.iter().map(backend).collect(),
    }
}

/// Targets of the health checker, and the networks to probe them from.
#[must_use]
pub fn targets(configuration: &Configuration, networks: Factories) -> Targets {
    let of_pool = |pool: &Pool| -> Vec<Target> {
        let network = configuration.networks.get(&pool.network).map(|item| &item.value);
        let target = |(backend, check): (&super::Backend, &Arc<_>)| Target {
            key: TargetKey {
                network: pool.network,
                address: backend.monitor_address,
                check: Arc::clone(check),
            },
            backends: vec![backend.id],
            // Where the network is not known yet, no route says nothing of the backend.
            has_route: network.is_none_or(|network| network.has_route(backend.monitor_address.ip())),
        };
        pool.checked().map(target).collect()
    };
    let targets = configuration.pools.values().flat_map(|item| of_pool(&item.value)).collect();
    Targets { networks, targets }
}

/// Backends that take no connections before their first good probe.
pub fn in_probation(configuration: &Configuration) -> impl Iterator<Item = Uuid> {
    let pools = configuration.pools.values();
    let checked = pools.flat_map(|item| item.value.checked());
    checked.filter(|(backend, _)| backend.probation).map(|(backend, _)| backend.id)
}

#[cfg(test)]
mod tests {
    use fiberlb_proto::agent::v1;

    use super::super::Change;
    use super::super::fixture::{backend, id, listener, network, pool};
    use super::*;

    fn of(update: v1::Update) -> Configuration {
        Configuration::default().changed(Change::try_from(update).unwrap())
    }

    #[test]
    fn nodes_are_this_one_and_the_others_and_vips_may_be_their_source() {
        let vips = vec!["10.0.0.77".to_owned()];
        let configuration = of(v1::Update {
            networks: vec![network(0), v1::Network { node_addresses: Vec::new(), ..network(1) }],
            listeners: vec![v1::Listener { vips, ..listener(3) }],
            ..v1::Update::default()
        });
        let nodes = nodes(&configuration);
        let addresses =
            |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<HashSet<IpAddr>>();
        let own = addresses(&["10.0.0.5", "fd00::5"]);
        let all = addresses(&["10.0.0.5", "fd00::5", "10.0.0.6", "10.0.0.9", "10.0.0.77"]);
        assert_eq!(nodes[&id(0)], NodeAddresses { own: own.clone(), all });
        let of_older_plugin = addresses(&["10.0.0.5", "fd00::5", "10.0.0.9"]);
        assert_eq!(nodes[&id(1)], NodeAddresses { own, all: of_older_plugin });
    }

    #[test]
    fn listeners_are_called_as_people_call_them() {
        let called = |load_balancer_name: &str, name: &str, port: Option<u32>| {
            let (load_balancer_name, name) = (load_balancer_name.to_owned(), name.to_owned());
            let wire =
                v1::Listener { load_balancer_name, name, port: port.unwrap_or_default(), ..listener(3) };
            let configuration = of(v1::Update { listeners: vec![wire], ..v1::Update::default() });
            dataplane(&configuration, HashMap::new(), Duration::ZERO, |_| true).listeners.remove(0).name
        };
        assert_eq!(called("web", "http", Some(80)), "web/http");
        assert_eq!(called("web", "", Some(80)), "web/80");
        assert_eq!(called("", "http", None), format!("{}/http", id(0)));
        assert_eq!(called("", "", None), format!("{}/{}", id(0), id(3)));
    }

    #[test]
    fn neighbours_are_distinct_addresses_of_the_nodes_own_subnets() {
        let at = |address: &str, monitor_address: &str| v1::Backend {
            id: Uuid::new_v4().to_string(),
            address: address.to_owned(),
            monitor_address: monitor_address.to_owned(),
            ..backend(0)
        };
        let backends = vec![
            at("10.0.0.11:80", "10.0.0.11:81"),
            at("10.0.0.12:80", "10.0.0.13:80"),
            at("10.9.9.9:80", "10.9.9.9:80"),
            at("[fd00::11]:80", "[fd00::11]:80"),
        ];
        let shared = vec![at("10.0.0.11:8080", "10.0.0.11:8080")];
        let elsewhere =
            v1::Pool { network_id: id(9).to_string(), ..pool(3, vec![at("10.0.0.14:80", "10.0.0.14:80")]) };
        let configuration = of(v1::Update {
            networks: vec![network(0)],
            pools: vec![pool(1, backends), pool(2, shared), elsewhere],
            ..v1::Update::default()
        });
        assert_eq!(neighbours(&configuration), NeighbourCounts { v4: 3, v6: 1 });
    }
}
