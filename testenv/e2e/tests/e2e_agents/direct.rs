//! A VIP on one node at a time: the other node takes it over when that one dies.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fiberlb_lab::Vm;
use fiberlb_lab::workload::{Sample, Trace};
use fiberlb_proto::v1;

use crate::api::{id_of, online, tree_now};
use crate::common::until;
use crate::resources::{DIRECT_VIPS, OVN_PORT, at, load_balancer, on_one_node};
use crate::scenario::scenario;
use crate::site::{Site, ask, serve};

/// Longest time until the other node serves.
const TAKEN_OVER: Duration = Duration::from_secs(3);

/// The node that the API names.
pub(crate) async fn holder(site: &Site, id: &str) -> String {
    until("a node that has the VIP", async || {
        tree_now(&site.tenant, id).await.listeners[0].proxy_node_ids.first().cloned()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_other_node_takes_a_vip_over_when_its_node_dies() {
    scenario("the_other_node_takes_a_vip_over_when_its_node_dies", || async {
        let mut site = Site::start("direct").await;
        let vms = [("b1", 1, "ch1"), ("b2", 2, "ch2"), ("c1", 11, "ch1"), ("c2", 12, "ch2")];
        let [b1, b2, c1, c2] = site.vms(vms).await;
        let _servers = [serve(&b1), serve(&b2)];
        let tree = on_one_node(load_balancer("direct", site.network, DIRECT_VIPS, &[1, 2]));
        let tree = online(&site.tenant, tree).await;
        site.lab.wait_for_sync().await.unwrap();
        for _ in 0..2 {
            take_over(&mut site, &id_of(&tree), &[&c1, &c2]).await;
        }
        site.close();
    })
    .await;
}

async fn take_over(site: &mut Site, id: &str, clients: &[&Vm]) {
    let targets = DIRECT_VIPS.map(|vip| at(vip, OVN_PORT));
    let holder_id = holder(site, id).await;
    let number = site.nodes.iter().position(|node| node.id() == holder_id).unwrap();
    let mut traces = Vec::new();
    for client in clients {
        for target in targets {
            assert!(ask(client, target, 5).await.all_answered(), "{} to {target}", client.name());
            traces.push((
                client.name(),
                target,
                Trace::start(client, target, Duration::from_millis(50)).unwrap(),
            ));
        }
    }
    let killed = Instant::now();
    site.nodes[number].kill().unwrap();
    let other = until("another node that has the VIP", async || {
        let now = holder(site, id).await;
        (now != holder_id).then_some(now)
    })
    .await;
    println!("{other} has the VIP of {holder_id} after {:.1?}", killed.elapsed());
    tokio::time::sleep((killed + TAKEN_OVER * 2).saturating_duration_since(Instant::now())).await;
    for (client, target, trace) in traces {
        judge(client, target, &trace.stop().await, killed);
    }

    // The first one comes back, and the VIP stays where it is.
    site.nodes[number].start_again().await.unwrap();
    site.nodes_alive().await;
    assert_eq!(holder(site, id).await, other);
    for client in clients {
        for target in targets {
            assert!(ask(client, target, 10).await.all_answered(), "{} to {target}", client.name());
        }
    }
    assert_eq!(holder(site, id).await, other);
    let tree = tree_now(&site.tenant, id).await;
    let state = tree.listeners[0].state.as_ref().unwrap();
    assert_eq!(state.provisioning_status(), v1::ProvisioningStatus::Active, "{state:?}");
}

fn judge(client: &str, target: SocketAddr, samples: &[Sample], killed: Instant) {
    let after = samples.iter().filter(|it| it.began > killed);
    let first = after.clone().find(|it| it.outcome.is_ok() && it.took < Duration::from_secs(1));
    let first = first.map(|it| it.began + it.took - killed);
    println!("{client} is answered by {target} {first:.1?} after the node's death");
    assert!(first.is_some_and(|first| first <= TAKEN_OVER), "{client} to {target}: {first:?}");
    let late: Vec<&Sample> =
        after.filter(|it| it.began > killed + TAKEN_OVER && it.outcome.is_err()).collect();
    assert!(late.is_empty(), "{client} to {target}: {late:?}");
}
