//! UDP through proxies: behind an OVN row and on the node that has the VIP, in both families, while backends and nodes
//! come and go.

use std::net::SocketAddr;
use std::time::Duration;

use fiberlb_lab::Vm;
use fiberlb_lab::workload::{Report, Requests, Server};
use fiberlb_proto::v1;

use crate::api::{id_of, online, tree_now, until_tree};
use crate::common::until;
use crate::resources::{DIRECT_VIPS, VIPS, at, listener, load_balancer};
use crate::scenario::scenario;
use crate::site::{BACKEND_PORT, Site, serve};

const PORT: u16 = 53;
/// Queries of one client, each from a port of its own.
const QUERIES: u64 = 30;

/// Servers of a VM: of datagrams, and of the connections by which it is checked.
fn serve_names(vm: &Vm) -> Vec<Server> {
    let own = [vm.ipv4().unwrap(), vm.ipv6().unwrap()].map(|ip| SocketAddr::new(ip, BACKEND_PORT));
    let datagrams = own.map(|address| Server::udp(vm, address, vm.name()).unwrap());
    datagrams.into_iter().chain(serve(vm)).collect()
}

/// The load balancer with a UDP listener that proxies carry.
fn names(mut tree: v1::LoadBalancerTree, exposure: v1::Exposure) -> v1::LoadBalancerTree {
    tree.listeners = vec![v1::Listener {
        protocol: v1::ListenerProtocol::Udp.into(),
        datapath: v1::Datapath::Proxy.into(),
        exposure: exposure.into(),
        ..listener(PORT)
    }];
    tree.pools[0].pool.as_mut().unwrap().protocol = v1::PoolProtocol::Udp.into();
    tree
}

async fn query(client: &Vm, target: SocketAddr) -> Report {
    Requests::udp(client, target).run(QUERIES).await.unwrap()
}

/// Asks until all queries of a run are answered by these servers, and by each of them.
async fn is_answered_by(client: &Vm, target: SocketAddr, servers: &[&str]) {
    until(&format!("{} answered by {servers:?} at {target}", client.name()), async || {
        let report = query(client, target).await;
        let answered: Vec<&str> = report.shares.keys().map(String::as_str).collect();
        (report.all_answered() && answered == servers).then_some(())
    })
    .await;
}

