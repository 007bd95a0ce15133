//! Every path that a connection can take, from everywhere: OVN's own, through proxies behind an OVN row, and through the
//! node that has the VIP.

use std::net::SocketAddr;

use fiberlb_lab::Vm;
use fiberlb_proto::v1;

use crate::api::{fares, id_of, online, until_tree};
use crate::resources::{DIRECT_VIPS, OVN_PORT, PROXY_PORT, VIPS, at, load_balancer, on_both, on_one_node};
use crate::scenario::scenario;
use crate::site::{Site, ask, like, serve};

/// Enough that each of three backends is met on every path.
const REQUESTS: u64 = 40;

/// All paths in both families.
fn paths() -> Vec<(&'static str, SocketAddr)> {
    let rows = VIPS.into_iter().flat_map(|vip| [("OVN", at(vip, OVN_PORT)), ("PROXY", at(vip, PROXY_PORT))]);
    rows.chain(DIRECT_VIPS.map(|vip| ("DIRECT", at(vip, OVN_PORT)))).collect()
}

/// All requests are answered, by exactly these servers. On OVN's path they see the client itself.
async fn is_served(client: &Vm, servers: &[&str]) {
    for (path, target) in paths() {
        let report = ask(client, target, REQUESTS).await;
        let case = format!("{} by {path} to {target}: {report}", client.name());
        let met: Vec<&str> = report.shares.keys().map(String::as_str).collect();
        assert_eq!((report.answered, met.as_slice()), (REQUESTS, servers), "{case}");
        let sees_client = report.clients.contains(&like(client, target.ip()));
        assert_eq!(sees_client, path == "OVN", "{case}: {:?}", report.clients);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_path_serves_every_client_and_leaves_out_what_is_unhealthy() {
    scenario("every_path_serves_every_client_and_leaves_out_what_is_unhealthy", || async {
        let site = Site::start("paths").await;
        let vms =
            [("b1", 1, "ch1"), ("b2", 2, "ch2"), ("b3", 3, "ch2"), ("c1", 11, "ch1"), ("c2", 12, "ch2")];
        let [b1, b2, b3, c1, c2] = site.vms(vms).await;
        let _servers = [serve(&b1), serve(&b3)];
        let unlucky = serve(&b2);
        let rows = online(&site.tenant, on_both(load_balancer("rows", site.network, VIPS, &[1, 2, 3]))).await;
        let direct = on_one_node(load_balancer("direct", site.network, DIRECT_VIPS, &[1, 2, 3]));
        let direct = online(&site.tenant, direct).await;
        site.lab.wait_for_sync().await.unwrap();
        carried_as_asked(&rows, &direct);
        for client in [&c1, &c2, &b1] {
            is_served(client, &["b1", "b2", "b3"]).await;
        }

        drop(unlucky);
        for tree in [&rows, &direct] {
            until_tree(&site.tenant, &id_of(tree), "b2 OFFLINE in both families", |tree| {
                ["10.0.0.2", "fd00::2"].iter().all(|ip| fares(tree, ip).0 == v1::OperatingStatus::Offline)
            })
            .await;
        }
        site.until_listed("10.0.0.100:80", "no b2", |list| list.len() == 2).await;
        site.until_listed("[fd00::100]:80", "no b2", |list| list.len() == 2).await;
        site.lab.wait_for_sync().await.unwrap();
        for client in [&c1, &c2, &b1] {
            is_served(client, &["b1", "b3"]).await;
        }
        site.close();
    })
    .await;
}

/// The API says who carries each listener, and why.
fn carried_as_asked(rows: &v1::LoadBalancerTree, direct: &v1::LoadBalancerTree) {
    let find = |tree: &v1::LoadBalancerTree, port: u16| {
        tree.listeners.iter().find(|listener| listener.port == u32::from(port)).cloned().unwrap()
    };
    let ovn = find(rows, OVN_PORT);
    assert_eq!((ovn.datapath_in_force(), ovn.proxy_node_ids.len()), (v1::Datapath::Ovn, 0), "{ovn:?}");
    let mut proxied = find(rows, PROXY_PORT);
    proxied.proxy_node_ids.sort();
    assert_eq!(proxied.datapath_in_force(), v1::Datapath::Proxy, "{proxied:?}");
    assert_eq!(proxied.proxy_node_ids, ["node-ch1", "node-ch2"], "{proxied:?}");
    let direct = find(direct, OVN_PORT);
    assert_eq!(
        (direct.datapath_in_force(), direct.proxy_node_ids.len()),
        (v1::Datapath::Proxy, 1),
        "{direct:?}"
    );
    assert!(direct.datapath_reason.contains("DIRECT"), "{direct:?}");
}
