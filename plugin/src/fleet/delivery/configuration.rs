//! Configuration messages for a node: a pure function of trees and of the node's allocations.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use fiberlb_northbound::plan::Routes;
use fiberlb_proto::agent::v1;
use ipnetwork::IpNetwork;
use uuid::Uuid;

use crate::agents::Configuration;
use crate::datapath::{Carrier, NodeFeatures, backend_families, needed_by_protocol, restricts_clients};
use crate::fleet::delivery::shares::NodePlace;
use crate::fleet::directory::records::PortRecord;
use crate::fleet::placement::demand::{Demand, ProxiedListener};
use crate::resources::{
    Algorithm, Backend, HealthCheck, Listener, ListenerProtocol, PassiveHealthCheck, Persistence, Pool,
    PoolProtocol, ProxyLimits, Record, Tree, WeightedPool,
};

/// Most routes of one network that a node takes, beside the default ones.
const MOST_ROUTES: usize = 1_000;

/// Attachment of a node to a network.
#[derive(Clone, Debug)]
pub(in crate::fleet) struct Attachment {
    /// The logical switch.
    pub network: Uuid,
    /// Name of the node's logical switch port.
    pub port_name: String,
    /// MAC address of the port.
    pub mac: String,
    /// Addresses allocated to the node.
    pub port: PortRecord,
    /// Routes to what is not on the network.
    pub routes: Routes,
    /// MTU, in bytes.
    pub mtu: u32,
    /// Addresses of all nodes on the network.
    pub nodes: Vec<IpAddr>,
    /// DIRECT VIPs of the network, with their current holder.
    pub vips: Vec<v1::Vip>,
    /// VIPs that the node held, and that OVN answers for now.
    pub answered: Vec<v1::AnsweredVip>,
}

/// The message that describes an attachment.
pub(in crate::fleet) fn network(attachment: &Attachment) -> v1::Network {
    // A next hop of a family in which the node has no address is unreachable.
    let has_family = |hop: &IpAddr| attachment.port.hosts().any(|host| host.is_ipv4() == hop.is_ipv4());
    let gateways = attachment.routes.gateways.iter().filter(|hop| has_family(hop));
    let others = attachment.routes.others.iter().filter(|(_, hop)| has_family(hop)).take(MOST_ROUTES);
    v1::Network {
        id: attachment.network.to_string(),
        port_name: attachment.port_name.clone(),
        mac: attachment.mac.clone(),
        addresses: attachment.port.addresses.iter().map(ToString::to_string).collect(),
        gateways: gateways.map(ToString::to_string).collect(),
        mtu: attachment.mtu,
        vips: attachment.vips.clone(),
        answered_vips: attachment.answered.clone(),
        node_addresses: attachment.nodes.iter().map(ToString::to_string).collect(),
        source_addresses: attachment.port.sources.iter().map(ToString::to_string).collect(),
        routes: others.map(|(network, hop)| route(*network, *hop)).collect(),
    }
}

fn route(destination: IpNetwork, next_hop: IpAddr) -> v1::Route {
    v1::Route { destination: destination.to_string(), next_hop: next_hop.to_string() }
}

/// Facts beyond the tree that its configuration depends on.
pub(in crate::fleet) trait FleetFacts {
    /// True if the node has all these capabilities.
    fn can_serve(&self, needs: &NodeFeatures) -> bool;
    /// Place of the node among those that can serve any of these listeners.
    fn place(&self, listeners: &[&ProxiedListener]) -> NodePlace;
    /// The node's share of the connection limit of a listener with this id, of a tree.
    fn share(&self, tree: Uuid, id: Uuid, limit: u32, listener: &ProxiedListener) -> u32;
    /// First one of the consecutive ports that proxies listen on for a listener with so many; `None`: they are not all allocated.
    fn proxy_block(&self, network: Uuid, listener: Uuid, ports: u16) -> Option<u16>;
    /// True for a new backend of a checked pool: it gets no connection before its first successful probe.
    fn is_new(&self, backend: &Record<Backend>) -> bool;
}

