//! Several source addresses of a node on one network.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::api::online;
use crate::common::until;
use crate::resources::{PROXY_PORT, VIPS, at, load_balancer, on_both};
use crate::scenario::scenario;
use crate::site::{Site, ask, serve};

/// Addresses of each family that a node has.
const EACH: usize = 2;

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_a_backend_come_from_all_addresses_of_the_nodes() {
    scenario("connections_to_a_backend_come_from_all_addresses_of_the_nodes", || async {
        let site = Site::with_settings("sources", &format!("[fleet]\nsource_addresses = {EACH}\n")).await;
        let [backend, client] = site.vms([("b1", 1, "ch1"), ("c1", 11, "ch2")]).await;
        let _server = serve(&backend);
        online(&site.tenant, on_both(load_balancer("rows", site.network, VIPS, &[1]))).await;
        let target = at(VIPS[0], PROXY_PORT);
        let mut seen: BTreeSet<IpAddr> = BTreeSet::new();
        // The backend has an address of each family, and proxies connect to both.
        until(&format!("connections from {EACH} addresses of each family and node"), async || {
            let report = ask(&client, target, 20).await;
            assert!(report.all_answered(), "{report}");
            seen.extend(report.clients);
            (seen.len() == 2 * EACH * site.nodes.len()).then_some(())
        })
        .await;
        site.close();
    })
    .await;
}
