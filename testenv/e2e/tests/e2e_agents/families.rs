//! Address families: a network that gains one while nodes serve it, and VIPs with backends of the other one.

use std::net::SocketAddr;
use std::time::Duration;

use fiberlb_lab::Vm;
use fiberlb_lab::workload::{Requests, Server, Trace};
use fiberlb_proto::v1;
use tokio::time::timeout;

use crate::access_log;
use crate::api::{fares, id_of, online, tree_now, until_tree};
use crate::common::{add_network, until};
use crate::resources::{
    DIRECT_VIPS, OVN_PORT, PROXY_PORT, VIPS, at, backend, listener, load_balancer, load_balancer_v4, on_both,
    on_one_node,
};
use crate::rows::rows;
use crate::scenario::scenario;
use crate::site::{BACKEND_PORT, Site, ask, serve, vm};

/// The router's port on the network, and its addresses before and after.
const ROUTER_PORT: &str = "lr1-sw1";
const ROUTER_V4: &str = "10.0.0.254/24";
const ROUTER_V6: &str = "fd00::254/64";
/// Enough that both of two servers are met.
const REQUESTS: u64 = 20;

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

/// The first address of both VMs' families, as backends.
fn backends(family: usize) -> Vec<v1::Backend> {
    [1, 2].map(|number| backend(&[format!("10.0.0.{number}"), format!("fd00::{number}")][family])).into()
}

/// The load balancer on one of two VIPs, with backends of the other family.
fn crossed(name: &str, site: &Site, vips: [&str; 2], of_vip: usize) -> v1::LoadBalancerTree {
    let mut tree = load_balancer_v4(name, site.network, vips[of_vip], &[]);
    tree.listeners = vec![listener(OVN_PORT)];
    tree.pools[0].backends = backends(1 - of_vip);
    tree
}

fn over_udp(mut tree: v1::LoadBalancerTree) -> v1::LoadBalancerTree {
    tree.listeners[0].protocol = v1::ListenerProtocol::Udp.into();
    tree.pools[0].pool.as_mut().unwrap().protocol = v1::PoolProtocol::Udp.into();
    tree
}