/// Adds all of `tree` that the node behind `port` serves or checks. A listener for which the node lacks a
/// capability is left out: an old agent would ignore fields that it does not know, and serve it otherwise than
/// specified. So is one whose backends are all of families in which the node has no address.
pub(in crate::fleet) fn add_tree(
    configuration: &mut Configuration,
    tree: &Tree,
    demand: &Demand,
    port: &PortRecord,
    facts: &dyn FleetFacts,
) {
    let hosts: Vec<IpAddr> = port.hosts().collect();
    let able = demand.proxied.iter().filter(|(_, proxied)| facts.can_serve(&proxied.needs));
    let served: Vec<(&Record<Listener>, &ProxiedListener)> = able
        .filter_map(|(id, proxied)| Some((tree.listeners.get(id)?.as_ref(), proxied)))
        .filter(|(listener, _)| backend_families(tree, &listener.spec).are_reached_from(&hosts))
        .collect();
    for (listener, proxied) in &served {
        let proxy_port = facts.proxy_block(demand.network, listener.id, listener.spec.port_count());
        let binds = bind_addresses(tree, listener, proxied, port, proxy_port);
        let Some(protocol) = protocol(listener.spec.protocol).filter(|_| !binds.is_empty()) else { continue };
        // The node that has the VIP is alone.
        let share = |limit| match proxied.is_behind_ovn {
            true => facts.share(tree.id(), listener.id, limit, proxied),
            false => limit,
        };
        let message = self::listener(tree, listener, protocol, &binds, share);
        configuration.listeners.insert(listener.id, Arc::new(message));
    }
    for record in tree.pools.values().filter(|record| !record.deleting) {
        let check = tree.health_check_of(record.id).map(AsRef::as_ref).filter(|check| check.is_in_force());
        let used = served.iter().any(|(listener, _)| listener.spec.uses(record.id));
        let is_checked = check.is_some() && facts.can_serve(&needed_by_protocol(record.spec.protocol));
        if used || is_checked {
            let users = demand.proxied.iter().filter(|(id, _)| {
                let listener = tree.listeners.get(*id);
                listener.is_some_and(|listener| listener.spec.uses(record.id))
            });
            let place = || place(users.map(|(_, listener)| listener), facts);
            let mut message = pool(tree, record, check, facts, place);
            if !used && record.spec.algorithm.draws() {
                // A node that only checks the pool may not know it, and would refuse all of it.
                message.algorithm = v1::Algorithm::RoundRobin.into();
            }
            configuration.pools.insert(record.id, Arc::new(message));
        }
    }
}

/// Place of a node among those that share what bounds the connections of these listeners: all nodes that serve any of them. The
/// node that has a VIP is alone.
fn place<'a>(listeners: impl Iterator<Item = &'a ProxiedListener>, facts: &dyn FleetFacts) -> NodePlace {
    let listeners: Vec<&ProxiedListener> = listeners.collect();
    if listeners.iter().any(|listener| !listener.is_behind_ovn) {
        return NodePlace::ALONE;
    }
    facts.place(&listeners)
}

/// Addresses that the proxy of a node binds.
fn bind_addresses(
    tree: &Tree,
    listener: &Record<Listener>,
    proxied: &ProxiedListener,
    port: &PortRecord,
    proxy_port: Option<u16>,
) -> Vec<SocketAddr> {
    let vips = &tree.load_balancer.spec.vips;
    let has_vip = |host: &IpAddr| vips.iter().any(|vip| vip.is_ipv4() == host.is_ipv4());
    let own = vips.iter().filter(|_| proxied.carrier == Carrier::Direct);
    let own = own.map(|vip| SocketAddr::new(*vip, listener.spec.port));
    let behind_ovn = proxy_port
        .filter(|_| proxied.is_behind_ovn)
        .into_iter()
        .flat_map(|number| port.hosts().filter(has_vip).map(move |host| SocketAddr::new(host, number)));
    own.chain(behind_ovn).collect()
}

/// Protocol in which nodes serve a listener; `None`: they cannot.
fn protocol(protocol: ListenerProtocol) -> Option<v1::Protocol> {
    match protocol {
        ListenerProtocol::Tcp | ListenerProtocol::Https => Some(v1::Protocol::Tcp),
        ListenerProtocol::Udp => Some(v1::Protocol::Udp),
        ListenerProtocol::Sctp => None,
    }
}

