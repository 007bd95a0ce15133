use super::*;
use crate::resources::examples::{
    BACKENDS, LISTENER, LOAD_BALANCER, PASSIVE, POOL, change, listener, pool, put, tree,
};
use crate::resources::{Backend, LoadBalancer, ProxyLimits, WeightedPool};

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
}

#[test]
fn algorithms_of_proxies_name_themselves_and_random_ones_need_nodes_that_know_them() {
    let all = Capabilities::ALL;
    let by = |algorithm: Algorithm, edit: fn(&mut Listener)| {
        let mut tree = with(edit);
        change::<Pool>(&mut tree, POOL, |pool| pool.algorithm = algorithm);
        tree
    };
    for (algorithm, name, needed) in [
        (Algorithm::LeastConnections, "LEAST_CONNECTIONS", "capability tcp"),
        (Algorithm::Random, "RANDOM", "capabilities random, tcp"),
        (Algorithm::PowerOfTwoChoices, "POWER_OF_TWO_CHOICES", "capabilities random, tcp"),
    ] {
        let tree = by(algorithm, |_| {});
        let listener = &tree.listeners[&LISTENER].spec;
        let reason = format!("the pool's algorithm {name} needs it");
        assert_eq!(decide(&tree, listener, &all).unwrap(), proxied(&tree, reason));
        assert_eq!(needed_features(&tree, listener).to_string(), needed);
        let ovn = by(algorithm, |listener| listener.datapath = Datapath::Ovn);
        assert_eq!(decided(&ovn, &all), Err("default_pool_id"));
        let sctp = by(algorithm, |listener| listener.protocol = ListenerProtocol::Sctp);
        assert_eq!(decided(&sctp, &all), Err("default_pool_id"));
    }
    for algorithm in [Algorithm::RoundRobin, Algorithm::SourceIp, Algorithm::SourceIpPort] {
        assert_eq!(decided(&by(algorithm, |_| {}), &all), Ok(Carrier::Ovn));
    }
}

#[test]
fn what_cannot_be_had_together_names_the_field() {
    let all = Capabilities::ALL;
    let limits = ProxyLimits { client_data_ms: Some(1), ..ProxyLimits::default() };
    let ovn = with(|listener| (listener.datapath, listener.limits) = (Datapath::Ovn, limits));
    assert_eq!(decided(&ovn, &all), Err("client_data_timeout"));
    let sctp = with(|listener| {
        (listener.protocol, listener.datapath) = (ListenerProtocol::Sctp, Datapath::Proxy);
    });
    assert_eq!(decided(&sctp, &all), Err("datapath"));
    let direct = with(|listener| {
        (listener.protocol, listener.exposure) = (ListenerProtocol::Sctp, Exposure::Direct);
    });
    assert_eq!(decided(&direct, &all), Err("exposure"));
    let conflict = decide(&direct, &direct.listeners[&LISTENER].spec, &all).unwrap_err();
    assert_eq!(conflict.reason, "DIRECT exposure needs the proxy, which does not carry SCTP");
}

#[test]
fn udp_is_balanced_by_ovn_and_proxied_for_what_ovn_lacks_by_nodes_that_know_it() {
    let all = Capabilities::ALL;
    let udp = |edit: fn(&mut Listener)| {
        with(|listener| {
            listener.protocol = ListenerProtocol::Udp;
            edit(listener);
        })
    };
    assert_eq!(decided(&udp(|_| {}), &all), Ok(Carrier::Ovn));
    type Edit = fn(&mut Listener);
    let proxied: [(Edit, Carrier); 4] = [
        (|listener| listener.datapath = Datapath::Proxy, Carrier::Proxy),
        (|listener| listener.exposure = Exposure::Direct, Carrier::Direct),
        (|listener| listener.limits.connections = Some(10), Carrier::Proxy),
        (
            |listener| listener.allowed_cidrs = ["10.0.0.0/8".parse().unwrap()].into_iter().collect(),
            Carrier::Proxy,
        ),
    ];
    for (edit, carrier) in proxied {
        let tree = udp(edit);
        assert_eq!(decided(&tree, &all), Ok(carrier));
        let needed = needed_features(&tree, &tree.listeners[&LISTENER].spec);
        assert!(needed.words().any(|word| word == "udp") && !needed.words().any(|word| word == "tcp"));
        assert!(!NodeFeatures::of_old_agents().cover(&needed));
    }
}

