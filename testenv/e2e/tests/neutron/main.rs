//! FiberLB beside a real Neutron, which owns the networks: what is done by Neutron's API goes as it does without FiberLB, and
//! Neutron's repair and its maintenance leave FiberLB's rows alone. Ignored, since Neutron is large: `make test-neutron` installs and runs it.

#![cfg(test)] // for clippy: helpers of tests are tests too

#[path = "../common/mod.rs"]
mod common;
mod operations;
#[path = "../common/rows.rs"]
mod rows;
mod service;

use std::collections::BTreeMap;

use fiberlb_lab::proxy::ProxyNode;
use fiberlb_lab::{Lab, can_run};
use fiberlb_proto::v1;
use serde_json::{Value, json};
use uuid::Uuid;

use common::{Tenant, tree, until};
use operations::Network;
use rows::rows;
use service::Neutron;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-neutron installs what it needs"]
async fn neutron_26_works_as_without_fiberlb() {
    works_as_without_fiberlb("neutron_26_works_as_without_fiberlb", "26").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-neutron installs what it needs"]
async fn neutron_29_works_as_without_fiberlb() {
    works_as_without_fiberlb("neutron_29_works_as_without_fiberlb", "29").await;
}

async fn works_as_without_fiberlb(test: &str, release: &str) {
    if !can_run(test) {
        return;
    }
    let lab = Lab::start("neutron").await.unwrap();
    lab.add_chassis("ch1").await.unwrap();
    // Neutron puts routers' gateways on such a chassis.
    let gateway = [
        "external_ids:ovn-cms-options=enable-chassis-as-gw",
        "external_ids:ovn-bridge-mappings=public:br-ex",
    ];
    lab.ovs_vsctl("ch1", &["set", "Open_vSwitch", ".", gateway[0], gateway[1]]).await.unwrap();
    let neutron = Neutron::start(&lab, release).await;
    let outside = outside(&neutron).await;

    let mut without = Network::create(&neutron, "without").await;
    without.change(&outside).await;
    let expected = without.delete_all().await;
    let failed: Vec<_> = expected.iter().filter(|(_, status)| *status >= 300).collect();
    assert!(failed.is_empty(), "Neutron refuses by itself: {failed:?}");

    let mut with = Network::create(&neutron, "with").await;
    let switch = format!("neutron-{}", with.id);
    let balanced = Balanced::start(&lab, &switch).await;
    let ours = balanced.rows(&lab).await;
    with.change(&outside).await;
    // The router was there meanwhile, and is gone.
    until("rows as before", async || (balanced.rows(&lab).await == ours).then_some(())).await;
    neutron.repair().await;
    assert_eq!(balanced.rows(&lab).await, ours, "repair changed rows of FiberLB");
    neutron.maintain().await;
    assert_eq!(balanced.rows(&lab).await, ours, "maintenance changed rows of FiberLB");
    let found = with.delete_all().await;
    assert_eq!(found, expected);

    let left =
        lab.nbctl(&["--bare", "--columns=name", "find", "Logical_Switch", &format!("name={switch}")]).await;
    assert_eq!(left.unwrap().trim(), "", "the network is deleted, and its switch stays");
    balanced.delete().await;
    until("no rows of FiberLB", async || all_of_ours(&lab).await.is_empty().then_some(())).await;
}

/// A network with a way out, as an operator makes it.
async fn outside(neutron: &Neutron) -> String {
    let network = json!({
        "name": "public", "router:external": true,
        "provider:network_type": "flat", "provider:physical_network": "public",
    });
    let (status, made) = neutron.call("POST", "/v2.0/networks", Some(json!({"network": network}))).await;
    assert_eq!(status, 201, "{made}");
    let id = made["network"]["id"].as_str().unwrap().to_owned();
    let subnet = json!({"network_id": id, "ip_version": 4, "cidr": "192.0.2.0/24", "enable_dhcp": false});
    let (status, made) = neutron.call("POST", "/v2.0/subnets", Some(json!({"subnet": subnet}))).await;
    assert_eq!(status, 201, "{made}");
    id
}

/// Load balancers of each kind on one network: carried by OVN, by proxies, and by the node that has the VIP.
struct Balanced {
    tenant: Tenant,
    ids: Vec<String>,
    _node: ProxyNode,
}

impl Balanced {
    async fn start(lab: &Lab, switch: &str) -> Balanced {
        let network: Uuid =
            lab.nbctl(&["get", "Logical_Switch", switch, "_uuid"]).await.unwrap().trim().parse().unwrap();
        let tenant = Tenant::start(lab).await;
        // To choose addresses it must have reached the northbound database.
        until("the northbound database", async || {
            let connected = tenant.plugin.metric("fiberlb_northbound_connected").await;
            connected.is_ok_and(|connected| connected > 0.0).then_some(())
        })
        .await;
        let node = ProxyNode::start(lab, "ch1", &tenant.plugin.agents_endpoint()).await.unwrap();
        let backends = ["10.0.0.2:8080", "10.0.0.3:8080"];
        // Addresses are found by Neutron's subnet, which no router says.
        let mut trees = ["plain", "proxied", "direct"].map(|name| tree(name, network, "", &backends));
        trees[1].listeners[0].connection_limit = Some(100);
        trees[2].listeners[0].exposure = v1::Exposure::Direct.into();
        let mut ids = Vec::new();
        for tree in trees {
            ids.push(tenant.apply(tree).await.load_balancer.unwrap().id);
        }
        // Those of the nodes come when these have requested them.
        until("the node's port", async || {
            let ports = rows(lab, "Logical_Switch_Port").await;
            ports
                .values()
                .any(|port| port["name"].as_str().is_some_and(|name| name.starts_with("fiberlb-node")))
                .then_some(())
        })
        .await;
        Balanced { tenant, ids, _node: node }
    }

    /// All rows of FiberLB, with all of their columns.
    async fn rows(&self, lab: &Lab) -> BTreeMap<String, Value> {
        all_of_ours(lab).await
    }

    async fn delete(&self) {
        for id in &self.ids {
            let request =
                v1::DeleteLoadBalancerRequest { id: id.clone(), cascade: true, ..Default::default() };
            self.tenant.client.clone().delete_load_balancer(request).await.unwrap();
        }
    }
}

/// Rows that carry FiberLB's name.
async fn all_of_ours(lab: &Lab) -> BTreeMap<String, Value> {
    let mut ours = BTreeMap::new();
    for table in [
        "Load_Balancer",
        "Load_Balancer_Group",
        "Logical_Router",
        "Logical_Router_Port",
        "Logical_Router_Policy",
        "Logical_Switch_Port",
    ] {
        let rows = rows(lab, table).await.into_iter();
        ours.extend(
            rows.filter(|(_, row)| row.to_string().contains("fiberlb"))
                .map(|(id, row)| (format!("{table} {id}"), row)),
        );
    }
    ours
}
