use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::configuration::fixture::{backend, id, listener, network, pool, update};
use crate::dataplane::PassiveHealthSpec;

fn change(update: v1::Update) -> Change {
    Change::try_from(update).unwrap()
}

fn with(update: v1::Update) -> Configuration {
    Configuration::default().changed(change(update))
}

/// The kinds and ids that are in force.
fn in_force(configuration: &Configuration) -> Vec<(ResourceKind, Uuid)> {
    let networks = configuration.networks.keys().map(|id| (ResourceKind::Network, *id));
    let pools = configuration.pools.keys().map(|id| (ResourceKind::Pool, *id));
    let listeners = configuration.listeners.keys().map(|id| (ResourceKind::Listener, *id));
    networks.chain(pools).chain(listeners).collect()
}

#[test]
fn a_gateway_without_an_address_of_its_family_is_left_out() {
    let mut wire = network(1);
    wire.gateways = vec!["10.0.0.1".to_owned(), "fe80::1".to_owned()];
    let gateways = |wire: &v1::Network| Network::read(id(1), wire).unwrap().gateways.len();
    assert_eq!(gateways(&wire), 2);
    wire.addresses.retain(|address| address.contains('.'));
    assert_eq!(gateways(&wire), 1);
    let routes = |wire: &v1::Network| Network::read(id(1), wire).unwrap().routes.len();
    assert_eq!(routes(&wire), 1);
    wire.addresses = vec!["fd00::5/64".to_owned()];
    assert_eq!(routes(&wire), 0);
}

#[test]
fn a_check_that_goes_elsewhere_than_clients_says_nothing_of_what_they_meet() {
    let at = |address: &str| v1::Backend { monitor_address: address.to_owned(), ..backend(1) };
    let clients_go_to = backend(1).address;
    let is_checked = |listener: v1::Listener, backend: v1::Backend, check: bool| {
        let mut pool = pool(1, vec![backend]);
        pool.check = pool.check.filter(|_| check);
        let update = v1::Update { listeners: vec![listener], pools: vec![pool], ..v1::Update::default() };
        with(update).is_checked(id(3))
    };
    assert!(is_checked(listener(3), at(&clients_go_to), true));
    assert!(!is_checked(listener(3), at(&clients_go_to), false));
    assert!(!is_checked(listener(3), at("10.0.1.1:81"), true), "another port");
    let range = v1::Listener { port_count: 2, ..listener(3) };
    assert!(!is_checked(range, at(&clients_go_to), true), "the first of two ports");
    assert!(!is_checked(v1::Listener { pool_id: String::new(), ..listener(3) }, at(&clients_go_to), true));
}