fn listener(
    tree: &Tree,
    record: &Record<Listener>,
    protocol: v1::Protocol,
    binds: &[SocketAddr],
    share: impl FnOnce(u32) -> u32,
) -> v1::Listener {
    let spec = &record.spec;
    let ProxyLimits {
        connections,
        client_connections,
        connection_rate,
        client_connection_rate,
        bandwidth,
        client_data_ms,
        backend_connect_ms,
        backend_data_ms,
        half_close_ms,
    } = spec.limits;
    let pools: Vec<WeightedPool> = spec.pools().collect();
    // A listener of one pool is served by each node.
    let alone = if let [alone] = pools.as_slice() { Some(alone) } else { None };
    // A list that turns nobody away is served by each node.
    let allowed = restricts_clients(tree, spec).then(|| spec.allowed_cidrs.iter().map(ToString::to_string));
    v1::Listener {
        id: record.id.to_string(),
        load_balancer_id: tree.id().to_string(),
        network_id: tree.load_balancer.spec.network.to_string(),
        bind_addresses: binds.iter().map(ToString::to_string).collect(),
        pool_id: alone.map(|pool| pool.pool_id.to_string()).unwrap_or_default(),
        enabled: spec.admin_state_up && tree.load_balancer.spec.admin_state_up,
        connection_limit: connections.unwrap_or(0),
        client_data_timeout_ms: client_data_ms.unwrap_or(ProxyLimits::CLIENT_DATA_MS).into(),
        backend_connect_timeout_ms: backend_connect_ms.unwrap_or(ProxyLimits::BACKEND_CONNECT_MS).into(),
        backend_data_timeout_ms: backend_data_ms.unwrap_or(ProxyLimits::BACKEND_DATA_MS).into(),
        generation: record.generation,
        protocol: protocol.into(),
        vips: tree.load_balancer.spec.vips.iter().map(ToString::to_string).collect(),
        name: spec.common.name.clone(),
        load_balancer_name: tree.load_balancer.spec.common.name.clone(),
        project_id: tree.load_balancer.spec.project_id.clone(),
        allowed_cidrs: allowed.into_iter().flatten().collect(),
        trusted_proxies: spec.trusted_proxies.iter().map(ToString::to_string).collect(),
        port: spec.port.into(),
        port_count: spec.port_count().into(),
        client_connection_limit: client_connections.unwrap_or(0),
        connection_rate: connection_rate.unwrap_or(0),
        client_connection_rate: client_connection_rate.unwrap_or(0),
        bandwidth_limit: bandwidth.unwrap_or(0),
        connection_share: connections.map(share),
        half_close_timeout_ms: half_close_ms.unwrap_or(0).into(),
        weighted_pools: if alone.is_some() { Vec::new() } else { pools.iter().map(weighted_pool).collect() },
    }
}

fn weighted_pool(pool: &WeightedPool) -> v1::WeightedPool {
    v1::WeightedPool { pool_id: pool.pool_id.to_string(), weight: pool.weight.into() }
}

fn pool(
    tree: &Tree,
    record: &Record<Pool>,
    check: Option<&Record<HealthCheck>>,
    facts: &dyn FleetFacts,
    place: impl FnOnce() -> NodePlace,
) -> v1::Pool {
    let backends = || tree.backends_of(record.id).filter(|backend| !backend.deleting);
    let is_bounded = backends().any(|backend| backend.spec.connection_limit > 0);
    let place = is_bounded.then(place);
    let backend = |record: &Arc<Record<Backend>>| {
        let limit = Some(record.spec.connection_limit).filter(|limit| *limit > 0);
        v1::Backend {
            connection_limit: limit.zip(place).map(|(limit, place)| place.part(limit, record.id)),
            ..backend(record, check.is_some() && facts.is_new(record))
        }
    };
    let persistence_timeout_s = record.spec.persistence.map_or(0, |persistence| match persistence {
        Persistence::SourceIp { timeout_s } => timeout_s.into(),
    });
    v1::Pool {
        id: record.id.to_string(),
        network_id: tree.load_balancer.spec.network.to_string(),
        algorithm: algorithm(record.spec.algorithm).into(),
        persistence_timeout_s,
        enabled: record.spec.admin_state_up,
        backends: backends().map(backend).collect(),
        check: check.map(|check| self::check(&check.spec)),
        proxy_protocol: header(record.spec.protocol).into(),
        drain_timeout_ms: record.spec.drain_timeout_ms,
        slow_start_ms: record.spec.slow_start_ms.unwrap_or(0),
        passive_health_check: record.spec.passive_health_check.map(passive_health),
        queue_limit: record.spec.queue_limit,
        queue_timeout_ms: record.spec.queue_timeout_ms.unwrap_or(Pool::QUEUE_TIMEOUT_MS),
    }
}