#[test]
fn a_list_that_turns_clients_away_needs_nodes_that_know_it() {
    let all = Capabilities::ALL;
    let allowing = |cidrs: &[&str], edit: fn(&mut Listener)| {
        with(|listener| {
            listener.allowed_cidrs = cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
            edit(listener);
        })
    };
    let needed = |tree: &Tree| needed_features(tree, &tree.listeners[&LISTENER].spec);
    let some = allowing(&["10.0.0.0/8"], |_| {});
    let decision = decide(&some, &some.listeners[&LISTENER].spec, &all).unwrap();
    assert_eq!(decision, proxied(&some, "a list of allowed CIDRs needs it".to_owned()));
    assert!(!NodeFeatures::of_old_agents().cover(&needed(&some)));
    assert_eq!(needed(&some).to_string(), "capabilities allowed-cidrs, tcp");

    let open = allowing(&["0.0.0.0/0"], |_| {});
    assert_eq!(decided(&open, &all), Ok(Carrier::Ovn));
    let open = allowing(&["0.0.0.0/0", "::/0"], |listener| listener.datapath = Datapath::Proxy);
    assert_eq!(needed(&open), NodeFeatures::of_old_agents(), "each node turns nobody away");

    let ovn = allowing(&["10.0.0.0/8"], |listener| listener.datapath = Datapath::Ovn);
    assert_eq!(decided(&ovn, &all), Err("allowed_cidrs"));
    let sctp = allowing(&["10.0.0.0/8"], |listener| listener.protocol = ListenerProtocol::Sctp);
    assert_eq!(decided(&sctp, &all), Err("allowed_cidrs"));
    let open = allowing(&["0.0.0.0/0"], |listener| listener.protocol = ListenerProtocol::Sctp);
    assert_eq!(decided(&open, &all), Ok(Carrier::Ovn));
}

#[test]
fn limits_need_nodes_that_know_them() {
    let all = Capabilities::ALL;
    let none = ProxyLimits::default();
    let rows = [
        (ProxyLimits { connections: Some(1), ..none }, "capability tcp"),
        (ProxyLimits { client_connections: Some(1), ..none }, "capabilities client-limits, tcp"),
        (ProxyLimits { connection_rate: Some(1), ..none }, "capabilities client-limits, tcp"),
        (ProxyLimits { client_connection_rate: Some(1), ..none }, "capabilities client-limits, tcp"),
        (ProxyLimits { bandwidth: Some(1_024), ..none }, "capabilities bandwidth, tcp"),
        (ProxyLimits { half_close_ms: Some(1), ..none }, "capabilities half-close, tcp"),
    ];
    for (limits, needed) in rows {
        let tree = with(|listener| listener.limits = limits);
        let limit = limits.set().next().unwrap();
        let (field, words) = (limit.field(), limit.words());
        let listener = &tree.listeners[&LISTENER].spec;
        assert_eq!(decide(&tree, listener, &all).unwrap(), proxied(&tree, format!("{words} needs it")));
        assert_eq!(needed_features(&tree, listener).to_string(), needed);
        let ovn = with(|listener| (listener.limits, listener.datapath) = (limits, Datapath::Ovn));
        assert_eq!(decided(&ovn, &all), Err(field));
    }
    let both = ProxyLimits { connection_rate: Some(1), bandwidth: Some(1_024), ..none };
    let tree = with(|listener| listener.limits = both);
    let needed = needed_features(&tree, &tree.listeners[&LISTENER].spec);
    assert_eq!(needed.to_string(), "capabilities bandwidth, client-limits, tcp");
}

#[test]
fn limits_of_backends_and_queues_need_nodes_that_know_them() {
    let all = Capabilities::ALL;
    let mut limited = tree();
    change::<Backend>(&mut limited, BACKENDS[1], |backend| backend.connection_limit = 5);
    let mut queued = tree();
    change::<Pool>(&mut queued, POOL, |pool| pool.queue_limit = 5);
    for (mut tree, words) in
        [(limited, "a connection limit of the pool's backends"), (queued, "the pool's queue")]
    {
        let listener = &tree.listeners[&LISTENER].spec;
        assert_eq!(decide(&tree, listener, &all).unwrap(), proxied(&tree, format!("{words} needs it")));
        assert_eq!(needed_features(&tree, listener).to_string(), "capabilities backend-limits, tcp");
        change::<Listener>(&mut tree, LISTENER, |listener| listener.datapath = Datapath::Ovn);
        assert_eq!(decided(&tree, &all), Err("default_pool_id"));
    }
}

