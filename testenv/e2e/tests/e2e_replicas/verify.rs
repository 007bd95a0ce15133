//! Reports to operators of differences between OVN and the store.

use std::time::{Duration, Instant};

use fiberlb_lab::can_run;
use fiberlb_proto::v1;
use fiberlb_proto::v1::node_service_client::NodeServiceClient;

use crate::common::until;
use crate::rows::listener_rows;
use crate::site::Site;

#[tokio::test(flavor = "multi_thread")]
async fn rows_changed_by_hand_are_put_right_and_told_whichever_plugin_is_asked() {
    if !can_run("rows_changed_by_hand_are_put_right_and_told_whichever_plugin_is_asked") {
        return;
    }
    let site = Site::start("replicas-verify").await;
    let leader = site.await_leader().await;
    let id = site.apply(0, site.tree("web", "10.0.5.1")).await.unwrap();
    site.active(0, &id).await;
    for plugin in 0..3 {
        let (in_step, text) = site.verify(plugin).await;
        assert!(
            in_step && text.contains("1 load balancer compared") && text.contains("no difference"),
            "{text}"
        );
    }
    for plugin in 0..3 {
        let request = v1::GetLoadBalancerStatisticsRequest { id: id.clone() };
        let answer = site.client(plugin).get_load_balancer_statistics(request).await.unwrap().into_inner();
        assert_eq!((answer.load_balancer_id.as_str(), answer.listeners.len()), (id.as_str(), 1));
    }
    site.lab.nbctl(&["lb-add", "foreign", "10.0.5.9:80", "10.0.9.1:80"]).await.unwrap();
    let row = own_row(&site).await;
    site.lab.nbctl(&["set", "Load_Balancer", &row, "options:reject=false"]).await.unwrap();
    let changed = Instant::now();
    until("the option put right", async || {
        let options = listener_rows(&site.lab).await[&row]["options"].clone();
        (options["reject"] != "false").then_some(())
    })
    .await;
    assert!(changed.elapsed() < Duration::from_secs(1), "{:?}", changed.elapsed());
    site.lab.nbctl(&["lb-del", &row]).await.unwrap();
    let deleted = Instant::now();
    until("the row made again", async || listener_rows(&site.lab).await.get(&row).cloned()).await;
    assert!(deleted.elapsed() < Duration::from_secs(1), "{:?}", deleted.elapsed());
    let repairs = site.plugins[leader].metric("fiberlb_northbound_repairs_total").await.unwrap();
    assert!(repairs >= 2.0, "{repairs}");
    // The foreign row is as it was, and no difference.
    assert_eq!(listener_rows(&site.lab).await.len(), 2);
    assert!(site.verify((leader + 1) % 3).await.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_carried_out_is_a_difference_with_its_reason() {
    if !can_run("what_cannot_be_carried_out_is_a_difference_with_its_reason") {
        return;
    }
    let site = Site::start("replicas-blocked").await;
    let leader = site.await_leader().await;
    let id = site.apply(leader, site.tree("web", "10.0.6.1")).await.unwrap();
    site.active(leader, &id).await;
    site.lab.nbctl(&["ls-del", "sw0"]).await.unwrap();
    let follower = (leader + 2) % 3;
    let text = until("the difference", async || {
        let (in_step, text) = site.verify(follower).await;
        (!in_step && text.contains("BLOCKED")).then_some(text)
    })
    .await;
    assert!(text.contains(&id) && text.contains("does not exist"), "{text}");
    // What nodes there are, any plugin can tell too.
    let mut client = NodeServiceClient::new(site.channel(follower));
    let nodes = client.list_nodes(v1::ListNodesRequest {}).await.unwrap().into_inner().nodes;
    assert!(nodes.is_empty());
}

/// The row of the one load balancer that is FiberLB's.
async fn own_row(site: &Site) -> String {
    let rows = listener_rows(&site.lab).await;
    let own = rows.into_iter().find(|(_, row)| row["external_ids"]["fiberlb:owner"].is_string());
    own.unwrap().0
}