#[test]
fn every_bad_field_is_refused_by_its_name() {
    type Spoil<T> = fn(&mut T);
    let networks: [(&str, Spoil<v1::Network>); 24] = [
        ("node_addresses", |it| it.node_addresses.push("10.0.0.5/24".to_owned())),
        ("port_name", |it| it.port_name.clear()),
        ("port_name", |it| it.port_name = "a\n".to_owned()),
        ("mac", |it| it.mac = "02:00".to_owned()),
        ("mac", |it| it.mac = "01:00:00:00:00:01".to_owned()),
        ("mac", |it| it.mac = "00:00:00:00:00:00".to_owned()),
        ("addresses", |it| it.addresses.clear()),
        ("addresses", |it| it.addresses = vec!["10.0.0.5".to_owned()]),
        ("addresses", |it| it.addresses = vec!["127.0.0.1/8".to_owned()]),
        ("addresses", |it| it.addresses.push("10.0.1.5/24".to_owned())),
        ("gateways", |it| it.gateways = vec!["x".to_owned()]),
        ("gateways", |it| it.gateways.push("10.0.0.2".to_owned())),
        ("source_addresses", |it| it.source_addresses.push("10.0.0.6".to_owned())),
        ("source_addresses", |it| it.source_addresses.push(it.addresses[0].clone())),
        ("routes", |it| it.routes.push(it.routes[0].clone())),
        ("routes.destination", |it| it.routes[0].destination = "10.9.0.1/24".to_owned()),
        ("routes.destination", |it| it.routes[0].destination = "0.0.0.0/0".to_owned()),
        ("routes.next_hop", |it| it.routes[0].next_hop = "x".to_owned()),
        ("routes.next_hop", |it| it.routes[0].next_hop = "fd00::9".to_owned()),
        ("mtu", |it| it.mtu = 1000),
        ("mtu", |it| it.mtu = 70_000),
        ("vips", |it| it.vips.push(it.vips[0].clone())),
        ("vips", |it| it.vips[0].address = "10.0.0.5".to_owned()),
        ("vips.id", |it| it.vips[0].id = "x".to_owned()),
    ];
    for (name, spoil) in networks {
        let mut wire = network(1);
        assert!(Network::read(id(1), &wire).is_ok());
        spoil(&mut wire);
        let error = Network::read(id(1), &wire).unwrap_err().to_string();
        assert!(error.starts_with(name), "{error}");
    }
    let pools: [(&str, Spoil<v1::Pool>); 9] = [
        ("network_id", |it| it.network_id = "x".to_owned()),
        ("algorithm", |it| it.algorithm = 99),
        ("backends has", |it| it.backends.push(it.backends[0].clone())),
        ("backends.id", |it| it.backends[0].id.clear()),
        ("backends.address", |it| it.backends[0].address = "10.0.0.1:0".to_owned()),
        ("backends.address", |it| it.backends[0].address = "127.0.0.1:80".to_owned()),
        ("backends.weight", |it| it.backends[0].weight = 257),
        ("backends.monitor_address", |it| it.backends[0].monitor_address = "0.0.0.0:80".to_owned()),
        ("check", |it| it.check.as_mut().unwrap().timeout_ms = 0),
    ];
    for (name, spoil) in pools {
        let mut wire = pool(1, vec![backend(1)]);
        assert!(Pool::read(id(1), &wire).is_ok());
        spoil(&mut wire);
        let error = Pool::read(id(1), &wire).unwrap_err().to_string();
        assert!(error.starts_with(name), "{error}");
    }
    let listeners: [(&str, Spoil<v1::Listener>); 13] = [
        ("vips", |it| it.vips.push("x".to_owned())),
        ("load_balancer_id", |it| it.load_balancer_id.clear()),
        ("network_id", |it| it.network_id.clear()),
        ("bind_addresses", |it| it.bind_addresses.clear()),
        ("bind_addresses", |it| it.bind_addresses = vec!["10.0.0.5".to_owned()]),
        ("bind_addresses", |it| it.bind_addresses.push(it.bind_addresses[0].clone())),
        ("port_count", |it| it.port_count = 1_001),
        ("port_count", |it| (it.port_count, it.port) = (3, 65_534)),
        ("port_count", |it| (it.port_count, it.bind_addresses) = (3, vec!["10.0.0.5:65534".to_owned()])),
        ("pool_id", |it| it.pool_id = "x".to_owned()),
        ("protocol is 99", |it| it.protocol = 99),
        ("client_data_timeout_ms", |it| it.client_data_timeout_ms = u64::MAX),
        ("half_close_timeout_ms", |it| it.half_close_timeout_ms = u64::MAX),
    ];
    for (name, spoil) in listeners {
        let mut wire = listener(1);
        assert!(Listener::read(id(1), &wire).is_ok());
        spoil(&mut wire);
        let error = Listener::read(id(1), &wire).unwrap_err().to_string();
        assert!(error.starts_with(name), "{error}");
    }
}

#[test]
fn the_last_good_form_stays_until_a_good_one_comes_or_it_goes() {
    let good = |generation| v1::Listener { generation, ..listener(1) };
    let bad = v1::Listener { bind_addresses: Vec::new(), ..good(2) };
    let listeners = |listeners: Vec<v1::Listener>| v1::Update { listeners, ..v1::Update::default() };
    let refused = with(listeners(vec![good(1)])).changed(change(listeners(vec![bad.clone()])));
    assert_eq!(refused.listeners[&id(1)].value.generation, 1);
    assert_eq!(refused.generation(id(1)), 2);

    let healed = refused.changed(change(listeners(vec![good(3)])));
    assert!(healed.refused.is_empty());
    assert_eq!(healed.generation(id(1)), 3);

    // A snapshot with the bad form: it is wanted, so that what is in force of it stays.
    let again = refused.replaced([change(listeners(vec![bad]))]);
    assert_eq!(in_force(&again), [(ResourceKind::Listener, id(1))]);
    let gone = v1::Update { removed_listener_ids: vec![id(1).to_string()], ..v1::Update::default() };
    assert_eq!(refused.changed(change(gone)), Configuration::default());
}