#[test]
fn ovn_carries_ranges_of_ports_and_nodes_that_know_them_do() {
    let all = Capabilities::ALL;
    let range = |edit: fn(&mut Listener)| {
        with(|listener| {
            listener.port_end = Some(89);
            edit(listener);
        })
    };
    assert_eq!(decided(&range(|_| {}), &all), Ok(Carrier::Ovn));
    assert_eq!(decided(&range(|it| it.protocol = ListenerProtocol::Sctp), &all), Ok(Carrier::Ovn));
    let tree = range(|listener| listener.datapath = Datapath::Proxy);
    let decision = decide(&tree, &tree.listeners[&LISTENER].spec, &all).unwrap();
    assert_eq!(decision, proxied(&tree, "the listener requests it".to_owned()));
    let needed = |tree: &Tree| needed_features(tree, &tree.listeners[&LISTENER].spec).to_string();
    assert_eq!(needed(&tree), "capabilities port-ranges, tcp");
    let one = with(|listener| listener.port_end = Some(listener.port));
    assert_eq!(needed(&one), "capability tcp");
}

#[test]
fn proxies_translate_between_families() {
    let all = Capabilities::ALL;
    let behind = |vips: &[&str], backends: &[&str], edit: fn(&mut Listener)| {
        let mut tree = with(edit);
        change::<LoadBalancer>(&mut tree, LOAD_BALANCER, |root| {
            root.vips = vips.iter().map(|vip| vip.parse().unwrap()).collect();
        });
        tree.backends.retain(|id, _| BACKENDS.iter().position(|it| it == id) < Some(backends.len()));
        for (id, address) in BACKENDS.into_iter().zip(backends) {
            change::<Backend>(&mut tree, id, |backend| backend.address.set_ip(address.parse().unwrap()));
        }
        tree
    };
    let (v4, v6) = ("10.0.0.100", "fd00::100");
    let ovn: fn(&mut Listener) = |listener| listener.datapath = Datapath::Ovn;
    let sctp: fn(&mut Listener) = |listener| listener.protocol = ListenerProtocol::Sctp;
    for (vips, backends, reason) in [
        (&[v6][..], &["10.0.0.11"][..], "an IPv4 backend behind an IPv6 VIP needs it"),
        (&[v4], &["fd00::11"], "an IPv6 backend behind an IPv4 VIP needs it"),
        (&[v4], &["10.0.0.11", "fd00::11"], "an IPv6 backend behind an IPv4 VIP needs it"),
    ] {
        let tree = behind(vips, backends, |_| {});
        let listener = &tree.listeners[&LISTENER].spec;
        assert_eq!(decide(&tree, listener, &all).unwrap(), proxied(&tree, reason.to_owned()));
        assert_eq!(needed_features(&tree, listener).to_string(), "capability tcp", "each node translates");
        assert_eq!(decided(&behind(vips, backends, ovn), &all), Err("default_pool_id"));
        assert_eq!(decided(&behind(vips, backends, sctp), &all), Err("default_pool_id"));
    }
    for (backends, has_unserved) in
        [(&["10.0.0.11"][..], true), (&["fd00::11"], true), (&["10.0.0.11", "fd00::11"], false), (&[], false)]
    {
        let tree = behind(&[v4, v6], backends, |_| {});
        assert_eq!(decided(&tree, &all), Ok(Carrier::Ovn), "a VIP that served goes on to");
        let unserved = unserved_family(&tree, &tree.listeners[&LISTENER].spec);
        assert_eq!(unserved.is_some(), has_unserved, "{unserved:?}");
    }
}