/// Changes the backends of a pool, and waits until that is in force.
async fn set_backends(site: &Site, id: &str, change: impl Fn(&mut v1::Backend)) {
    let mut tree = tree_now(&site.tenant, id).await;
    tree.pools[0].backends.iter_mut().for_each(change);
    site.tenant.apply(tree).await;
    until_tree(&site.tenant, id, "the new backends in force", |tree| {
        let states = tree.pools[0].backends.iter().filter_map(|backend| backend.state.as_ref());
        states.into_iter().all(|state| state.observed_generation == state.generation)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn proxies_carry_udp_behind_a_row_and_on_the_node_that_has_the_vip() {
    scenario("proxies_carry_udp_behind_a_row_and_on_the_node_that_has_the_vip", || async {
        let mut site = Site::start("udp").await;
        let vms = [("b1", 1, "ch1"), ("b2", 2, "ch2"), ("c1", 11, "ch1"), ("c2", 12, "ch2")];
        let [b1, b2, c1, c2] = site.vms(vms).await;
        let _servers = [serve_names(&b1), serve_names(&b2)];
        let rows = load_balancer("rows", site.network, VIPS, &[1, 2]);
        let rows = online(&site.tenant, names(rows, v1::Exposure::Auto)).await;
        let direct = load_balancer("direct", site.network, DIRECT_VIPS, &[1, 2]);
        let direct = online(&site.tenant, names(direct, v1::Exposure::Direct)).await;
        site.lab.wait_for_sync().await.unwrap();
        for listener in [&rows.listeners[0], &direct.listeners[0]] {
            assert_eq!(listener.datapath_in_force(), v1::Datapath::Proxy, "{listener:?}");
        }
        let row =
            crate::rows::listener_rows(&site.lab).await.into_values().find(|row| row["protocol"] == "udp");
        assert_eq!(row.unwrap()["options"]["ct_flush"], "true", "flows leave a node with it");

        let targets: Vec<SocketAddr> = VIPS.into_iter().chain(DIRECT_VIPS).map(|vip| at(vip, PORT)).collect();
        let clients = [&c1, &c2];
        for target in &targets {
            for client in clients {
                is_answered_by(client, *target, &["b1", "b2"]).await;
            }
        }
        let total = sessions(&site, &rows.listeners[0].id).await;
        assert!(total >= 2.0 * QUERIES as f64, "{total} sessions by the row");

        // A backend goes, and comes back.
        for tree in [&rows, &direct] {
            let is_first =
                |backend: &v1::Backend| ["10.0.0.1", "fd00::1"].contains(&backend.address.as_str());
            for (is_on, servers) in [(false, &["b2"][..]), (true, &["b1", "b2"])] {
                set_backends(&site, &id_of(tree), |backend| {
                    if is_first(backend) {
                        backend.admin_state_up = Some(is_on);
                    }
                })
                .await;
                for target in &targets[if id_of(tree) == id_of(&rows) { 0..2 } else { 2..4 }] {
                    is_answered_by(&c1, *target, servers).await;
                }
            }
        }

        // A node goes: the other one serves, also the VIP that was the first one's.
        let holder = crate::direct::holder(&site, &id_of(&direct)).await;
        let number = site.nodes.iter().position(|node| node.id() == holder).unwrap();
        site.nodes[number].kill().unwrap();
        for target in &targets {
            for client in clients {
                is_answered_by(client, *target, &["b1", "b2"]).await;
            }
        }
        site.nodes[number].start_again().await.unwrap();
        site.nodes_alive().await;
        for target in &targets {
            is_answered_by(&c2, *target, &["b1", "b2"]).await;
        }
        site.close();
    })
    .await;
}

/// Sessions of a listener that both nodes have counted.
async fn sessions(site: &Site, listener: &str) -> f64 {
    let line = format!("fiberlb_proxy_listener_connections_total{{listener=\"{listener}\"}}");
    until("sessions in the metrics", async || {
        let mut total = 0.0;
        for node in &site.nodes {
            total += node.metric(&line).await.unwrap_or(0.0);
        }
        (total >= 2.0 * QUERIES as f64).then_some(total)
    })
    .await
}

/// A list of allowed clients decides over datagrams, too: others get no answer.
#[tokio::test(flavor = "multi_thread")]
async fn only_allowed_clients_of_udp_are_answered() {
    scenario("only_allowed_clients_of_udp_are_answered", || async {
        let site = Site::start("udp-allowed").await;
        let [b1, c1, c2] = site.vms([("b1", 1, "ch2"), ("c1", 11, "ch1"), ("c2", 12, "ch2")]).await;
        let _servers = serve_names(&b1);
        let mut tree = names(load_balancer("rows", site.network, VIPS, &[1]), v1::Exposure::Auto);
        tree.listeners[0].datapath = v1::Datapath::Auto.into();
        tree.listeners[0].allowed_cidrs = ["10.0.0.11/32", "fd00::11/128"].map(str::to_owned).into();
        let tree = online(&site.tenant, tree).await;
        assert_eq!(tree.listeners[0].datapath_reason, "a list of allowed CIDRs needs it");
        site.lab.wait_for_sync().await.unwrap();
        for vip in VIPS {
            is_answered_by(&c1, at(vip, PORT), &["b1"]).await;
            let requests = Requests::udp(&c2, at(vip, PORT)).timeout(Duration::from_secs(3));
            let report = requests.run(2).await.unwrap();
            assert_eq!(report.answered, 0, "{report}");
        }
        site.close();
    })
    .await;
}
