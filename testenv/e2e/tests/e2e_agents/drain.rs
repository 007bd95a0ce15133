//! A node is drained under traffic: no request fails, and what goes through it goes on until it ends or the deadline comes.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::{Duration, Instant};

use fiberlb_lab::Vm;
use fiberlb_lab::workload::Server;

use crate::command::fiberlb;
use crate::common::until;
use crate::direct::holder;
use crate::echo::{EchoConnection, alive};
use crate::faults::Traffic;
use crate::resources::{
    DIRECT_VIPS, OVN_PORT, VIPS, at, both_targets, load_balancer_v4, on_both, on_one_node,
};
use crate::scenario::scenario;
use crate::site::{Site, ask, serve_v4};

/// The list of the nodes that serve the proxied listener.
pub(crate) const PROXIED: &str = "10.0.0.100:81";
/// Drain deadline: longer than a network without connections needs to leave.
const DRAIN: Duration = Duration::from_secs(16);
/// Pace of the requests.
pub(crate) const PACE: Duration = Duration::from_millis(100);
/// Time for all that follows the last connection or the deadline: rows, counters, and a look each second.
const AFTERWARDS: Duration = Duration::from_secs(15);

/// A load balancer on both datapaths, whose network is on one of two nodes. Gives the id of that node, and of the other.
pub(crate) async fn shop_on_one(name: &str, settings: &str) -> (Site, [Server; 2], Vm, [String; 2]) {
    let settings = format!("[fleet]\nnodes_per_network = 1\n{settings}");
    let site = Site::with_settings(name, &settings).await;
    let [b1, b2, c1] = site.vms([("b1", 1, "ch1"), ("b2", 2, "ch2"), ("c1", 11, "ch1")]).await;
    let servers = [serve_v4(&b1), serve_v4(&b2)];
    site.tenant.apply(on_both(load_balancer_v4("web", site.network, VIPS[0], &[1, 2]))).await;
    site.until_listed(PROXIED, "one node", |list| list.len() == 1).await;
    site.until_listed("10.0.0.100:80", "both backends", |list| list.len() == 2).await;
    site.lab.wait_for_sync().await.unwrap();
    let on = |node: &fiberlb_lab::proxy::ProxyNode| !node.namespaces().unwrap().is_empty();
    let (first, other) = if on(&site.nodes[0]) { (0, 1) } else { (1, 0) };
    let ids = [first, other].map(|number| site.nodes[number].id().to_owned());
    (site, servers, c1, ids)
}