/// Both servers answer, whose clients are the nodes by their addresses of the backends' family.
async fn is_translated(client: &Vm, target: SocketAddr, is_udp: bool) {
    until(&format!("both servers at {target}"), async || {
        let requests = if is_udp { Requests::udp(client, target) } else { Requests::tcp(client, target) };
        let report = requests.run(REQUESTS).await.unwrap();
        assert!(report.clients.iter().all(|it| it.is_ipv4() != target.is_ipv4()), "{target}: {report}");
        (report.all_answered() && report.shares.len() == 2).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn proxies_translate_between_the_families_of_vips_and_backends() {
    scenario("proxies_translate_between_the_families_of_vips_and_backends", || async {
        let site = Site::start("translates").await;
        let vms = [("b1", 1, "ch1"), ("b2", 2, "ch2"), ("c1", 11, "ch1"), ("c2", 12, "ch2")];
        let [b1, b2, c1, c2] = site.vms(vms).await;
        let servers = [serve(&b1), serve(&b2)];
        let datagrams = [&b1, &b2].map(|vm| {
            [vm.ipv4().unwrap(), vm.ipv6().unwrap()]
                .map(|ip| Server::udp(vm, SocketAddr::new(ip, BACKEND_PORT), vm.name()).unwrap())
        });
        let (tcp, udp, direct) = (VIPS, ["10.0.0.105", "fd00::105"], DIRECT_VIPS);
        let mut made = Vec::new();
        for of_vip in [0, 1] {
            let name = |what: &str| format!("{what}-{of_vip}");
            made.push(online(&site.tenant, crossed(&name("tcp"), &site, tcp, of_vip)).await);
            online(&site.tenant, over_udp(crossed(&name("udp"), &site, udp, of_vip))).await;
            online(&site.tenant, on_one_node(crossed(&name("direct"), &site, direct, of_vip))).await;
        }
        let mut dual = load_balancer("dual", site.network, ["10.0.0.106", "fd00::106"], &[]);
        dual.pools[0].backends = backends(0);
        let dual = site.tenant.apply(on_both(dual)).await;
        until_tree(&site.tenant, &id_of(&dual), "a VIP that OVN does not serve", |tree| {
            let states = tree.listeners.iter().filter_map(|listener| listener.state.as_ref());
            let mut codes: Vec<&str> = states.map(|state| state.reason_code.as_str()).collect();
            codes.sort_unstable();
            codes == ["", "UNSERVED_FAMILY"]
        })
        .await;
        site.until_listed("[fd00::106]:81", "both nodes", |list| list.len() == 2).await;
        site.lab.wait_for_sync().await.unwrap();
        for (tree, reason) in [
            (&made[0], "an IPv6 backend behind an IPv4 VIP needs it"),
            (&made[1], "an IPv4 backend behind an IPv6 VIP needs it"),
        ] {
            let listener = &tree.listeners[0];
            assert_eq!(listener.datapath_in_force(), v1::Datapath::Proxy, "{listener:?}");
            assert_eq!(listener.datapath_reason, reason);
        }
        for client in [&c1, &c2] {
            for target in [tcp, direct].concat() {
                is_translated(client, at(target, OVN_PORT), false).await;
            }
            for target in udp {
                is_translated(client, at(target, OVN_PORT), true).await;
            }
            is_translated(client, at("fd00::106", PROXY_PORT), false).await;
            assert_eq!(ask(client, at("10.0.0.106", OVN_PORT), REQUESTS).await.shares.len(), 2);
        }

        let shown = shown(&site, &made[1].listeners[0].id, &c1, at(tcp[1], OVN_PORT)).await;
        assert!(shown.client.starts_with("[fd00::11]:"), "{shown:?}");
        assert!(made[1].pools[0].backends.iter().any(|it| it.id == shown.backend_id), "{shown:?}");

        // A server that is gone is found so by its own address.
        let [first, second] = servers;
        drop(second);
        for (tree, address) in [(&made[0], "fd00::2"), (&made[1], "10.0.0.2")] {
            until_tree(&site.tenant, &id_of(tree), "b2 OFFLINE", |tree| {
                fares(tree, address).0 == v1::OperatingStatus::Offline
            })
            .await;
        }
        for target in tcp {
            let report = ask(&c1, at(target, OVN_PORT), REQUESTS).await;
            assert!(report.all_answered() && report.shares.len() == 1, "{report}");
        }
        drop((first, datagrams));

        let refused = site.network_without_ipv6().await;
        assert!(refused.contains("no IPv6 subnet of the network is known"), "{refused}");
        site.close();
    })
    .await;
}

/// A connection as the access log of a listener shows it.
async fn shown(site: &Site, listener: &str, client: &Vm, target: SocketAddr) -> v1::AccessLogEntry {
    let mut stream = access_log::read(&site.tenant, listener).await.unwrap();
    loop {
        assert!(ask(client, target, 1).await.all_answered());
        let Ok(response) = timeout(Duration::from_millis(700), stream.message()).await else { continue };
        if let Some(entry) = response.unwrap().unwrap().entries.pop() {
            return entry;
        }
    }
}

impl Site {
    /// Reason why an IPv6 backend cannot be had on a network without IPv6.
    async fn network_without_ipv6(&self) -> String {
        let network = add_network(&self.lab, "sw4", &[("subnet", "10.4.0.0/24")]).await;
        let mut tree = load_balancer_v4("four-only", network, "10.4.0.100", &[]);
        tree.pools[0].backends = backends(1);
        let request = v1::ApplyLoadBalancerRequest { tree: Some(tree), ..Default::default() };
        let refused = self.tenant.client.clone().apply_load_balancer(request).await.unwrap_err();
        format!("{refused:?}")
    }
}
