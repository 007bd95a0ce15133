//! Networks, pools and listeners as the plugin sends them.

use std::net::IpAddr;

use fiberlb_proto::agent::v1;
use uuid::Uuid;

/// Proxy port of the listeners.
pub(crate) const PORT: u16 = 10_000;
/// The node's own address on each network.
pub(crate) const NODE: &str = "10.0.0.250";

/// A tenant network. All have the same addresses.
pub(crate) fn network(id: Uuid) -> v1::Network {
    let [a, b, c, d, ..] = *id.as_bytes();
    v1::Network {
        id: id.to_string(),
        port_name: format!("port-{id}"),
        mac: format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}"),
        addresses: vec![format!("{NODE}/24"), "fd00::250/64".to_owned()],
        gateways: vec!["10.0.0.1".to_owned()],
        routes: vec![v1::Route { destination: "10.9.0.0/24".to_owned(), next_hop: "10.0.0.9".to_owned() }],
        source_addresses: Vec::new(),
        mtu: 1400,
        vips: Vec::new(),
        answered_vips: Vec::new(),
        node_addresses: vec![NODE.to_owned(), "fd00::250".to_owned()],
    }
}

/// A VIP on a network.
pub(crate) fn vip(address: &str, held: bool) -> v1::Vip {
    let address: IpAddr = address.parse().unwrap();
    let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, address.to_string().as_bytes());
    v1::Vip { id: id.to_string(), address: address.to_string(), held }
}

/// A listener on the node's own address.
pub(crate) fn listener(id: Uuid, network: Uuid, pool: Uuid) -> v1::Listener {
    v1::Listener {
        id: id.to_string(),
        load_balancer_id: Uuid::from_u128(99).to_string(),
        network_id: network.to_string(),
        bind_addresses: vec![format!("{NODE}:{PORT}")],
        pool_id: pool.to_string(),
        enabled: true,
        connection_limit: 0,
        client_data_timeout_ms: 10_000,
        backend_connect_timeout_ms: 2_000,
        backend_data_timeout_ms: 10_000,
        protocol: v1::Protocol::Tcp.into(),
        generation: 1,
        vips: Vec::new(),
        name: "http".to_owned(),
        load_balancer_name: "web".to_owned(),
        project_id: "shop".to_owned(),
        allowed_cidrs: Vec::new(),
        trusted_proxies: Vec::new(),
        ..v1::Listener::default()
    }
}

/// A backend.
pub(crate) fn backend(id: Uuid, address: &str) -> v1::Backend {
    let address = address.to_owned();
    v1::Backend {
        id: id.to_string(),
        monitor_address: address.clone(),
        address,
        weight: 1,
        backup: false,
        enabled: true,
        probation: false,
        connection_limit: None,
    }
}

/// A pool without a check.
pub(crate) fn pool(id: Uuid, network: Uuid, backends: Vec<v1::Backend>) -> v1::Pool {
    v1::Pool {
        id: id.to_string(),
        network_id: network.to_string(),
        algorithm: v1::Algorithm::RoundRobin.into(),
        enabled: true,
        backends,
        ..v1::Pool::default()
    }
}

/// A TCP check that finds a flip within a fraction of a second.
pub(crate) fn check() -> v1::Check {
    v1::Check { http: None, delay_ms: 100, timeout_ms: 100, rise: 1, fall: 2 }
}

/// One network with one listener on one backend, `10.0.0.1:8080`, which is the far end of its link.
pub(crate) fn simple(network_id: Uuid) -> v1::Update {
    let [pool_id, listener_id, backend_id] = parts(network_id);
    v1::Update {
        networks: vec![network(network_id)],
        pools: vec![pool(pool_id, network_id, vec![backend(backend_id, "10.0.0.1:8080")])],
        listeners: vec![listener(listener_id, network_id, pool_id)],
        ..v1::Update::default()
    }
}

/// Ids of pool, listener and backend of [`simple`].
pub(crate) fn parts(network: Uuid) -> [Uuid; 3] {
    ["pool", "listener", "backend"].map(|name| Uuid::new_v5(&network, name.as_bytes()))
}
