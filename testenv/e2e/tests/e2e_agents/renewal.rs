//! Streams of nodes that are renewed all the time: nobody notices.

use std::time::{Duration, Instant};

use fiberlb_proto::v1;

use crate::api::{id_of, levels, online, tree_now};
use crate::common::until;
use crate::faults::Patient;
use crate::resources::{VIPS, both_targets, load_balancer_v4, on_both};
use crate::scenario::scenario;
use crate::site::{Site, ask};

/// Streams that a node has opened so far.
fn opened(site: &Site, node: &str) -> usize {
    let log = site.lab.world().path(&format!("/run/log/proxy.{node}.log"));
    std::fs::read_to_string(log).unwrap_or_default().matches("connected to the plugin").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn renewed_streams_cost_no_connection_and_no_status() {
    scenario("renewed_streams_cost_no_connection_and_no_status", || async {
        let site = Site::with_settings("renewal", "[agents]\nstream_age_s = 1\n").await;
        let [b1, b2, c1] = site.vms([("b1", 1, "ch1"), ("b2", 2, "ch2"), ("c1", 11, "ch1")]).await;
        let _patients = [Patient::healthy(&b1), Patient::healthy(&b2)];
        let tree = load_balancer_v4("web", site.network, VIPS[0], &[1, 2]);
        let id = id_of(&online(&site.tenant, on_both(tree)).await);
        site.lab.wait_for_sync().await.unwrap();
        let nodes = || site.nodes.iter().map(|node| node.id().to_owned());
        let before: Vec<usize> = nodes().map(|node| opened(&site, &node)).collect();
        let (begun, mut rounds) = (Instant::now(), 0);
        while begun.elapsed() < Duration::from_secs(10) {
            for target in both_targets() {
                let report = ask(&c1, target, 10).await;
                assert_eq!(report.answered, 10, "{target}: {report}");
            }
            let now = tree_now(&site.tenant, &id).await;
            assert!(
                levels(&now).iter().all(|(status, _)| *status == v1::OperatingStatus::Online),
                "{:?}",
                levels(&now)
            );
            rounds += 1;
        }
        println!("{rounds} rounds");
        until("each node has renewed its stream several times", async || {
            let mut counts = nodes().map(|node| opened(&site, &node)).zip(&before);
            counts.all(|(now, before)| now >= before + 5).then_some(())
        })
        .await;
        site.close();
    })
    .await;
}