fn passive_health(check: PassiveHealthCheck) -> v1::PassiveHealthCheck {
    v1::PassiveHealthCheck {
        consecutive_failures: check.consecutive_failures.into(),
        ejection_ms: check.ejection_ms.into(),
        max_ejection_ms: check.max_ejection_ms.into(),
        max_ejected_percent: check.max_ejected_percent.into(),
    }
}

fn header(protocol: PoolProtocol) -> v1::ProxyProtocol {
    match protocol {
        PoolProtocol::Proxy => v1::ProxyProtocol::V1,
        PoolProtocol::ProxyV2 => v1::ProxyProtocol::V2,
        PoolProtocol::Tcp
        | PoolProtocol::Udp
        | PoolProtocol::Sctp
        | PoolProtocol::Http
        | PoolProtocol::Https => v1::ProxyProtocol::Unspecified,
    }
}

fn backend(record: &Record<Backend>, probation: bool) -> v1::Backend {
    let spec = &record.spec;
    let monitor = SocketAddr::new(
        spec.monitor_address.unwrap_or(spec.address.ip()),
        spec.monitor_port.unwrap_or(spec.address.port()),
    );
    v1::Backend {
        id: record.id.to_string(),
        address: spec.address.to_string(),
        weight: spec.weight.into(),
        backup: spec.backup,
        enabled: spec.admin_state_up,
        monitor_address: monitor.to_string(),
        probation,
        connection_limit: None,
    }
}

fn check(spec: &HealthCheck) -> v1::Check {
    let http = spec.http.as_ref().map(|http| v1::HttpCheck {
        method: http.method.clone(),
        path: http.path.clone(),
        host: http.host.clone(),
        expected_codes: http.expected_codes.clone(),
    });
    v1::Check {
        http,
        delay_ms: spec.delay_ms,
        timeout_ms: spec.timeout_ms,
        rise: spec.rise.into(),
        fall: spec.fall.into(),
    }
}

fn algorithm(algorithm: Algorithm) -> v1::Algorithm {
    match algorithm {
        Algorithm::RoundRobin => v1::Algorithm::RoundRobin,
        Algorithm::LeastConnections => v1::Algorithm::LeastConnections,
        Algorithm::Random => v1::Algorithm::Random,
        Algorithm::PowerOfTwoChoices => v1::Algorithm::PowerOfTwoChoices,
        Algorithm::SourceIp => v1::Algorithm::SourceIp,
        Algorithm::SourceIpPort => v1::Algorithm::SourceIpPort,
    }
}

#[cfg(test)]
mod tests {
    use fiberlb_northbound::plan::Capabilities;

    use super::*;
    use crate::resources::examples::{BACKENDS, LISTENER, LOAD_BALANCER, POOL, change, put, tree};
    use crate::resources::{Datapath, Exposure, LoadBalancer};