#[test]
fn headers_of_proxy_protocol_need_nodes_that_know_them() {
    let all = Capabilities::ALL;
    let with_pool = |protocol: PoolProtocol, edit: fn(&mut Listener)| {
        let mut tree = with(edit);
        change::<Pool>(&mut tree, POOL, |pool| pool.protocol = protocol);
        tree
    };
    let trusts: fn(&mut Listener) = |listener| {
        listener.trusted_proxies = ["10.0.0.9/32"].iter().map(|cidr| cidr.parse().unwrap()).collect();
    };
    for (tree, reason) in [
        (with_pool(PoolProtocol::Proxy, |_| {}), "the pool's protocol PROXY needs it"),
        (with_pool(PoolProtocol::ProxyV2, |_| {}), "the pool's protocol PROXYV2 needs it"),
        (with_pool(PoolProtocol::Tcp, trusts), "a list of trusted proxies needs it"),
    ] {
        let listener = &tree.listeners[&LISTENER].spec;
        assert_eq!(decide(&tree, listener, &all).unwrap(), proxied(&tree, reason.to_owned()));
        assert_eq!(needed_features(&tree, listener).to_string(), "capabilities proxy-protocol, tcp");
    }
    assert_eq!(needed_by_protocol(PoolProtocol::Tcp), NodeFeatures::default());
    let ovn = with_pool(PoolProtocol::ProxyV2, |listener| listener.datapath = Datapath::Ovn);
    assert_eq!(decided(&ovn, &all), Err("default_pool_id"));
    let ovn = with_pool(PoolProtocol::Tcp, |listener| {
        listener.trusted_proxies = ["::/0"].iter().map(|cidr| cidr.parse().unwrap()).collect();
        listener.datapath = Datapath::Ovn;
    });
    assert_eq!(decided(&ovn, &all), Err("trusted_proxies"));
}

#[test]
fn ovn_cuts_at_once_and_proxies_after_a_time() {
    let (all, old) = (Capabilities::ALL, Capabilities { flush: false, ..Capabilities::ALL });
    let draining = |timeout, edit: fn(&mut Listener)| {
        let mut tree = with(edit);
        change::<Pool>(&mut tree, POOL, |pool| pool.drain_timeout_ms = timeout);
        tree
    };
    let on_ovn: fn(&mut Listener) = |listener| listener.datapath = Datapath::Ovn;
    assert_eq!(decided(&draining(Some(0), |_| {}), &all), Ok(Carrier::Ovn));
    assert_eq!(decided(&draining(Some(0), on_ovn), &all), Ok(Carrier::Ovn));
    assert_eq!(decided(&draining(Some(0), |_| {}), &old), Ok(Carrier::Proxy));
    assert_eq!(decided(&draining(Some(0), on_ovn), &old), Err("datapath"));
    assert_eq!(decided(&draining(None, on_ovn), &old), Ok(Carrier::Ovn));
    assert_eq!(decided(&draining(Some(1), on_ovn), &all), Err("default_pool_id"));
    let tree = draining(Some(1), |_| {});
    let listener = &tree.listeners[&LISTENER].spec;
    let reason = "the pool's drain timeout of more than 0 s needs it".to_owned();
    assert_eq!(decide(&tree, listener, &all).unwrap(), proxied(&tree, reason));
    assert_eq!(needed_features(&tree, listener).to_string(), "capabilities drain-timeout, tcp");
    let tree = draining(Some(0), |listener| listener.datapath = Datapath::Proxy);
    let needed = needed_features(&tree, &tree.listeners[&LISTENER].spec);
    assert_eq!(needed.to_string(), "capabilities drain-timeout, tcp", "whatever OVN can do");
}

