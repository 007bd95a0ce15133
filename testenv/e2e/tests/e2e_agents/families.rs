//! Address families: a network that gains one while nodes serve it.

use std::time::Duration;

use fiberlb_lab::Vm;
use fiberlb_lab::workload::Trace;
use fiberlb_proto::v1;

use crate::api::{id_of, online, tree_now};
use crate::common::{add_network, until};
use crate::resources::{
    DIRECT_VIPS, OVN_PORT, PROXY_PORT, VIPS, at, load_balancer, load_balancer_v4, on_both, on_one_node,
};
use crate::rows::rows;
use crate::scenario::scenario;
use crate::site::{Site, ask, serve, vm};

/// The router's port on the network, and its addresses before and after.
const ROUTER_PORT: &str = "lr1-sw1";
const ROUTER_V4: &str = "10.0.0.254/24";
const ROUTER_V6: &str = "fd00::254/64";

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_gains_ipv6_goes_on_and_is_served_on_it() {
    scenario("a_network_that_gains_ipv6_goes_on_and_is_served_on_it", || async {
        let site = Site::start("gains-ipv6").await;
        let network = add_network(&site.lab, "sw1", &[("subnet", "10.0.0.0/24")]).await;
        site.lab.add_router("lr1").await.unwrap();
        site.lab.attach_router("lr1", "sw1", &[ROUTER_V4]).await.unwrap();
        let specs = [("b1", 1, "ch1"), ("b2", 2, "ch2"), ("c1", 11, "ch1")];
        let specs = specs.map(|(name, number, chassis)| vm(name, number, chassis, "sw1"));
        let [b1, b2, client]: [Vm; 3] = site.lab.add_vms(specs.into()).await.unwrap().try_into().unwrap();
        let _servers = [serve(&b1), serve(&b2)];
        let proxied =
            online(&site.tenant, on_both(load_balancer_v4("both", network, VIPS[0], &[1, 2]))).await;
        let direct =
            online(&site.tenant, on_one_node(load_balancer_v4("direct", network, DIRECT_VIPS[0], &[1, 2])))
                .await;
        site.lab.wait_for_sync().await.unwrap();
        let targets = [at(VIPS[0], OVN_PORT), at(VIPS[0], PROXY_PORT), at(DIRECT_VIPS[0], OVN_PORT)];
        let traces = targets.map(|target| Trace::start(&client, target, Duration::from_millis(100)).unwrap());

        let networks = ["set", "Logical_Router_Port", ROUTER_PORT];
        let value = format!("networks=\"{ROUTER_V4}\",\"{ROUTER_V6}\"");
        site.lab.nbctl(&[networks[0], networks[1], networks[2], &value]).await.unwrap();
        until("an IPv6 address for each node", async || (node_ports_with_v6(&site).await == 2).then_some(()))
            .await;
        let six = load_balancer("six", network, ["10.0.0.102", "fd00::102"], &[1, 2]);
        online(&site.tenant, on_both(six)).await;
        let six = load_balancer("six-direct", network, ["10.0.0.103", "fd00::103"], &[1, 2]);
        online(&site.tenant, on_one_node(six)).await;
        site.lab.wait_for_sync().await.unwrap();
        for target in [at("fd00::102", OVN_PORT), at("fd00::102", PROXY_PORT), at("fd00::103", OVN_PORT)] {
            assert!(ask(&client, target, 10).await.all_answered(), "{target}");
        }
        for tree in [proxied, direct] {
            let tree = tree_now(&site.tenant, &id_of(&tree)).await;
            for listener in &tree.listeners {
                let state = listener.state.as_ref().unwrap();
                assert_eq!(state.operating_status(), v1::OperatingStatus::Online, "{state:?}");
            }
        }
        for (target, trace) in targets.into_iter().zip(traces) {
            let samples = trace.stop().await;
            let failed: Vec<_> = samples.iter().filter(|sample| sample.outcome.is_err()).collect();
            assert!(!samples.is_empty() && failed.is_empty(), "{target}: {failed:?}");
        }
        site.close();
    })
    .await;
}

async fn node_ports_with_v6(site: &Site) -> usize {
    let rows = rows(&site.lab, "Logical_Switch_Port").await;
    let is_one = |row: &&serde_json::Value| {
        let text = |column: &str| row[column].as_str().unwrap_or_default().to_owned();
        text("name").starts_with("fiberlb-node-") && text("addresses").contains(" fd00::")
    };
    rows.values().filter(is_one).count()
}