    #[test]
    fn a_node_hears_of_next_hops_of_its_own_families_alone() {
        let hop = |text: &str| -> IpAddr { text.parse().unwrap() };
        let routes = Routes {
            gateways: vec![hop("10.0.0.1"), hop("fd00::1")],
            others: vec![
                ("10.9.0.0/24".parse().unwrap(), hop("10.0.0.9")),
                ("fd09::/64".parse().unwrap(), hop("fd00::9")),
            ],
        };
        let told = |addresses: &[&str]| {
            let message = network(&Attachment {
                network: Uuid::nil(),
                port_name: String::new(),
                mac: String::new(),
                port: PortRecord::new(addresses.iter().map(|text| text.parse().unwrap()).collect()),
                routes: routes.clone(),
                mtu: 1500,
                nodes: Vec::new(),
                vips: Vec::new(),
                answered: Vec::new(),
            });
            let others =
                message.routes.into_iter().map(|it| format!("{} by {}", it.destination, it.next_hop));
            message.gateways.into_iter().chain(others).collect::<Vec<_>>()
        };
        let [v4, v6] = [["10.0.0.1", "10.9.0.0/24 by 10.0.0.9"], ["fd00::1", "fd09::/64 by fd00::9"]];
        assert_eq!(told(&["10.0.0.5/24"]), v4);
        assert_eq!(told(&["fd00::5/64"]), v6);
        assert_eq!(told(&["10.0.0.5/24", "fd00::5/64"]), [v4[0], v6[0], v4[1], v6[1]]);
    }

    /// Facts of a node, which is the second of three that serve anything.
    struct Facts {
        able: bool,
    }

    impl FleetFacts for Facts {
        fn can_serve(&self, needs: &NodeFeatures) -> bool {
            self.able || *needs == NodeFeatures::default()
        }

        fn place(&self, listeners: &[&ProxiedListener]) -> NodePlace {
            assert!(!listeners.is_empty());
            NodePlace { index: 1, nodes: 3 }
        }

        fn share(&self, _: Uuid, _: Uuid, limit: u32, _: &ProxiedListener) -> u32 {
            limit / 3
        }

        fn proxy_block(&self, _: Uuid, _: Uuid, _: u16) -> Option<u16> {
            Some(10_000)
        }

        fn is_new(&self, _: &Record<Backend>) -> bool {
            false
        }
    }

    #[test]
    fn a_listener_is_sent_with_its_protocol_and_only_to_a_node_that_can_serve_it() {
        let mut tree = tree();
        change::<Listener>(&mut tree, LISTENER, |listener| {
            (listener.datapath, listener.protocol) = (Datapath::Proxy, ListenerProtocol::Udp);
        });
        let demand = Demand::of(&tree, &Capabilities::ALL, &crate::status::Observation::default()).unwrap();
        let port = PortRecord::new(vec!["10.0.0.5/24".parse().unwrap()]);
        let sent = |able| {
            let mut configuration = Configuration::default();
            add_tree(&mut configuration, &tree, &demand, &port, &Facts { able });
            configuration
        };
        assert_eq!(sent(true).listeners[&LISTENER].protocol(), v1::Protocol::Udp);
        assert!(sent(false).listeners.is_empty());
        assert_eq!(sent(false).pools.len(), sent(true).pools.len(), "the pool is checked all the same");
    }

    #[test]
    fn a_listener_is_not_sent_to_a_node_that_reaches_none_of_its_backends() {
        let mut tree = tree();
        change::<Listener>(&mut tree, LISTENER, |listener| listener.datapath = Datapath::Proxy);
        change::<LoadBalancer>(&mut tree, LOAD_BALANCER, |root| {
            root.vips = vec!["fd00::100".parse().unwrap()];
        });
        let demand = Demand::of(&tree, &Capabilities::ALL, &crate::status::Observation::default()).unwrap();
        let sent = |tree: &Tree, addresses: &[&str]| {
            let port = PortRecord::new(addresses.iter().map(|text| text.parse().unwrap()).collect());
            let mut configuration = Configuration::default();
            add_tree(&mut configuration, tree, &demand, &port, &Facts { able: true });
            configuration.listeners.values().map(|it| it.bind_addresses.clone()).next()
        };
        let bound = Some(vec!["[fd00::5]:10000".to_owned()]);
        assert_eq!(sent(&tree, &["10.0.0.5/24", "fd00::5/64"]), bound);
        assert_eq!(sent(&tree, &["fd00::5/64"]), None);
        change::<Backend>(&mut tree, BACKENDS[0], |backend| {
            backend.address.set_ip("fd00::11".parse().unwrap());
        });
        assert_eq!(sent(&tree, &["fd00::5/64"]), bound, "it reaches one");
    }