#[test]
fn a_listener_of_an_unknown_protocol_is_refused_and_not_served_in_its_old_one() {
    let listeners = |protocol| {
        change(v1::Update {
            listeners: vec![v1::Listener { protocol, ..listener(1) }],
            ..v1::Update::default()
        })
    };
    let before = Configuration::default().changed(listeners(v1::Protocol::Tcp.into()));
    assert_eq!(before, Configuration::default().changed(listeners(v1::Protocol::Tcp.into())));
    for after in [before.changed(listeners(99)), before.replaced([listeners(99)])] {
        assert!(in_force(&after).is_empty(), "its last good form would be served as TCP");
        let refusal = &after.refused[&(ResourceKind::Listener, id(1))];
        assert!(refusal.reason.to_string().contains("update fiberlb-proxy"), "{}", refusal.reason);
        assert_eq!(in_force(&after.changed(listeners(0))), in_force(&before), "an older plugin sends none");
        let bad = v1::Listener { bind_addresses: Vec::new(), ..listener(1) };
        let bad = change(v1::Update { listeners: vec![bad], ..v1::Update::default() });
        assert!(in_force(&after.changed(bad)).is_empty(), "its last good form is void");
    }
}

#[test]
fn a_listener_whose_list_of_clients_cannot_be_read_is_served_for_none() {
    let listeners = |cidrs: &[&str]| {
        let allowed_cidrs = cidrs.iter().map(|cidr| (*cidr).to_owned()).collect();
        change(v1::Update {
            listeners: vec![v1::Listener { allowed_cidrs, ..listener(1) }],
            ..v1::Update::default()
        })
    };
    for before in [&[][..], &["10.0.0.0/8"]] {
        let before = Configuration::default().changed(listeners(before));
        assert_eq!(in_force(&before).len(), 1);
        for bad in [vec!["10.0.0.0/8", "x"], vec!["10.0.0.0/8"; 10_001]] {
            assert!(in_force(&before.changed(listeners(&bad))).is_empty());
        }
    }
}

#[test]
fn proxies_whose_list_cannot_be_read_are_not_trusted_as_before() {
    let listeners = |trusted_proxies: &[&str]| {
        let trusted_proxies = trusted_proxies.iter().map(|cidr| (*cidr).to_owned()).collect();
        let listener = v1::Listener { trusted_proxies, port: 443, ..listener(1) };
        change(v1::Update { listeners: vec![listener], ..v1::Update::default() })
    };
    let before = Configuration::default().changed(listeners(&["10.0.0.9/32"]));
    assert_eq!(before.listeners[&id(1)].value.port, Some(443));
    for bad in [vec!["10.0.0.9/32", "x"], vec!["10.0.0.9/32"; 10_001]] {
        assert!(in_force(&before.changed(listeners(&bad))).is_empty());
    }
}

#[test]
fn weighted_pools_stand_in_place_of_one_and_wrong_ones_are_refused() {
    let weighted = |number, weight| v1::WeightedPool { pool_id: id(number).to_string(), weight };
    let listeners = |weighted_pools: Vec<v1::WeightedPool>| {
        let listener = v1::Listener { weighted_pools, ..listener(1) };
        with(v1::Update { listeners: vec![listener], ..v1::Update::default() })
    };
    let pools = |configuration: Configuration| -> Option<Vec<(Uuid, u16)>> {
        let listener = configuration.listeners.get(&id(1))?;
        Some(listener.value.pools.iter().map(|pool| (pool.id, pool.weight)).collect())
    };
    assert_eq!(pools(listeners(Vec::new())), Some(vec![(id(1), 1)]));
    let both = vec![weighted(2, 256), weighted(3, 0)];
    assert_eq!(pools(listeners(both)), Some(vec![(id(2), 256), (id(3), 0)]));
    let many = (0..101).map(|number| weighted(number, 1)).collect();
    for bad in [vec![weighted(2, 257)], vec![weighted(2, 1), weighted(2, 2)], many] {
        assert_eq!(pools(listeners(bad)), None);
    }
}

