//! Resources for tests of the agent's parts.

use fiberlb_proto::agent::v1;
use proptest::prelude::*;
use uuid::Uuid;

pub(crate) fn id(number: u8) -> Uuid {
    Uuid::from_u128(u128::from(number) + 1)
}

pub(crate) fn network(number: u8) -> v1::Network {
    v1::Network {
        id: id(number).to_string(),
        port_name: format!("port-{number}"),
        mac: format!("02:00:00:00:00:{number:02x}"),
        addresses: vec!["10.0.0.5/24".to_owned(), "fd00::5/64".to_owned()],
        gateways: vec!["10.0.0.1".to_owned()],
        routes: vec![v1::Route { destination: "10.9.0.0/24".to_owned(), next_hop: "10.0.0.9".to_owned() }],
        source_addresses: Vec::new(),
        answered_vips: Vec::new(),
        mtu: 1400,
        node_addresses: vec!["10.0.0.5".to_owned(), "10.0.0.6".to_owned(), "fd00::5".to_owned()],
        vips: vec![v1::Vip { id: id(200).to_string(), address: "10.0.0.9".to_owned(), held: true }],
    }
}

pub(crate) fn listener(number: u8) -> v1::Listener {
    v1::Listener {
        id: id(number).to_string(),
        load_balancer_id: id(0).to_string(),
        network_id: id(0).to_string(),
        bind_addresses: vec!["10.0.0.5:10000".to_owned()],
        pool_id: id(1).to_string(),
        enabled: true,
        generation: 3,
        ..v1::Listener::default()
    }
}

pub(crate) fn backend(number: u8) -> v1::Backend {
    v1::Backend {
        id: id(number).to_string(),
        address: format!("10.0.1.{number}:80"),
        weight: 1,
        backup: false,
        enabled: true,
        monitor_address: format!("10.0.1.{number}:81"),
        probation: false,
        connection_limit: None,
    }
}

pub(crate) fn pool(number: u8, backends: Vec<v1::Backend>) -> v1::Pool {
    let check = v1::Check { http: None, delay_ms: 1000, timeout_ms: 500, rise: 2, fall: 3 };
    v1::Pool {
        id: id(number).to_string(),
        network_id: id(0).to_string(),
        algorithm: v1::Algorithm::RoundRobin.into(),
        enabled: true,
        backends,
        check: Some(check),
        ..v1::Pool::default()
    }
}

/// Updates of a small world, good and bad resources among them, so that changes meet each other.
pub(crate) fn update() -> impl Strategy<Value = v1::Update> {
    let few = 0..5_u8;
    let networks = prop::collection::vec((few.clone(), 60..1500_u32), 0..3);
    let pools = prop::collection::vec(
        (few.clone(), prop::collection::btree_map(0..6_u8, any::<(bool, bool)>(), 0..4), 0..300_u32),
        0..3,
    );
    let listeners = prop::collection::vec(
        (
            few.clone(),
            any::<u64>(),
            prop::sample::select(vec!["10.0.0.5:1", "x"]),
            prop::sample::select(vec![0, 1, 99]),
        ),
        0..3,
    );
    let gone = prop::collection::vec((0..3_u8, few), 0..3);
    (networks, pools, listeners, gone).prop_map(|(networks, pools, listeners, gone)| {
        let backend = |(number, (probation, enabled)): (u8, (bool, bool)), weight| v1::Backend {
            probation,
            enabled,
            weight,
            ..backend(number)
        };
        let gone = |kind: u8| {
            gone.iter().filter(|(of, _)| *of == kind).map(|(_, number)| id(*number).to_string()).collect()
        };
        v1::Update {
            networks: networks
                .into_iter()
                .map(|(number, mtu)| v1::Network { mtu, ..network(number) })
                .collect(),
            pools: pools
                .into_iter()
                .map(|(number, backends, weight)| {
                    pool(number, backends.into_iter().map(|it| backend(it, weight)).collect())
                })
                .collect(),
            listeners: listeners
                .into_iter()
                .map(|(number, generation, address, protocol)| v1::Listener {
                    generation,
                    protocol,
                    bind_addresses: vec![address.to_owned()],
                    ..listener(number)
                })
                .collect(),
            removed_network_ids: gone(0),
            removed_pool_ids: gone(1),
            removed_listener_ids: gone(2),
            ..v1::Update::default()
        }
    })
}
