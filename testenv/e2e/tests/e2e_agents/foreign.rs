//! Foreign objects on a node stay as they are, and ours are restored when somebody removes them.

use std::time::Instant;

use fiberlb_lab::workload::Requests;

use crate::api::{delete, id_of, online};
use crate::common::until;
use crate::machine::{Machine, on_chassis};
use crate::resources::{DIRECT_VIPS, PROXY_PORT, VIPS, at, load_balancer_v4, on_both, on_one_node};
use crate::scenario::scenario;
use crate::site::{Site, add_tenant_network, ask, serve_v4, vm};

/// Somebody else's namespaces, links, ports and bridges on a chassis, some of them called much like ours.
async fn seed(site: &Site, chassis: &str) {
    let directory = format!("/run/chassis/{chassis}/netns");
    let script = format!(
        "set -eu
         mkdir -p {directory}
         for name in theirs fiberlb-theirs fiberlb-00000000-00000000000000000000000000000000; do
             touch {directory}/$name
             unshare --net=/run/chassis/{chassis}/netns/$name true
         done
         ip link add flb00000000000 type veth peer name theirs0
         ip link set flb00000000000 up
         ip address add 192.0.2.1/24 dev theirs0"
    );
    on_chassis(&site.lab, chassis, &["sh", "-c", &script]).await;
    let theirs = ["add-br", "br-theirs", "--", "set", "Bridge", "br-theirs", "datapath_type=netdev"];
    let ports = ["--", "add-port", "br-theirs", "theirs0", "--", "add-port", "br-int", "flb00000000000"];
    site.lab.ovs_vsctl(chassis, &[&theirs[..], &ports[..]].concat()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_ours_on_a_node_is_left_alone() {
    scenario("what_is_not_ours_on_a_node_is_left_alone", || async {
        let mut site = Site::without_nodes("foreign-node").await;
        for chassis in ["ch1", "ch2"] {
            seed(&site, chassis).await;
        }
        site.add_nodes().await;
        let [b1] = site.vms([("b1", 1, "ch1")]).await;
        let _server = serve_v4(&b1);
        let mut before = Vec::new();
        for node in &site.nodes {
            before.push(Machine::of(&site.lab, node).await);
        }
        assert!(before.iter().all(|machine| machine.namespaces.len() == 3), "{before:?}");

        let rows = online(&site.tenant, on_both(load_balancer_v4("rows", site.network, VIPS[0], &[1]))).await;
        let direct = on_one_node(load_balancer_v4("direct", site.network, DIRECT_VIPS[0], &[1]));
        let direct = online(&site.tenant, direct).await;
        for (node, before) in site.nodes.iter().zip(&before) {
            let now = Machine::of(&site.lab, node).await;
            assert_eq!((now.namespaces.len(), now.links.len()), (4, before.links.len() + 1), "{now:?}");
            assert!(
                before.namespaces.iter().all(|(name, has)| now.namespaces.get(name) == Some(has)),
                "{now:?}"
            );
            assert!(before.links.iter().all(|link| now.links.contains(link)), "{now:?}");
            assert_eq!(now.bridges["br-theirs"], ["theirs0"]);
        }
        // Also an agent that finds all of it at its start.
        for node in &mut site.nodes {
            node.kill().unwrap();
            node.start_again().await.unwrap();
        }
        site.nodes_alive().await;
        for tree in [&rows, &direct] {
            delete(&site.tenant, &id_of(tree)).await;
        }
        for (node, before) in site.nodes.iter().zip(before) {
            until("a machine as it was", async || {
                (Machine::at_rest(&site.lab, node).await.as_ref() == Some(&before)).then_some(())
            })
            .await;
        }
        site.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_removes_by_hand_is_put_right_while_others_go_on() {
    scenario("what_somebody_removes_by_hand_is_put_right_while_others_go_on", || async {
        let site = Site::start("by-hand").await;
        let other = add_tenant_network(&site.lab, "sw1").await;
        let specs = [
            ("a1", 1, "ch1", "sw0"),
            ("ac", 11, "ch2", "sw0"),
            ("z1", 1, "ch2", "sw1"),
            ("zc", 11, "ch1", "sw1"),
        ];
        let specs = specs.map(|(name, number, chassis, switch)| vm(name, number, chassis, switch));
        let [a1, ac, z1, zc] = site.lab.add_vms(specs.into()).await.unwrap().try_into().unwrap();
        let _servers = [serve_v4(&a1), serve_v4(&z1)];
        for (name, network) in [("a", site.network), ("z", other)] {
            online(&site.tenant, on_both(load_balancer_v4(name, network, VIPS[0], &[1]))).await;
        }
        site.lab.wait_for_sync().await.unwrap();
        let target = at(VIPS[0], PROXY_PORT);
        let undisturbed =
            Requests::tcp(&zc, target).pause(std::time::Duration::from_millis(10)).start().unwrap();
        let ours = site.network.simple().to_string();
        for what in ["port", "link", "namespace"] {
            for node in &site.nodes {
                let whole = Machine::of(&site.lab, node).await;
                let namespace = whole.namespaces.keys().find(|name| name.ends_with(&ours)).unwrap();
                let link = link_of(&site, node.chassis(), &site.network.to_string()).await;
                let began = Instant::now();
                match what {
                    "port" => drop(
                        site.lab.ovs_vsctl(node.chassis(), &["del-port", "br-int", &link]).await.unwrap(),
                    ),
                    "link" => {
                        drop(on_chassis(&site.lab, node.chassis(), &["ip", "link", "del", &link]).await);
                    }
                    _ => {
                        let file = format!("{}/{namespace}", node.netns_dir());
                        let script = format!("umount -l {file} && rm {file}");
                        drop(on_chassis(&site.lab, node.chassis(), &["sh", "-c", &script]).await);
                    }
                }
                until(&format!("{} whole again without its {what}", node.id()), async || {
                    (Machine::at_rest(&site.lab, node).await.as_ref() == Some(&whole)).then_some(())
                })
                .await;
                println!("{what} of {} is back after {:.1?}", node.id(), began.elapsed());
            }
            until("answers through both nodes", async || {
                let report = ask(&ac, target, 20).await;
                (report.all_answered() && report.clients.len() == 2).then_some(())
            })
            .await;
        }
        let report = undisturbed.stop().await;
        assert!(report.all_answered() && report.share("z1") == report.answered, "{report}");
        site.close();
    })
    .await;
}

/// The link outside of the namespace of a network, by its port's owner.
async fn link_of(site: &Site, chassis: &str, network: &str) -> String {
    let all =
        site.lab.ovs_vsctl(chassis, &["--bare", "--columns=name,external_ids", "list", "Interface"]).await;
    let all = all.unwrap();
    let mine = all.split("\n\n").find(|row| row.contains(network) && row.contains("fiberlb"));
    mine.expect("no port for the network").trim().lines().next().unwrap().to_owned()
}