/// While something goes on, the list of the proxied listener is never empty.
async fn never_empty_while(site: &Site, body: impl Future<Output = ()>) {
    let (mut seen, mut body) = (BTreeSet::new(), pin!(body));
    loop {
        tokio::select! {
            () = &mut body => break,
            list = site.listed(PROXIED) => drop(seen.insert(list)),
        }
    }
    println!("the row was: {seen:?}");
    assert!(!seen.contains(&Vec::new()), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_costs_no_request_and_its_connections_live_until_the_deadline() {
    scenario("a_drained_node_costs_no_request_and_its_connections_live_until_the_deadline", || async {
        let (site, _servers, client, [from, to]) = shop_on_one("drain", "drain_s = 16").await;
        let [_, proxied] = both_targets();
        let before = site.listed(PROXIED).await;
        let mut connections = EchoConnection::open_many(&client, proxied, 4).await;
        let traffic = Traffic::start_at(&client, PACE);
        traffic.reaches(&["b1", "b2"]).await;
        let began = Instant::now();
        never_empty_while(&site, drain(&site, [&from, &to], &before, &mut connections)).await;
        for connection in &mut connections {
            assert!(connection.is_reset().await, "the deadline is over");
        }
        traffic.go_on(Duration::from_secs(2)).await;
        for met in traffic.stop().await {
            println!("{}", met.summary(began));
            assert!(met.failed().is_empty(), "{}", met.summary(began));
        }
        site.close();
    })
    .await;
}

/// Drains a node that has connections, with the command.
async fn drain(site: &Site, [from, to]: [&str; 2], before: &[String], connections: &mut [EchoConnection]) {
    let began = Instant::now();
    let drain = tokio::spawn(fiberlb(site, &format!("node drain {from} --wait=2m")));
    site.until_listed(PROXIED, "the other node alone", |list| list.len() == 1 && *list != *before).await;
    println!("{to} has taken over from {from} after {:.1?}", began.elapsed());
    let node = site.operator().nodes().await.unwrap().into_iter().find(|node| node.id == from).unwrap();
    assert!(node.cordoned && node.draining && node.networks == 1, "{node:?}");
    tokio::time::sleep((DRAIN - Duration::from_secs(3)).saturating_sub(began.elapsed())).await;
    assert_eq!(alive(connections).await, 4, "established connections go on");
    assert!(!drain.is_finished(), "the command waits for them");

    let ran = drain.await.unwrap();
    let took = began.elapsed();
    println!("drained after {took:.1?}; the command said:\n{}{}", ran.err, ran.out);
    assert!(ran.err.contains("connections go through it"), "{ran:?}");
    assert!(ran.ok().lines().any(|line| line.starts_with("duty") && line.ends_with("DRAINED")));
    assert!(took >= DRAIN && took < DRAIN + AFTERWARDS, "{took:?}");
    until("no namespace there", async || site.node(from).namespaces().unwrap().is_empty().then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_drain_of_the_only_node_waits_and_costs_nothing() {
    scenario("the_drain_of_the_only_node_waits_and_costs_nothing", || async {
        let (mut site, _servers, client, [from, to]) = shop_on_one("drain-only", "").await;
        let [_, proxied] = both_targets();
        fiberlb(&site, &format!("node cordon {to}")).await.ok();
        let ran = fiberlb(&site, &format!("node drain {from} --wait=3s")).await;
        assert_eq!(ran.code, 3, "{ran:?}");
        assert!(ran.err.contains("no other node may take it"), "{ran:?}");
        let row = site.listed(PROXIED).await;
        assert!(ask(&client, proxied, 20).await.all_answered());

        // A restarted plugin knows both desired duties, and writes nothing for them.
        site.tenant.plugin.kill().unwrap();
        site.tenant.plugin.start_again().await.unwrap();
        site.nodes_alive().await;
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert!(site.tenant.plugin.northbound_transactions().await.unwrap() < 0.5, "it wrote");
        assert_eq!(site.listed(PROXIED).await, row);

        // Once the other one may, the drain goes on by itself, and is over soon: there are no connections.
        fiberlb(&site, &format!("node uncordon {to}")).await.ok();
        let began = Instant::now();
        fiberlb(&site, &format!("node drain {from} --wait=1m")).await.ok();
        println!("a node without connections is drained after {:.1?}", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(30));
        assert_ne!(site.listed(PROXIED).await, row);
        assert!(ask(&client, proxied, 20).await.all_answered());
        site.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_vip_of_a_drained_node_moves_once() {
    scenario("the_vip_of_a_drained_node_moves_once", || async {
        let site = Site::start("drain-direct").await;
        let [b1, b2, c1] = site.vms([("b1", 1, "ch1"), ("b2", 2, "ch2"), ("c1", 11, "ch1")]).await;
        let _servers = [serve_v4(&b1), serve_v4(&b2)];
        let tree = on_one_node(load_balancer_v4("direct", site.network, DIRECT_VIPS[0], &[1, 2]));
        let id = crate::api::id_of(&crate::api::online(&site.tenant, tree).await);
        site.lab.wait_for_sync().await.unwrap();
        let target: SocketAddr = at(DIRECT_VIPS[0], OVN_PORT);
        assert!(ask(&c1, target, 5).await.all_answered());
        let from = holder(&site, &id).await;
        fiberlb(&site, &format!("node drain {from} --wait=1m")).await.ok();
        let to = holder(&site, &id).await;
        assert_ne!(to, from);
        assert!(ask(&c1, target, 20).await.all_answered());
        fiberlb(&site, &format!("node uncordon {from}")).await.ok();
        until("two nodes again", async || (!site.node(&from).namespaces().unwrap().is_empty()).then_some(()))
            .await;
        assert_eq!(holder(&site, &id).await, to, "it does not go back");
        assert!(ask(&c1, target, 20).await.all_answered());
        site.close();
    })
    .await;
}
