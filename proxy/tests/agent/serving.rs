//! From a snapshot to traffic, and what changes after it.

use fiberlb_proto::agent::v1;
use uuid::Uuid;
use v1::plugin_message::Message as FromPlugin;

use crate::chassis::Chassis;
use crate::configurations::{backend, check, listener, network, parts, pool, simple};
use crate::traffic::{FarEnd, link, metrics, namespace};
use crate::world::{can_run, eventually};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_becomes_namespaces_ports_addresses_and_listeners() {
    if !can_run("a_snapshot_becomes_namespaces_ports_addresses_and_listeners") {
        return;
    }
    let (chassis, id) = (Chassis::new().await, Uuid::new_v4());
    let (agent, mut session) = chassis.joined().await;
    assert_eq!((session.hello.node_id.as_str(), session.hello.chassis.as_str()), ("node-1", "chassis-1"));
    assert_eq!(
        session.hello.capabilities,
        [
            "tcp",
            "udp",
            "access-log",
            "allowed-cidrs",
            "backend-limits",
            "bandwidth",
            "client-limits",
            "drain-timeout",
            "half-close",
            "passive-health",
            "port-ranges",
            "proxy-protocol",
            "random",
            "slow-start",
            "weighted-pools"
        ]
    );
    session.snapshot(simple(id)).await;
    let [pool_id, listener_id, _] = parts(id);
    assert_eq!([id, pool_id, listener_id].map(|id| session.result(id)), [Some(""); 3]);

    let world = &chassis.world;
    assert_eq!(world.namespaces(), [namespace(id)]);
    assert_eq!(chassis.ports(), [link(id)]);
    assert_eq!(chassis.iface_ids(), [format!("port-{id}")]);
    let inside = |line: &str| world.run(&format!("ip netns exec {} {line}", namespace(id)));
    let link_text = inside("ip link show tenant0");
    let mac = network(id).mac;
    assert!(
        link_text.contains("mtu 1400") && link_text.contains(&mac) && link_text.contains("UP"),
        "{link_text}"
    );
    let addresses = inside("ip address show dev tenant0");
    assert!(addresses.contains("10.0.0.250/24") && addresses.contains("fd00::250/64"), "{addresses}");
    assert!(inside("ip route show default").starts_with("default via 10.0.0.1 dev tenant0"));
    assert!(inside("ip link show lo").contains("UP"));
    assert_eq!(inside("sysctl -n net.ipv4.tcp_migrate_req").trim(), "1");
    assert_eq!(inside("sysctl -n net.ipv4.ip_local_reserved_ports").trim(), "10000-29999");
    assert_eq!(inside("sysctl -n net.ipv4.ip_local_port_range").trim(), "1024\t65535");
    assert_eq!(inside("sysctl -n net.ipv4.tcp_max_tw_buckets").trim(), "4096");
    assert_eq!(inside("sysctl -n net.ipv6.conf.tenant0.accept_ra").trim(), "0");
    let offloads = inside("ethtool -k tenant0");
    assert!(offloads.contains("tx-checksumming: off"), "{offloads}");

    let far = FarEnd::of(world, id);
    let _backend = far.backend(8080, "one");
    far.answers("one").await;
    session
        .until("counters", |heard| {
            heard
                .counters
                .get(&listener_id.to_string())
                .is_some_and(|counters| counters.connections_total > 0)
        })
        .await;
    let metrics = metrics(world).await;
    let series = format!("fiberlb_proxy_listener_connections_total{{listener=\"{listener_id}\"}} ");
    let names = format!("fiberlb_proxy_listener_info{{listener=\"{listener_id}\",name=\"http\",");
    for part in ["fiberlb_proxy_plugin_connected 1\n", "fiberlb_proxy_networks 1\n", &series, &names] {
        assert!(metrics.contains(part), "{part}: {metrics}");
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_logged_by_project_and_sent_while_somebody_reads_them() {
    if !can_run("connections_are_logged_by_project_and_sent_while_somebody_reads_them") {
        return;
    }
    let (chassis, [one, two]) = (Chassis::new().await, [Uuid::new_v4(), Uuid::new_v4()]);
    let directory = chassis.world.file("access");
    let settings = format!("[access_log]\ndirectory = {directory:?}\n");
    std::fs::write(chassis.world.file("proxy.toml"), settings).unwrap();
    let (agent, mut session) = chassis.joined().await;
    let mut update = simple(one);
    let mut other = simple(two);
    other.listeners[0].project_id = "../games".to_owned();
    update.networks.extend(other.networks);
    update.pools.extend(other.pools);
    update.listeners.extend(other.listeners);
    session.snapshot(update).await;
    let ends = [one, two].map(|id| FarEnd::of(&chassis.world, id));
    let _backends = [ends[0].backend(8080, "one"), ends[1].backend(8080, "two")];
    ends[0].answers("one").await;
    ends[1].answers("two").await;

    let lines = |name: &str| {
        let text = std::fs::read_to_string(directory.join(name)).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<serde_json::Value>>()
    };
    for (name, project, id) in [("shop.log", "shop", one), ("%2E%2E%2Fgames.log", "../games", two)] {
        eventually("a line of the project", || !lines(name).is_empty()).await;
        let [_, listener, backend] = parts(id).map(|id| id.to_string());
        let line = lines(name).pop().unwrap();
        assert_eq!((&line["project"], &line["node"]), (&project.into(), &"node-1".into()), "{line}");
        assert_eq!((&line["listener"], &line["backend"]), (&listener.into(), &backend.into()), "{line}");
    }

    let [_, read, _] = parts(one).map(|id| id.to_string());
    let demand = |listener_ids| FromPlugin::AccessLogDemand(v1::AccessLogDemand { listener_ids });
    session.say(demand(vec![read.clone()])).await;
    for _ in 0..2 {
        // Until the node has taken the demand, a connection is not sent.
        let ask = async {
            loop {
                ends[1].answers("two").await;
                ends[0].answers("one").await;
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            () = ask => {}
            () = session.until("a connection", |heard| !heard.connections.is_empty()) => {}
        }
        let sent = std::mem::take(&mut session.heard.connections);
        assert!(sent.iter().all(|entry| entry.listener_id == read), "{sent:?}");
        assert_eq!(sent[0].reason, "closed");
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_carried_out_and_what_is_removed_goes() {
    if !can_run("changes_are_carried_out_and_what_is_removed_goes") {
        return;
    }
    let (chassis, a, b) = (Chassis::new().await, Uuid::new_v4(), Uuid::new_v4());
    let (_agent, mut session) = chassis.joined().await;
    session.snapshot(simple(a)).await;
    let far = FarEnd::of(&chassis.world, a);
    let _backends = [far.backend(8080, "one"), far.backend(8081, "two")];
    far.answers("one").await;

    // Another backend, then another network.
    let [pool_id, listener_id, _] = parts(a);
    let two = pool(pool_id, a, vec![backend(Uuid::new_v4(), "10.0.0.1:8081")]);
    session.carried_out(v1::Update { pools: vec![two], ..v1::Update::default() }).await;
    far.answers("two").await;
    session.carried_out(simple(b)).await;
    assert_eq!(chassis.world.namespaces().len(), 2);
    assert_eq!(chassis.ports().len(), 2);

    // Switched off: the listener resets; then it goes, then its network.
    let off = v1::Listener { enabled: false, generation: 2, ..listener(listener_id, a, pool_id) };
    session.carried_out(v1::Update { listeners: vec![off], ..v1::Update::default() }).await;
    far.refuses().await;
    let gone = v1::Update {
        removed_listener_ids: vec![listener_id.to_string()],
        removed_pool_ids: vec![pool_id.to_string()],
        removed_network_ids: vec![a.to_string()],
        ..v1::Update::default()
    };
    session.carried_out(gone).await;
    assert_eq!(chassis.world.namespaces(), [namespace(b)]);
    assert_eq!(chassis.ports(), [link(b)]);
    assert!(!chassis.world.try_run(&format!("ip link show {}", link(a))).0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_of_a_protocol_that_the_agent_does_not_know_is_refused_and_not_relayed() {
    if !can_run("a_listener_of_a_protocol_that_the_agent_does_not_know_is_refused_and_not_relayed") {
        return;
    }
    let (chassis, id) = (Chassis::new().await, Uuid::new_v4());
    let (_agent, mut session) = chassis.joined().await;
    session.snapshot(simple(id)).await;
    let far = FarEnd::of(&chassis.world, id);
    let _backend = far.backend(8080, "one");
    far.answers("one").await;

    let [pool_id, listener_id, _] = parts(id);
    let later = v1::Listener { protocol: 99, generation: 2, ..listener(listener_id, id, pool_id) };
    session.carried_out(v1::Update { listeners: vec![later.clone()], ..v1::Update::default() }).await;
    let error = session.result(listener_id).unwrap();
    assert!(error.contains("protocol is 99") && error.contains("update fiberlb-proxy"), "{error}");
    far.refuses().await;

    // An older plugin sends no protocol: that is TCP.
    let tcp = v1::Listener { protocol: 0, generation: 3, ..later };
    session.carried_out(v1::Update { listeners: vec![tcp], ..v1::Update::default() }).await;
    assert_eq!(session.result(listener_id), Some(""));
    far.answers("one").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn networks_with_the_same_addresses_do_not_meet() {
    if !can_run("networks_with_the_same_addresses_do_not_meet") {
        return;
    }
    let (chassis, a, b) = (Chassis::new().await, Uuid::new_v4(), Uuid::new_v4());
    let (_agent, mut session) = chassis.joined().await;
    session.update(simple(a)).await;
    session.snapshot(simple(b)).await;
    let [far_a, far_b] = [a, b].map(|id| FarEnd::of(&chassis.world, id));
    let _backends = [far_a.backend(8080, "of a"), far_b.backend(8080, "of b")];
    far_a.answers("of a").await;
    far_b.answers("of b").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_resource_is_refused_alone_and_its_last_good_form_stays() {
    if !can_run("a_bad_resource_is_refused_alone_and_its_last_good_form_stays") {
        return;
    }
    let (chassis, id) = (Chassis::new().await, Uuid::new_v4());
    let (_agent, mut session) = chassis.joined().await;
    session.snapshot(simple(id)).await;
    let far = FarEnd::of(&chassis.world, id);
    let _backend = far.backend(8080, "one");
    far.answers("one").await;

    let ([pool_id, listener_id, _], other) = (parts(id), Uuid::new_v4());
    let mut bad = listener(listener_id, id, pool_id);
    bad.bind_addresses = vec!["10.0.0.250:nothing".to_owned()];
    let mut taken = listener(other, id, pool_id);
    taken.generation = 7;
    session.carried_out(v1::Update { listeners: vec![bad, taken], ..v1::Update::default() }).await;
    let error = session.result(listener_id).unwrap();
    assert!(error.contains("bind_addresses") && error.contains("10.0.0.250:nothing"), "{error}");
    let error = session.result(other).unwrap();
    assert!(error.contains(&listener_id.to_string()), "{error}");
    far.answers("one").await;

    // Free now: the one that was refused takes over.
    let removed_listener_ids = vec![listener_id.to_string()];
    session.carried_out(v1::Update { removed_listener_ids, ..v1::Update::default() }).await;
    let other = other.to_string();
    session.until("it is served", |heard| heard.results.get(&other).is_some_and(String::is_empty)).await;
    far.answers("one").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flip_is_told_and_followed_at_once() {
    if !can_run("a_flip_is_told_and_followed_at_once") {
        return;
    }
    let (chassis, id) = (Chassis::new().await, Uuid::new_v4());
    let (_agent, mut session) = chassis.joined().await;
    let ([pool_id, listener_id, one], two) = (parts(id), Uuid::new_v4());
    let mut probed = pool(pool_id, id, vec![backend(one, "10.0.0.1:8080"), backend(two, "10.0.0.1:8081")]);
    probed.backends[1].probation = true;
    probed.check = Some(check());
    let update = v1::Update {
        networks: vec![network(id)],
        pools: vec![probed],
        listeners: vec![listener(listener_id, id, pool_id)],
        ..v1::Update::default()
    };
    session.snapshot(update).await;
    let far = FarEnd::of(&chassis.world, id);
    let first = far.backend(8080, "one");
    let [one, two] = [one, two].map(|id| id.to_string());
    let up = |heard: &crate::plugin::Heard, id: &str| heard.verdicts.get(id).map(|(up, _)| *up);
    session.until("one is up", |heard| up(heard, &one) == Some(true)).await;
    session.until("two is down", |heard| up(heard, &two) == Some(false)).await;
    for _ in 0..10 {
        assert_eq!(far.ask_node().await.unwrap(), "one");
    }
    let _second = far.backend(8081, "two");
    session.until("two is up", |heard| up(heard, &two) == Some(true)).await;
    far.answers("two").await;
    first.abort();
    session.until("one is down", |heard| up(heard, &one) == Some(false)).await;
    assert_eq!(session.heard.verdicts[&one].1, "connection refused");
    for _ in 0..10 {
        assert_eq!(far.ask_node().await.unwrap(), "two");
    }
}
