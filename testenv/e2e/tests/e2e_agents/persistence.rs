//! Clients that stay where they were.

use fiberlb_proto::v1;

use crate::api::online;
use crate::resources::{PROXY_PORT, VIPS, at, load_balancer_v4, on_both};
use crate::scenario::scenario;
use crate::site::{Site, ask, serve};

#[tokio::test(flavor = "multi_thread")]
async fn a_persistent_client_of_proxies_loses_no_connection_and_stays() {
    scenario("a_persistent_client_of_proxies_loses_no_connection_and_stays", || async {
        let site = Site::start("persistent").await;
        let vms = [("b1", 1, "ch1"), ("b2", 2, "ch2"), ("c1", 11, "ch1"), ("c2", 12, "ch2")];
        let [b1, b2, c1, c2] = site.vms(vms).await;
        let _servers = [serve(&b1), serve(&b2)];
        let mut tree = on_both(load_balancer_v4("sticky", site.network, VIPS[0], &[1, 2]));
        let kind = v1::SessionPersistenceType::SourceIp.into();
        tree.pools[0].pool.as_mut().unwrap().session_persistence =
            Some(v1::SessionPersistence { r#type: kind, ..Default::default() });
        online(&site.tenant, tree).await;
        site.lab.wait_for_sync().await.unwrap();
        for client in [&c1, &c2] {
            let report = ask(client, at(VIPS[0], PROXY_PORT), 30).await;
            assert!(report.all_answered(), "{}: {report}", client.name());
            assert!(report.slow.is_empty(), "a lost SYN: {} {report}", client.name());
            assert_eq!(report.shares.len(), 1, "{}: {report}", client.name());
        }
        site.close();
    })
    .await;
}