    #[test]
    fn a_header_is_sent_and_its_pool_not_to_a_node_that_would_check_it_without() {
        let mut tree = tree();
        change::<Pool>(&mut tree, POOL, |pool| pool.protocol = PoolProtocol::ProxyV2);
        change::<Listener>(&mut tree, LISTENER, |listener| {
            listener.trusted_proxies = ["10.0.0.9/32".parse().unwrap()].into_iter().collect();
        });
        let demand = Demand::of(&tree, &Capabilities::ALL, &crate::status::Observation::default()).unwrap();
        let port = PortRecord::new(vec!["10.0.0.5/24".parse().unwrap()]);
        let sent = |able| {
            let mut configuration = Configuration::default();
            add_tree(&mut configuration, &tree, &demand, &port, &Facts { able });
            configuration
        };
        let able = sent(true);
        assert_eq!(able.pools[&POOL].proxy_protocol(), v1::ProxyProtocol::V2);
        let listener = &able.listeners[&LISTENER];
        assert_eq!(
            (listener.port, listener.trusted_proxies.as_slice()),
            (80, &["10.0.0.9/32".to_owned()][..])
        );
        assert!(sent(false).pools.is_empty());
    }

    #[test]
    fn a_node_that_only_checks_a_pool_need_not_know_how_it_draws() {
        let mut tree = tree();
        change::<Pool>(&mut tree, POOL, |pool| pool.algorithm = Algorithm::PowerOfTwoChoices);
        let demand = Demand::of(&tree, &Capabilities::ALL, &crate::status::Observation::default()).unwrap();
        let port = PortRecord::new(vec!["10.0.0.5/24".parse().unwrap()]);
        let sent = |able| {
            let mut configuration = Configuration::default();
            add_tree(&mut configuration, &tree, &demand, &port, &Facts { able });
            (configuration.listeners.len(), configuration.pools[&POOL].algorithm())
        };
        assert_eq!(sent(true), (1, v1::Algorithm::PowerOfTwoChoices));
        assert_eq!(sent(false), (0, v1::Algorithm::RoundRobin));
    }

    #[test]
    fn a_drain_timeout_is_sent_and_that_of_nought_is_one() {
        for timeout in [None, Some(0), Some(5_000)] {
            let mut tree = tree();
            change::<Pool>(&mut tree, POOL, |pool| pool.drain_timeout_ms = timeout);
            let message = pool(&tree, &tree.pools[&POOL], None, &Facts { able: true }, || NodePlace::ALONE);
            assert_eq!(message.drain_timeout_ms, timeout);
        }
    }

    #[test]
    fn slow_starts_and_passive_health_checks_are_sent() {
        let mut tree = tree();
        let sent =
            |tree: &Tree| pool(tree, &tree.pools[&POOL], None, &Facts { able: true }, || NodePlace::ALONE);
        assert_eq!((sent(&tree).slow_start_ms, sent(&tree).passive_health_check), (0, None));
        let check = PassiveHealthCheck {
            consecutive_failures: 3,
            ejection_ms: 10_000,
            max_ejection_ms: 60_000,
            max_ejected_percent: 20,
        };
        change::<Pool>(&mut tree, POOL, |pool| {
            (pool.slow_start_ms, pool.passive_health_check) = (Some(30_000), Some(check));
        });
        assert_eq!(sent(&tree).slow_start_ms, 30_000);
        let wanted = v1::PassiveHealthCheck {
            consecutive_failures: 3,
            ejection_ms: 10_000,
            max_ejection_ms: 60_000,
            max_ejected_percent: 20,
        };
        assert_eq!(sent(&tree).passive_health_check, Some(wanted));
    }