#[test]
fn a_pool_with_a_header_of_an_unknown_version_is_not_used_without_it() {
    let pools = |version| {
        let at = v1::Backend { monitor_address: "10.0.1.1:80".to_owned(), ..backend(1) };
        let pool = v1::Pool { proxy_protocol: version, ..pool(1, vec![at, backend(2)]) };
        change(v1::Update { pools: vec![pool], ..v1::Update::default() })
    };
    let before = Configuration::default().changed(pools(v1::ProxyProtocol::V2.into()));
    assert_eq!(in_force(&before).len(), 1);
    assert!(in_force(&before.changed(pools(99))).is_empty());
    let checks: Vec<_> = before.pools[&id(1)].value.checked().map(|(_, check)| check).collect();
    let plain = Configuration::default().changed(pools(0));
    let plain: Vec<_> = plain.pools[&id(1)].value.checked().map(|(_, check)| check).collect();
    assert_eq!((checks[0] == plain[0], checks[1] == plain[1]), (false, true), "elsewhere there is no header");
}

#[test]
fn a_drain_timeout_of_nought_is_one_and_a_long_one_is_cut_to_a_day() {
    let drain = |millis| {
        let pool = v1::Pool { drain_timeout_ms: millis, ..pool(1, Vec::new()) };
        let update = v1::Update { pools: vec![pool], ..v1::Update::default() };
        with(update).pools[&id(1)].value.drain_timeout
    };
    assert_eq!(drain(None), None);
    assert_eq!(drain(Some(0)), Some(Duration::ZERO));
    assert_eq!(drain(Some(1_500)), Some(Duration::from_millis(1_500)));
    assert_eq!(drain(Some(u32::MAX)), Some(Duration::from_secs(86_400)));
}

#[test]
fn a_slow_start_is_kept_within_its_bounds_and_is_none_of_algorithms_that_hash() {
    let slow_start = |slow_start_ms, algorithm: v1::Algorithm| {
        let pool = v1::Pool { slow_start_ms, algorithm: algorithm.into(), ..pool(1, Vec::new()) };
        let update = v1::Update { pools: vec![pool], ..v1::Update::default() };
        with(update).pools[&id(1)].value.slow_start
    };
    for (given, kept) in [(0, None), (1, Some(1_000)), (30_500, Some(30_500)), (u32::MAX, Some(3_600_000))] {
        let kept = kept.map(Duration::from_millis);
        assert_eq!(slow_start(given, v1::Algorithm::RoundRobin), kept);
        assert_eq!(slow_start(given, v1::Algorithm::PowerOfTwoChoices), kept);
        assert_eq!(slow_start(given, v1::Algorithm::SourceIp), None);
    }
}

#[test]
fn a_passive_health_check_is_kept_within_its_bounds() {
    let read = |check| {
        let pool = v1::Pool { passive_health_check: check, ..pool(1, Vec::new()) };
        let update = v1::Update { pools: vec![pool], ..v1::Update::default() };
        with(update).pools[&id(1)].value.passive_health
    };
    let check = |consecutive_failures, ejection_ms, max_ejection_ms, max_ejected_percent| {
        Some(v1::PassiveHealthCheck {
            consecutive_failures,
            ejection_ms,
            max_ejection_ms,
            max_ejected_percent,
        })
    };
    let kept = |consecutive_failures, ejection, max_ejection, max_ejected_percent| {
        let [ejection, max_ejection] = [ejection, max_ejection].map(Duration::from_millis);
        Some(PassiveHealthSpec { consecutive_failures, ejection, max_ejection, max_ejected_percent })
    };
    assert_eq!(read(None), None);
    assert_eq!(read(check(5, 30_000, 300_000, 50)), kept(5, 30_000, 300_000, 50));
    assert_eq!(read(check(0, 0, 0, 0)), kept(1, 1_000, 1_000, 1));
    assert_eq!(read(check(5, 30_000, 10_000, 50)), kept(5, 30_000, 30_000, 50));
    let most = check(u32::MAX, u64::MAX, u64::MAX, u32::MAX);
    assert_eq!(read(most), kept(100, 3_600_000, 86_400_000, 100));
}

