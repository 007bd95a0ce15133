//! Carriers of a listener change make before break: the one before serves until the next one does, and the status says so.

use std::time::Duration;

use fiberlb_lab::Vm;
use fiberlb_lab::workload::{Sample, Trace};
use fiberlb_proto::v1;

use crate::api::{id_of, online, until_tree};
use crate::common::until;
use crate::resources::{OVN_PORT, VIPS, at, entry, listener, load_balancer_v4, on_both};
use crate::scenario::scenario;
use crate::site::{Site, serve_v4};
use crate::unknown_health::apply;

/// Address and port of the VIP, as OVN's rows name it.
const VIP: &str = "10.0.0.100:80";

fn state(tree: &v1::LoadBalancerTree) -> &v1::ResourceState {
    tree.listeners[0].state.as_ref().unwrap()
}

fn is_active(tree: &v1::LoadBalancerTree) -> bool {
    state(tree).provisioning_status() == v1::ProvisioningStatus::Active
}

/// MAC at which a client knows an address; empty for none.
async fn mac(client: &Vm, address: &str) -> String {
    let shown = client.exec("ip", &["neigh", "show", address]).await.unwrap();
    let words: Vec<&str> = shown.split_whitespace().collect();
    words.iter().position(|word| *word == "lladdr").map_or_else(String::new, |at| words[at + 1].to_owned())
}

/// No connections fail but those that are under way at one moment, however long a busy machine takes for it.
fn fails_at_one_moment(what: &str, samples: &[Sample]) {
    let failed: Vec<_> = samples.iter().filter(|sample| sample.outcome.is_err()).collect();
    let moment = failed.iter().map(|sample| sample.began);
    let took = moment.clone().max().zip(moment.min()).map_or(Duration::ZERO, |(last, first)| last - first);
    println!("{what}: {} of {} failed within {took:.1?}", failed.len(), samples.len());
    assert!(
        samples.len() > 10 && failed.len() <= 5 && took < Duration::from_millis(500),
        "{what}: {} of {}: {failed:?}",
        failed.len(),
        samples.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_is_served_while_its_carrier_changes() {
    scenario("a_listener_is_served_while_its_carrier_changes", || async {
        let mut site = Site::without_nodes("carriers").await;
        let [b1, b2, client] = site.vms([("b1", 1, "ch1"), ("b2", 2, "ch2"), ("c1", 11, "ch1")]).await;
        let _servers = [serve_v4(&b1), serve_v4(&b2)];
        let mut wanted = load_balancer_v4("web", site.network, VIPS[0], &[1]);
        wanted.listeners = vec![listener(OVN_PORT)];
        wanted.pools[0].health_check = None;
        let mut tree = site.tenant.apply(wanted).await;
        let id = id_of(&tree);
        site.lab.wait_for_sync().await.unwrap();
        let trace = Trace::start(&client, at(VIPS[0], OVN_PORT), Duration::from_millis(50)).unwrap();

        // OVN to proxies, of which there are none yet. What has not to do with the carrier takes effect meanwhile.
        tree.listeners[0].connection_limit = Some(1000);
        apply(&site, tree.clone()).await;
        let waiting = until_tree(&site.tenant, &id, "CARRIER_AWAITED", |tree| {
            state(tree).reason_code == "CARRIER_AWAITED"
        })
        .await;
        assert_eq!(state(&waiting).provisioning_status(), v1::ProvisioningStatus::PendingUpdate);
        assert_eq!(state(&waiting).operating_status(), v1::OperatingStatus::Online);
        assert!(state(&waiting).reason.contains("no proxy node has ever connected"), "{waiting:?}");
        assert_eq!(waiting.listeners[0].datapath_in_force(), v1::Datapath::Ovn);
        tree.pools[0].backends.push(crate::resources::backend("10.0.0.2"));
        tree = apply(&site, tree).await;
        site.until_listed(VIP, "both backends", |list| list == [entry(1), entry(2)]).await;
        tree.pools[0].backends.retain(|backend| backend.address == "10.0.0.2");
        tree = apply(&site, tree).await;
        // It is still there while it is being deleted.
        tree.pools[0].backends.retain(|backend| backend.address == "10.0.0.2");
        site.until_listed(VIP, "the other backend", |list| list == [entry(2)]).await;
        site.tenant.plugin.kill().unwrap();
        site.tenant.plugin.start_again().await.unwrap();
        until_tree(&site.tenant, &id, "CARRIER_AWAITED after a restart", |tree| {
            state(tree).reason_code == "CARRIER_AWAITED"
        })
        .await;
        assert_eq!(site.listed(VIP).await, [entry(2)]);

        site.add_nodes().await;
        until_tree(&site.tenant, &id, "proxied", is_active).await;
        site.until_listed(VIP, "nodes alone", |list| !list.is_empty() && !list.contains(&entry(2))).await;
        tokio::time::sleep(Duration::from_secs(1)).await;

        // Another one keeps the network on the nodes.
        online(&site.tenant, on_both(load_balancer_v4("other", site.network, "10.0.0.102", &[2]))).await;

        // And back.
        tree.listeners[0].connection_limit = Some(-1);
        tree = apply(&site, tree).await;
        site.until_listed(VIP, "the backend", |list| list == [entry(2)]).await;
        until_tree(&site.tenant, &id, "by OVN", is_active).await;
        tokio::time::sleep(Duration::from_secs(1)).await;

        let samples = trace.stop().await;
        let failed: Vec<_> = samples.iter().filter(|sample| sample.outcome.is_err()).collect();
        assert!(samples.len() > 20 && failed.is_empty(), "{} of {}: {failed:?}", failed.len(), samples.len());

        // To the one node that is to hold the VIP: what is under way through OVN then ends with its row.
        let trace = Trace::start(&client, at(VIPS[0], OVN_PORT), Duration::from_millis(50)).unwrap();
        tree.listeners[0].exposure = v1::Exposure::Direct.into();
        tree = apply(&site, tree).await;
        until_tree(&site.tenant, &id, "DIRECT", |tree| {
            is_active(tree) && tree.listeners[0].proxy_node_ids.len() == 1
        })
        .await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        fails_at_one_moment("from OVN to a node", &trace.stop().await);

        // From the node to proxies behind OVN, where the VIP has another MAC: neighbours learn it at once.
        let of_node = mac(&client, VIPS[0]).await;
        let trace = Trace::start(&client, at(VIPS[0], OVN_PORT), Duration::from_millis(50)).unwrap();
        tree.listeners[0].exposure = v1::Exposure::Auto.into();
        tree.listeners[0].connection_limit = Some(1000);
        tree = apply(&site, tree).await;
        until_tree(&site.tenant, &id, "proxied again", |tree| {
            is_active(tree) && tree.listeners[0].proxy_node_ids.len() == 2
        })
        .await;
        until("the MAC of the responder", async || {
            let now = mac(&client, VIPS[0]).await;
            (now.starts_with("0e:") && now != of_node).then_some(())
        })
        .await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        fails_at_one_moment("from a node to proxies", &trace.stop().await);

        // And to a node, while the proxies behind OVN go on until it serves.
        let trace = Trace::start(&client, at(VIPS[0], OVN_PORT), Duration::from_millis(50)).unwrap();
        tree.listeners[0].exposure = v1::Exposure::Direct.into();
        apply(&site, tree).await;
        until_tree(&site.tenant, &id, "DIRECT again", |tree| {
            is_active(tree) && tree.listeners[0].proxy_node_ids.len() == 1
        })
        .await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        fails_at_one_moment("from proxies to a node", &trace.stop().await);
        site.close();
    })
    .await;
}