#[test]
fn slow_starts_and_passive_health_checks_need_proxies_that_know_them() {
    let all = Capabilities::ALL;
    type Edit = fn(&mut Pool);
    let cases: [(Edit, &str, &str); 2] = [
        (|pool| pool.slow_start_ms = Some(30_000), "slow start", "slow-start, tcp"),
        (|pool| pool.passive_health_check = Some(PASSIVE), "passive health check", "passive-health, tcp"),
    ];
    for (edit_pool, words, capabilities) in cases {
        let asking = |edit: fn(&mut Listener)| {
            let mut tree = with(edit);
            change::<Pool>(&mut tree, POOL, edit_pool);
            tree
        };
        let tree = asking(|_| {});
        let listener = &tree.listeners[&LISTENER].spec;
        let reason = format!("the pool's {words} needs it");
        assert_eq!(decide(&tree, listener, &all).unwrap(), proxied(&tree, reason));
        let needed = format!("capabilities {capabilities}");
        assert_eq!(needed_features(&tree, listener).to_string(), needed);
        let ovn = asking(|listener| listener.datapath = Datapath::Ovn);
        assert_eq!(decided(&ovn, &all), Err("default_pool_id"));
    }
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

/// A tree whose listener divides its connections between two pools; `edit`: what is special about the second one.
fn divided(edit: impl FnOnce(&mut Pool), edit_listener: fn(&mut Listener)) -> Tree {
    let pools = [POOL, OTHER].map(|pool_id| WeightedPool { pool_id, weight: 1 });
    let mut tree = with(|listener| {
        (listener.default_pool_id, listener.weighted_pools) = (None, pools.into_iter().collect());
        edit_listener(listener);
    });
    put(&mut tree, OTHER, pool());
    change::<Pool>(&mut tree, OTHER, edit);
    tree
}

#[test]
fn ovn_divides_among_pools_that_are_alike_to_it() {
    let all = Capabilities::ALL;
    let on_ovn: fn(&mut Listener) = |listener| listener.datapath = Datapath::Ovn;
    let alike = divided(|pool| pool.drain_timeout_ms = None, on_ovn);
    assert_eq!(decided(&alike, &all), Ok(Carrier::Ovn));
    let listener = &alike.listeners[&LISTENER].spec;
    assert_eq!(needed_features(&alike, listener).to_string(), "capabilities tcp, weighted-pools");
    type Edit = fn(&mut Pool);
    let persistence = crate::resources::Persistence::SourceIp { timeout_s: 60 };
    let cases: [(Edit, &str); 3] = [
        (|pool| pool.algorithm = Algorithm::SourceIp, "algorithm"),
        (
            |pool| pool.persistence = Some(crate::resources::Persistence::SourceIp { timeout_s: 60 }),
            "session persistence",
        ),
        (|pool| pool.drain_timeout_ms = Some(0), "drain timeout"),
    ];
    for (edit, what) in cases {
        let tree = divided(edit, |_| {});
        let reason = format!("a difference in {what} between the pools needs it");
        assert_eq!(decide(&tree, &tree.listeners[&LISTENER].spec, &all).unwrap(), proxied(&tree, reason));
        assert_eq!(decided(&divided(edit, on_ovn), &all), Err("weighted_pools"));
        let sctp: fn(&mut Listener) = |listener| listener.protocol = ListenerProtocol::Sctp;
        assert_eq!(decided(&divided(edit, sctp), &all), Err("weighted_pools"));
    }
    let mut sticky = divided(|pool| pool.persistence = Some(persistence), on_ovn);
    change::<Pool>(&mut sticky, POOL, |pool| pool.persistence = Some(persistence));
    assert_eq!(decided(&sticky, &all), Ok(Carrier::Ovn));
}

#[test]
fn what_one_of_several_pools_asks_for_is_asked_for() {
    let all = Capabilities::ALL;
    let tree = divided(|pool| pool.slow_start_ms = Some(1_000), |_| {});
    let listener = &tree.listeners[&LISTENER].spec;
    assert_eq!(decided(&tree, &all), Ok(Carrier::Proxy));
    assert_eq!(needed_features(&tree, listener).to_string(), "capabilities slow-start, tcp, weighted-pools");
    let alone = with(|listener| {
        let own = listener.default_pool_id.take().map(|pool_id| WeightedPool { pool_id, weight: 5 });
        listener.weighted_pools = own.into_iter().collect();
        listener.datapath = Datapath::Proxy;
    });
    let listener = &alone.listeners[&LISTENER].spec;
    assert_eq!(needed_features(&alone, listener).to_string(), "capability tcp", "one pool is no division");
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

#[test]
fn a_protocol_is_proxied_where_a_node_can_have_the_capability() {
    use ListenerProtocol::{Https, Sctp, Tcp, Udp};
    for protocol in [Tcp, Udp, Sctp, Https] {
        assert_eq!(protocol.is_proxied(), by_protocol(protocol) != Proxies::None, "{protocol:?}");
        let needed = needed_features(&tree(), &Listener { protocol, ..listener() });
        assert_eq!(protocol.is_proxied(), needed != NodeFeatures::default());
    }
}

#[test]
fn a_node_serves_what_its_capabilities_cover() {
    let stated = |words: &[&str]| NodeFeatures::stated(words.iter().map(|word| (*word).to_owned()));
    let tcp = NodeFeatures::of_old_agents();
    assert_eq!(stated(&[]), tcp, "an old agent states none");
    assert!(stated(&["tcp", "later"]).cover(&tcp));
    assert!(!stated(&["later"]).cover(&tcp));
    assert!(!tcp.cover(&stated(&["tcp", "later"])));
    assert!(stated(&["later"]).cover(&NodeFeatures::default()));
    assert_eq!(stated(&["tcp", "later"]).to_string(), "capabilities later, tcp");
    assert_eq!(tcp.to_string(), "capability tcp");
}