#[test]
fn limits_of_nought_are_none_but_for_a_nodes_part_and_what_is_out_of_bounds_is_cut() {
    use crate::dataplane::{Limits, QueueSpec};
    let limits = |listener: v1::Listener| {
        let update = v1::Update { listeners: vec![listener], ..v1::Update::default() };
        with(update).listeners[&id(1)].value.limits
    };
    assert_eq!(limits(listener(1)), Limits::default());
    let some = v1::Listener {
        connection_limit: 4,
        connection_share: Some(3),
        client_connection_limit: 5,
        connection_rate: 6,
        client_connection_rate: 7,
        bandwidth_limit: 8,
        half_close_timeout_ms: 9,
        ..listener(1)
    };
    let all = Limits {
        connections: Some(3),
        client_connections: Some(5),
        connection_rate: Some(6),
        client_connection_rate: Some(7),
        bandwidth: Some(1_024),
        half_close: Some(Duration::from_millis(9)),
        ..Limits::default()
    };
    assert_eq!(limits(some), all);
    let shared = |connection_limit, connection_share| {
        limits(v1::Listener { connection_limit, connection_share, ..listener(1) }).connections
    };
    assert_eq!([shared(4, Some(0)), shared(4, None), shared(0, Some(0))], [Some(0), Some(4), None]);

    let backends = [None, Some(0), Some(9)].into_iter().enumerate().map(|(number, connection_limit)| {
        v1::Backend { connection_limit, ..backend(10 + u8::try_from(number).unwrap()) }
    });
    let update = v1::Pool { queue_limit: 20_000, queue_timeout_ms: u32::MAX, ..pool(1, backends.collect()) };
    let pool_of =
        |pool| with(v1::Update { pools: vec![pool], ..v1::Update::default() }).pools[&id(1)].value.clone();
    let read = pool_of(update);
    let parts: Vec<Option<u32>> = read.backends.iter().map(|backend| backend.connection_limit).collect();
    assert_eq!(parts, [None, Some(0), Some(9)]);
    assert_eq!(read.queue, Some(QueueSpec { limit: 10_000, timeout: Duration::from_secs(3_600) }));
    assert_eq!(pool_of(pool(1, Vec::new())).queue, None);
}

#[test]
fn who_has_proved_itself_is_not_put_on_probation_again() {
    let on_probation = |backend: v1::Backend| v1::Backend { probation: true, ..backend };
    let pools = |backends| v1::Update { pools: vec![pool(1, backends)], ..v1::Update::default() };
    let before =
        with(pools(vec![backend(1), on_probation(backend(2)), v1::Backend { enabled: false, ..backend(3) }]));
    let all = (1..5).map(|number| on_probation(backend(number))).collect();
    let after = before.changed(change(pools(all)));
    let flags: Vec<bool> = after.pools[&id(1)].value.backends.iter().map(|it| it.probation).collect();
    assert_eq!(flags, [false, true, true, true]);
}

proptest! {
    #[test]
    fn a_snapshot_is_what_its_parts_say_and_nothing_else(before in update(), parts in prop::collection::vec(update(), 0..4)) {
        let before = with(before);
        let replaced = before.replaced(parts.iter().cloned().map(change));
        let alone = Configuration::default().replaced(parts.iter().cloned().map(change));
        // What is refused in both may have its last good form from before; the rest comes from the snapshot
        // alone.
        prop_assert_eq!(&replaced.refused, &alone.refused);
        for key in in_force(&replaced) {
            prop_assert!(in_force(&alone).contains(&key) || (replaced.refused.contains_key(&key) && in_force(&before).contains(&key)));
        }
        for key in in_force(&alone) {
            prop_assert!(in_force(&replaced).contains(&key));
        }
    }

    #[test]
    fn changes_one_by_one_are_the_same_as_a_snapshot_of_them(parts in prop::collection::vec(update(), 0..5)) {
        let one_by_one = parts.iter().cloned().fold(Configuration::default(), |it, part| it.changed(change(part)));
        let at_once = Configuration::default().replaced(parts.into_iter().map(change));
        prop_assert_eq!(one_by_one, at_once);
    }

    #[test]
    fn what_did_not_change_is_the_same_allocation(update in update()) {
        let before = with(update);
        let said_again = [change(v1::Update::from(&before))];
        for after in [before.changed(said_again[0].clone()), before.replaced(said_again)] {
            prop_assert_eq!(in_force(&after), in_force(&before));
            prop_assert!(after.networks.iter().all(|(id, item)| Arc::ptr_eq(item, &before.networks[id])));
            prop_assert!(after.pools.iter().all(|(id, item)| Arc::ptr_eq(item, &before.pools[id])));
            prop_assert!(after.listeners.iter().all(|(id, item)| Arc::ptr_eq(item, &before.listeners[id])));
        }
    }
}