    #[test]
    fn a_node_gets_its_part_of_limits_and_the_one_that_has_the_vip_all_of_them() {
        for (exposure, parts) in [(Exposure::Auto, 3), (Exposure::Direct, 1)] {
            let mut tree = tree();
            change::<Listener>(&mut tree, LISTENER, |listener| {
                listener.exposure = exposure;
                listener.limits.connections = Some(300);
                listener.limits.client_connections = Some(300);
            });
            change::<Backend>(&mut tree, BACKENDS[0], |backend| backend.connection_limit = 30);
            change::<Pool>(&mut tree, POOL, |pool| pool.queue_limit = 100);
            let before = crate::status::Observation::default();
            let demand = Demand::of(&tree, &Capabilities::ALL, &before).unwrap();
            let port = PortRecord::new(vec!["10.0.0.5/24".parse().unwrap()]);
            let mut configuration = Configuration::default();
            add_tree(&mut configuration, &tree, &demand, &port, &Facts { able: true });
            let (listener, pool) = (&configuration.listeners[&LISTENER], &configuration.pools[&POOL]);
            assert_eq!((listener.connection_limit, listener.connection_share), (300, Some(300 / parts)));
            assert_eq!(listener.client_connection_limit, 300, "of a node");
            let limits: Vec<Option<u32>> = pool.backends.iter().map(|it| it.connection_limit).collect();
            assert_eq!(limits, [Some(30 / parts), None, None]);
            assert_eq!((pool.queue_limit, pool.queue_timeout_ms), (100, 5_000));
        }
    }

    #[test]
    fn pools_that_share_are_sent_with_their_weights_and_one_alone_as_ever() {
        const OTHER: Uuid = Uuid::from_u128(33);
        let sent = |weights: &[(Uuid, u16)]| {
            let mut tree = tree();
            put(&mut tree, OTHER, crate::resources::examples::pool());
            let pools =
                weights.iter().map(|(pool_id, weight)| WeightedPool { pool_id: *pool_id, weight: *weight });
            change::<Listener>(&mut tree, LISTENER, |listener| {
                listener.datapath = Datapath::Proxy;
                (listener.default_pool_id, listener.weighted_pools) = (None, pools.collect());
            });
            let before = crate::status::Observation::default();
            let demand = Demand::of(&tree, &Capabilities::ALL, &before).unwrap();
            let port = PortRecord::new(vec!["10.0.0.5/24".parse().unwrap()]);
            let mut configuration = Configuration::default();
            add_tree(&mut configuration, &tree, &demand, &port, &Facts { able: true });
            let v1::Listener { pool_id, weighted_pools, .. } = (*configuration.listeners[&LISTENER]).clone();
            (pool_id, weighted_pools, configuration.pools.len())
        };
        let pool = |id: Uuid, weight| v1::WeightedPool { pool_id: id.to_string(), weight };
        let both = vec![pool(POOL, 90), pool(OTHER, 0)];
        assert_eq!(sent(&[(POOL, 90), (OTHER, 0)]), (String::new(), both, 2));
        assert_eq!(sent(&[(OTHER, 7)]), (OTHER.to_string(), Vec::new(), 2), "the other one is checked");
        assert_eq!(sent(&[]), (String::new(), Vec::new(), 1));
    }

    #[test]
    fn a_list_is_sent_if_it_turns_clients_away() {
        let sent = |cidrs: &[&str]| {
            let mut tree = tree();
            change::<Listener>(&mut tree, LISTENER, |listener| {
                listener.datapath = Datapath::Proxy;
                listener.allowed_cidrs = cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
            });
            let listener = &tree.listeners[&LISTENER];
            self::listener(&tree, listener, v1::Protocol::Tcp, &[], |limit| limit).allowed_cidrs
        };
        assert_eq!(sent(&["10.0.0.0/8", "fd00::/8"]), ["10.0.0.0/8", "fd00::/8"]);
        assert_eq!(sent(&["0.0.0.0/0"]), [""; 0], "nodes that do not know it can serve it");
    }

    #[test]
    fn a_protocol_is_sent_if_and_only_if_proxies_carry_it() {
        use ListenerProtocol::{Https, Sctp, Tcp, Udp};
        for it in [Tcp, Udp, Sctp, Https] {
            assert_eq!(protocol(it).is_some(), it.is_proxied(), "{it:?}");
        }
    }
}
