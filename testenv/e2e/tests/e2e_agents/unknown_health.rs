//! Unknown health takes no backend out of rotation, and brings none in.

use std::time::{Duration, Instant};

use fiberlb_proto::v1;

use crate::api::{fares, id_of, online, until_tree};
use crate::common::until;
use crate::resources::{VIPS, backend, check, entry, load_balancer_v4, on_both};
use crate::scenario::scenario;
use crate::site::{Site, serve_v4};

const VIP: &str = "10.0.0.100:80";

/// The list of the VIP stays as it is for so long.
async fn stays(site: &Site, wanted: &[String], time: Duration) {
    let began = Instant::now();
    while began.elapsed() < time {
        assert_eq!(site.listed(VIP).await, wanted, "after {:?}", began.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn all_are(site: &Site, status: v1::NodeStatus) {
    until(&format!("all nodes {status:?}"), async || {
        for node in &site.nodes {
            if site.operator().node_status(node.id()).await != Some(status) {
                return None;
            }
        }
        Some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_nodes_and_a_restarted_plugin_take_no_backend_out() {
    scenario("silent_nodes_and_a_restarted_plugin_take_no_backend_out", || async {
        let mut site = Site::start("silence").await;
        let [b1, b2] = site.vms([("b1", 1, "ch1"), ("b2", 2, "ch2")]).await;
        let _servers = [serve_v4(&b1), serve_v4(&b2)];
        let tree =
            online(&site.tenant, on_both(load_balancer_v4("web", site.network, VIPS[0], &[1, 2]))).await;
        site.until_listed(VIP, "both", |list| list.len() == 2).await;
        let both = site.listed(VIP).await;

        for node in &site.nodes {
            node.pause().unwrap();
        }
        all_are(&site, v1::NodeStatus::Dead).await;
        stays(&site, &both, Duration::from_secs(3)).await;
        // A plugin that knows nothing yet, and receives no reports.
        site.tenant.plugin.kill().unwrap();
        site.tenant.plugin.start_again().await.unwrap();
        all_are(&site, v1::NodeStatus::Dead).await;
        stays(&site, &both, Duration::from_secs(3)).await;

        for node in &site.nodes {
            node.resume().unwrap();
        }
        site.nodes_alive().await;
        until_tree(&site.tenant, &id_of(&tree), "checked again", |tree| {
            fares(tree, "10.0.0.1").0 == v1::OperatingStatus::Online
        })
        .await;
        stays(&site, &both, Duration::from_secs(1)).await;
        site.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_without_a_verdict_is_neither_lost_nor_believed() {
    scenario("a_backend_without_a_verdict_is_neither_lost_nor_believed", || async {
        let site = Site::start("no-verdict").await;
        let [b1, b2] = site.vms([("b1", 1, "ch1"), ("b2", 2, "ch2")]).await;
        let (_one, two) = (serve_v4(&b1), serve_v4(&b2));
        let mut unchecked = on_both(load_balancer_v4("web", site.network, VIPS[0], &[1]));
        unchecked.pools[0].health_check = None;
        let tree = site.tenant.apply(unchecked).await;
        site.until_listed(VIP, "b1", |list| list == [entry(1)]).await;

        // A check is added while nobody can check: what serves goes on serving.
        for node in &site.nodes {
            node.pause().unwrap();
        }
        all_are(&site, v1::NodeStatus::Dead).await;
        let mut checked = tree.clone();
        checked.pools[0].health_check = Some(check());
        let tree = apply(&site, checked).await;
        stays(&site, &[entry(1)], Duration::from_secs(1)).await;
        // A new backend comes in although nobody can check it, after a while, and says so.
        let mut more = tree.clone();
        more.pools[0].backends.push(backend("10.0.0.2"));
        let tree = apply(&site, more).await;
        site.until_listed(VIP, "both", |list| list.len() == 2).await;
        until_tree(&site.tenant, &id_of(&tree), "NOT_CHECKED", |tree| {
            fares(tree, "10.0.0.2").1.contains("NOT_CHECKED")
        })
        .await;

        // Now somebody can check.
        for node in &site.nodes {
            node.resume().unwrap();
        }
        until_tree(&site.tenant, &id_of(&tree), "both ONLINE", |tree| {
            ["10.0.0.1", "10.0.0.2"].iter().all(|ip| fares(tree, ip).0 == v1::OperatingStatus::Online)
        })
        .await;
        // A new backend that does not answer never comes in.
        drop(two);
        site.until_listed(VIP, "b1 alone", |list| list == [entry(1)]).await;
        let mut more = tree.clone();
        more.pools[0].backends.push(backend("10.0.0.3"));
        let tree = apply(&site, more).await;
        until_tree(&site.tenant, &id_of(&tree), "10.0.0.3 found down", |tree| site_knows(tree, "10.0.0.3"))
            .await;
        stays(&site, &[entry(1)], Duration::from_secs(1)).await;
        site.close();
    })
    .await;
}

fn site_knows(tree: &v1::LoadBalancerTree, address: &str) -> bool {
    let (status, reason) = fares(tree, address);
    status == v1::OperatingStatus::Offline && reason.contains("found down")
}

/// Applies a tree without waiting for proxies, which are away.
pub(crate) async fn apply(site: &Site, tree: v1::LoadBalancerTree) -> v1::LoadBalancerTree {
    let request = v1::ApplyLoadBalancerRequest { tree: Some(tree), ..Default::default() };
    site.tenant.client.clone().apply_load_balancer(request).await.unwrap().into_inner().tree.unwrap()
}
