//! kill -9 of the plugin and of a node under traffic, and what a restart leaves and writes.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use fiberlb_lab::workload::Server;

use crate::api::{delete, id_of, online};
use crate::common::until;
use crate::echo::{EchoConnection, alive};
use crate::faults::Traffic;
use crate::machine::Machine;
use crate::resources::{
    DIRECT_VIPS, OVN_PORT, VIPS, at, both_targets, load_balancer_v4, on_both, on_one_node,
};
use crate::rows::rows;
use crate::scenario::scenario;
use crate::site::{Site, ask, serve_v4};

/// The list of the nodes that serve the proxied listener.
const PROXIED: &str = "10.0.0.100:81";
/// Longest time until a dead node is out of OVN's rows.
const OUT: Duration = Duration::from_secs(3);

/// Two backends, a client, and a load balancer on both datapaths.
async fn shop(name: &str) -> (Site, [Server; 2], fiberlb_lab::Vm, String) {
    let site = Site::start(name).await;
    let [b1, b2, c1] = site.vms([("b1", 1, "ch1"), ("b2", 2, "ch2"), ("c1", 11, "ch1")]).await;
    let servers = [serve_v4(&b1), serve_v4(&b2)];
    let tree = online(&site.tenant, on_both(load_balancer_v4("web", site.network, VIPS[0], &[1, 2]))).await;
    site.until_listed(PROXIED, "both nodes", |list| list.len() == 2).await;
    site.lab.wait_for_sync().await.unwrap();
    (site, servers, c1, id_of(&tree))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_plugin_costs_no_connection() {
    scenario("a_killed_plugin_costs_no_connection", || async {
        let (mut site, _servers, client, _) = shop("kill-plugin").await;
        let [ovn, proxied] = both_targets();
        let mut connections = EchoConnection::open_many(&client, ovn, 4).await;
        connections.extend(EchoConnection::open_many(&client, proxied, 4).await);
        let traffic = Traffic::start(&client);
        traffic.reaches(&["b1", "b2"]).await;
        let began = Instant::now();
        for _ in 0..2 {
            site.tenant.plugin.kill().unwrap();
            println!("killed after {:.1?}", began.elapsed());
            traffic.go_on(Duration::from_secs(3)).await;
            site.tenant.plugin.start_again().await.unwrap();
            site.nodes_alive().await;
            println!("back after {:.1?}", began.elapsed());
            traffic.go_on(Duration::from_secs(2)).await;
        }
        for met in traffic.stop().await {
            println!("{}", met.summary(began));
            assert!(met.failed().is_empty(), "{}", met.summary(began));
        }
        assert_eq!(alive(&mut connections).await, 8);
        site.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_costs_its_own_connections_alone_and_returns() {
    scenario("a_killed_node_costs_its_own_connections_alone_and_returns", || async {
        let (mut site, _servers, client, id) = shop("kill-node").await;
        for number in 0..site.nodes.len() {
            kill_node(&mut site, number, &client).await;
        }
        delete(&site.tenant, &id).await;
        for node in &site.nodes {
            until("the end of all namespaces", async || node.namespaces().unwrap().is_empty().then_some(()))
                .await;
        }
        site.close();
    })
    .await;
}

async fn kill_node(site: &mut Site, number: usize, client: &fiberlb_lab::Vm) {
    let [ovn, proxied] = both_targets();
    let before = Machine::of(&site.lab, &site.nodes[number]).await;
    assert_eq!(before.namespaces.len(), 1, "{before:?}");
    let own = addresses(&before);
    let traffic = Traffic::start(client);
    traffic.reaches(&["b1", "b2"]).await;
    let mut by_ovn = EchoConnection::open_many(client, ovn, 4).await;
    let connections = EchoConnection::open_many(client, proxied, 16).await;
    let (mut through, mut beside): (Vec<EchoConnection>, Vec<EchoConnection>) =
        connections.into_iter().partition(|connection| own.contains(&connection.seen));
    assert!(!through.is_empty() && !beside.is_empty(), "all by one node");

    let killed = Instant::now();
    site.nodes[number].kill().unwrap();
    site.until_listed(PROXIED, "one node", |list| list.len() == 1).await;
    println!("{} is out of the row after {:.1?}", site.nodes[number].id(), killed.elapsed());
    assert!(killed.elapsed() <= OUT, "out of the row after {:?}", killed.elapsed());
    assert_eq!((alive(&mut by_ovn).await, alive(&mut beside).await), (4, beside.len()));
    assert_eq!(alive(&mut through).await, 0);
    // A second for the change to be in force on the chassis; then enough requests to judge by.
    let settled = killed + OUT + Duration::from_secs(1);
    traffic.go_on(settled.saturating_duration_since(Instant::now()) + Duration::from_secs(2)).await;
    let ended = Instant::now();
    let [by_ovn, by_proxy] = traffic.stop().await;
    println!("{}\n{}", by_ovn.summary(killed), by_proxy.summary(killed));
    assert!(by_ovn.failed().is_empty(), "{}", by_ovn.summary(killed));
    // One that was under way may have been at the node.
    assert!(by_proxy.failed().iter().all(|it| it.began + it.took > killed), "{}", by_proxy.summary(killed));
    by_proxy.is_well(settled, ended, &["b1", "b2"]);

    site.nodes[number].start_again().await.unwrap();
    site.until_listed(PROXIED, "both nodes again", |list| list.len() == 2).await;
    site.lab.wait_for_sync().await.unwrap();
    assert_eq!(Machine::of(&site.lab, &site.nodes[number]).await, before);
    let report = ask(client, proxied, 40).await;
    let met = report.clients.iter().filter(|client| own.contains(client)).count();
    assert_eq!((report.answered, report.clients.len(), met), (40, 2, 1), "{report} {:?}", report.clients);
}

/// All addresses in the namespaces of a machine.
fn addresses(machine: &Machine) -> BTreeSet<IpAddr> {
    let words = machine.namespaces.values().flatten().flat_map(|line| line.split_whitespace());
    words.filter_map(|word| word.split('/').next()?.parse().ok()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_restarted_without_their_plugin_serve_as_before() {
    scenario("nodes_restarted_without_their_plugin_serve_as_before", || async {
        let (mut site, _servers, client, _) = shop("restart-alone").await;
        let before = rows(&site.lab, "Load_Balancer").await;
        site.tenant.plugin.kill().unwrap();
        for node in &mut site.nodes {
            node.kill().unwrap();
            node.start_again().await.unwrap();
        }
        let [_, proxied] = both_targets();
        until("answers through both nodes", async || {
            let report = ask(&client, proxied, 20).await;
            (report.all_answered() && report.clients.len() == 2 && report.shares.len() == 2).then_some(())
        })
        .await;
        for node in &mut site.nodes {
            node.terminate().unwrap();
            node.start_again().await.unwrap();
        }
        until("answers through both nodes again", async || {
            let report = ask(&client, proxied, 20).await;
            (report.all_answered() && report.clients.len() == 2).then_some(())
        })
        .await;
        site.tenant.plugin.start_again().await.unwrap();
        site.nodes_alive().await;
        let report = ask(&client, proxied, 20).await;
        assert!(report.all_answered(), "{report}");
        assert_eq!(rows(&site.lab, "Load_Balancer").await, before);
        assert!(site.tenant.plugin.northbound_transactions().await.unwrap() < 0.5, "it wrote");
        site.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_with_proxies_and_checks_writes_nothing() {
    scenario("a_restart_with_proxies_and_checks_writes_nothing", || async {
        let (mut site, _servers, client, id) = shop("restart-all").await;
        let direct = on_one_node(load_balancer_v4("direct", site.network, DIRECT_VIPS[0], &[1, 2]));
        let direct = online(&site.tenant, direct).await;
        site.lab.wait_for_sync().await.unwrap();
        let before = all_rows(&site).await;
        for ending in ["terminate", "kill"] {
            match ending {
                "terminate" => site.tenant.plugin.terminate().unwrap(),
                _ => site.tenant.plugin.kill().unwrap(),
            }
            site.tenant.plugin.start_again().await.unwrap();
            site.nodes_alive().await;
            for id in [&id, &id_of(&direct)] {
                site.tenant.active(id).await;
            }
            until("an empty queue", async || {
                (site.tenant.plugin.metric("fiberlb_reconcile_queue").await.unwrap() < 0.5).then_some(())
            })
            .await;
            // Longer than the plugin waits for nodes that it knows, and than a check takes.
            tokio::time::sleep(Duration::from_secs(6)).await;
            assert!(
                site.tenant.plugin.northbound_transactions().await.unwrap() < 0.5,
                "after {ending} it wrote"
            );
            assert_eq!(all_rows(&site).await, before, "after {ending}");
        }
        for target in [both_targets()[1], at(DIRECT_VIPS[0], OVN_PORT)] {
            let report = ask(&client, target, 20).await;
            assert!(report.all_answered(), "{target}: {report}");
        }
        site.close();
    })
    .await;
}

async fn all_rows(site: &Site) -> Vec<std::collections::BTreeMap<String, serde_json::Value>> {
    let mut all = Vec::new();
    for table in ["Load_Balancer", "Load_Balancer_Group", "Logical_Switch_Port", "Logical_Router_Port"] {
        let mut rows = rows(&site.lab, table).await;
        for row in rows.values_mut() {
            // northd's own column.
            row.as_object_mut().unwrap().remove("up");
        }
        all.push(rows);
    }
    all
}
