//! Tenants that share nodes: one leads connections in a circle, one floods, and a third one must not notice.

use std::time::Duration;

use fiberlb_lab::proxy::ProxyNode;
use fiberlb_lab::workload::Requests;
use fiberlb_proto::v1;

use crate::api::{id_of, until_tree};
use crate::common::{tree, until};
use crate::resources::{PROXY_PORT, at, backend, listener, load_balancer_v4};
use crate::scenario::scenario;
use crate::site::{Site, add_tenant_network, ask, serve_v4, vm};

/// Connections of each node, by setting, and by its descriptors beside those that the process keeps for the rest.
const CONNECTIONS: &str = "200";
const BY_DESCRIPTORS: u64 = 400;
/// VIPs of the load balancers that have each other for their backend, and of those on other networks.
const CIRCLE: [&str; 2] = ["10.0.0.100", "10.0.0.102"];
const VIP: &str = "10.0.0.100";

/// A proxied listener without checks.
fn proxied(mut tree: v1::LoadBalancerTree) -> v1::LoadBalancerTree {
    tree.pools[0].health_check = None;
    tree.listeners = vec![v1::Listener { datapath: v1::Datapath::Proxy.into(), ..listener(PROXY_PORT) }];
    tree
}

fn listener_reason(tree: &v1::LoadBalancerTree) -> String {
    tree.listeners[0].state.as_ref().unwrap().reason.clone()
}

/// Demands of two tenants on the nodes, and the requests of a third one beside them.
struct Attack {
    /// Arguments of the nodes.
    node: &'static [&'static str],
    /// Connections that a tenant opens, and leaves open.
    flood: usize,
    /// Clients that lead connections in a circle, one after the other.
    loops: usize,
    /// Requests of the tenant that must not notice.
    requests: u64,
}

impl Attack {
    async fn costs_no_request(self, name: &str) {
        let mut site = Site::without_nodes(name).await;
        let (other, flooded) =
            (add_tenant_network(&site.lab, "sw1").await, add_tenant_network(&site.lab, "sw2").await);
        let specs = [
            ("looping", 11, "ch1", "sw0"),
            ("server", 1, "ch2", "sw1"),
            ("client", 11, "ch1", "sw1"),
            ("target", 1, "ch2", "sw2"),
            ("flooding", 11, "ch1", "sw2"),
        ];
        let specs = specs.map(|(name, number, chassis, switch)| vm(name, number, chassis, switch));
        let [looping, server, client, target, flooding] =
            site.lab.add_vms(specs.into()).await.unwrap().try_into().unwrap();
        let _servers = [serve_v4(&server), serve_v4(&target)];
        let plugin = site.tenant.plugin.agents_endpoint();
        for chassis in ["ch1", "ch2"] {
            let id = format!("node-{chassis}");
            site.nodes.push(ProxyNode::start_as(&site.lab, chassis, &id, &plugin, self.node).await.unwrap());
        }
        site.nodes_alive().await;

        let mut circle = Vec::new();
        for (number, vip) in CIRCLE.into_iter().enumerate() {
            let mut wanted = proxied(tree(vip, site.network, vip, &["10.0.0.1:80"]));
            let next = CIRCLE[1 - number];
            wanted.pools[0].backends = vec![v1::Backend { port: PROXY_PORT.into(), ..backend(next) }];
            circle.push(site.tenant.apply(wanted).await);
        }
        for (name, network) in [("other", other), ("flooded", flooded)] {
            site.tenant.apply(proxied(load_balancer_v4(name, network, VIP, &[1]))).await;
        }
        site.lab.wait_for_sync().await.unwrap();
        let served = at(VIP, PROXY_PORT);
        // Each of the two nodes has the row's address once it serves.
        until("answers on the other networks", async || {
            let answered =
                ask(&client, served, 10).await.answered + ask(&flooding, served, 10).await.answered;
            (answered == 20).then_some(())
        })
        .await;

        let flood = async {
            let flooding = flooding.clone();
            let open = move || -> Vec<_> {
                let wait = Duration::from_secs(1);
                (0..self.flood).filter_map(|_| flooding.tcp_connect(served, wait).ok()).collect()
            };
            tokio::task::spawn_blocking(open).await.unwrap()
        };
        let first = at(CIRCLE[0], PROXY_PORT);
        let circles: Vec<_> =
            (0..self.loops).map(|_| Requests::tcp(&looping, first).start().unwrap()).collect();
        let requests = Requests::tcp(&client, served).run(self.requests);
        let (held, report) = tokio::join!(flood, requests);
        let report = report.unwrap();
        println!("loop_other_tenant_failures {}: {report}", report.failed.len());
        assert_eq!(report.answered, self.requests, "failed requests of another tenant: {report}");
        for circle in circles {
            let looped = circle.stop().await;
            assert!(looped.answered == 0 && looped.total() > 0, "{looped}");
        }
        for node in &site.nodes {
            let short = node.metric("fiberlb_proxy_shortages_total{resource=\"descriptors\"}").await.unwrap();
            assert!(short == 0.0, "{} is short of descriptors", node.id());
        }
        drop(held);
        for made in &circle {
            let what = "a listener that says that the share is used up";
            until_tree(&site.tenant, &id_of(made), what, |tree| listener_reason(tree).contains("its share"))
                .await;
        }
        // It ends by itself, and a node is free for its tenant again.
        until("the end of the circles", async || {
            let nodes = site.operator().nodes().await?;
            nodes.iter().all(|node| node.connections == 0).then_some(())
        })
        .await;
        site.close();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_that_loops_and_one_that_floods_cost_no_other_tenant_a_request() {
    scenario("a_tenant_that_loops_and_one_that_floods_cost_no_other_tenant_a_request", || async {
        let node = &["--max-connections", CONNECTIONS];
        Attack { node, flood: 400, loops: 1, requests: 300 }.costs_no_request("shares").await;
    })
    .await;
}

/// Nodes have as many connections as their descriptors allow, and two tenants ask for ten times their shares of these.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "by make test-hostile"]
async fn hostile_a_loop_and_a_flood_of_ten_shares_cost_no_other_tenant_a_request() {
    scenario("hostile_a_loop_and_a_flood_of_ten_shares_cost_no_other_tenant_a_request", || async {
        // Of the agent, for the rest of the process and for each worker; the nodes inherit the limit.
        let workers = std::thread::available_parallelism().unwrap().get() as u64;
        let descriptors = 1024 + workers * (2 * 512 + 256) + 2 * BY_DESCRIPTORS;
        let limits =
            [format!("--pid={}", std::process::id()), format!("--nofile={descriptors}:{descriptors}")];
        let limited = std::process::Command::new("prlimit").args(limits).status().unwrap();
        assert!(limited.success());
        let flood = 10 * usize::try_from(BY_DESCRIPTORS).unwrap() / 2;
        Attack { node: &[], flood, loops: 4, requests: 300 }.costs_no_request("hostile-shares").await;
    })
    .await;
}
