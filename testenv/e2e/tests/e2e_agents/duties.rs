//! Duties of nodes: cordon keeps what is there, and only what is dead is removed.

use fiberlb_lab::proxy::ProxyNode;
use fiberlb_proto::v1::NodeStatus;

use crate::command::fiberlb;
use crate::common::until;
use crate::resources::{VIPS, load_balancer_v4, on_both};
use crate::scenario::scenario;
use crate::site::{Site, add_tenant_network};

/// Number of networks of a node.
async fn networks_of(site: &Site, id: &str) -> Option<u32> {
    site.operator().nodes().await?.into_iter().find(|node| node.id == id).map(|node| node.networks)
}

async fn until_on(site: &Site, id: &str, count: u32) {
    until(&format!("{count} networks on {id}"), async || {
        (networks_of(site, id).await == Some(count)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cordoned_node_keeps_what_it_has_until_it_is_uncordoned() {
    scenario("a_cordoned_node_keeps_what_it_has_until_it_is_uncordoned", || async {
        let mut site = Site::start("cordon").await;
        let other = add_tenant_network(&site.lab, "sw1").await;
        let (cordoned, free) = ("node-ch1", "node-ch2");
        site.tenant.apply(on_both(load_balancer_v4("web", site.network, VIPS[0], &[1]))).await;
        site.until_listed("10.0.0.100:81", "both nodes", |list| list.len() == 2).await;
        let shown = fiberlb(&site, &format!("node cordon {cordoned}")).await.ok();
        assert!(shown.contains("CORDONED"), "{shown}");

        site.tenant.apply(on_both(load_balancer_v4("new", other, "10.0.0.99", &[1]))).await;
        site.until_listed("10.0.0.99:81", "one node", |list| list.len() == 1).await;
        for _ in 0..2 {
            until_on(&site, free, 2).await;
            until_on(&site, cordoned, 1).await;
            assert_eq!(site.listed("10.0.0.100:81").await.len(), 2, "what it has stays");
            assert_eq!(site.node(cordoned).namespaces().unwrap().len(), 1);
            // It is stored.
            site.tenant.plugin.kill().unwrap();
            site.tenant.plugin.start_again().await.unwrap();
            site.nodes_alive().await;
        }
        fiberlb(&site, &format!("node uncordon {cordoned}")).await.ok();
        site.until_listed("10.0.0.99:81", "both nodes", |list| list.len() == 2).await;
        site.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn networks_are_on_nodes_in_different_zones() {
    scenario("networks_are_on_nodes_in_different_zones", || async {
        let mut site = Site::without_nodes("zones").await;
        site.lab.add_all_chassis(&["ch3"]).await.unwrap();
        let plugin = site.tenant.plugin.agents_endpoint();
        for (chassis, zone) in [("ch1", "x"), ("ch2", "x"), ("ch3", "y")] {
            let id = format!("node-{chassis}");
            let node = ProxyNode::start_as(&site.lab, chassis, &id, &plugin, &["--zone", zone]).await;
            site.nodes.push(node.unwrap());
        }
        site.nodes_alive().await;
        let networks = ["sw1", "sw2", "sw3", "sw4"];
        for name in networks {
            let network = add_tenant_network(&site.lab, name).await;
            site.tenant.apply(on_both(load_balancer_v4(name, network, VIPS[0], &[1]))).await;
        }
        until_on(&site, "node-ch3", 4).await;
        until("two nodes for each network", async || {
            let on_x = networks_of(&site, "node-ch1").await? + networks_of(&site, "node-ch2").await?;
            (on_x == 4).then_some(())
        })
        .await;
        // Without the other zone, two nodes of one are better than one.
        fiberlb(&site, "node drain node-ch3 --wait=1m").await.ok();
        until_on(&site, "node-ch1", 4).await;
        until_on(&site, "node-ch2", 4).await;
        site.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_dead_node_is_removed_and_one_that_returns_is_new() {
    scenario("only_a_dead_node_is_removed_and_one_that_returns_is_new", || async {
        let mut site = Site::start("remove").await;
        site.tenant.apply(on_both(load_balancer_v4("web", site.network, VIPS[0], &[1]))).await;
        site.until_listed("10.0.0.100:81", "both nodes", |list| list.len() == 2).await;
        fiberlb(&site, "node cordon node-ch1").await.ok();
        let refused = fiberlb(&site, "node remove node-ch1").await;
        assert_eq!(refused.code, 1, "{refused:?}");
        assert!(refused.err.contains("node node-ch1 is connected"), "{refused:?}");
        assert_eq!(site.listed("10.0.0.100:81").await.len(), 2);

        site.nodes[0].kill().unwrap();
        until("a dead node", async || {
            (site.operator().node_status("node-ch1").await == Some(NodeStatus::Dead)).then_some(())
        })
        .await;
        assert_eq!(fiberlb(&site, "node remove node-ch1").await.ok(), "node-ch1 removed\n");
        let gone = fiberlb(&site, "node show node-ch1").await;
        assert!(gone.code == 1 && gone.err.contains("there is no node node-ch1"), "{gone:?}");
        let is_nodes = |row: &serde_json::Value| {
            row["name"].as_str().is_some_and(|name| name.starts_with("fiberlb-node-"))
        };
        until("the end of its port", async || {
            let ports = crate::rows::rows(&site.lab, "Logical_Switch_Port").await;
            (ports.values().filter(|row| is_nodes(row)).count() == 1).then_some(())
        })
        .await;

        site.nodes[0].start_again().await.unwrap();
        site.until_listed("10.0.0.100:81", "both nodes again", |list| list.len() == 2).await;
        let shown = fiberlb(&site, "node show node-ch1 -o json").await.ok();
        assert!(!shown.contains("cordoned"), "it is new: {shown}");
        site.close();
    })
    .await;
}
