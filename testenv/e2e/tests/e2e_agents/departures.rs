//! Established connections of backends that go are cut where their pool says so, by OVN and by proxies.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fiberlb_lab::Vm;
use fiberlb_lab::workload::Server;
use fiberlb_proto::v1;

use crate::api::{fares, id_of, online, tree_now, until_tree};
use crate::common::until;
use crate::echo::{EchoConnection, alive};
use crate::resources::{
    OVN_PORT, PROXY_PORT, VIPS, at, both_targets, entry, listener, load_balancer_v4, on_both,
};
use crate::scenario::scenario;
use crate::site::{Site, serve_v4};

/// Port that the checks go to: who answers there may stop while connections to the other port go on.
const CHECKED_PORT: u16 = 9090;
/// Enough that both backends are met on each path.
const CONNECTIONS: usize = 12;
/// A drain timeout.
const TIMEOUT: Duration = Duration::from_secs(3);

fn serve_checks(vm: &Vm) -> Server {
    Server::tcp(vm, SocketAddr::new(vm.ipv4().unwrap(), CHECKED_PORT), vm.name()).unwrap()
}

/// A load balancer on both paths, whose connections are cut at once.
fn cutting(site: &Site) -> v1::LoadBalancerTree {
    let mut tree = on_both(load_balancer_v4("web", site.network, VIPS[0], &[1, 2]));
    tree.pools[0].pool.as_mut().unwrap().drain_timeout = Some(prost_types::Duration::default());
    for backend in &mut tree.pools[0].backends {
        backend.monitor_port = CHECKED_PORT.into();
    }
    tree
}

/// Connections to each backend, by both paths.
struct Connections {
    of_b1: Vec<EchoConnection>,
    of_b2: Vec<EchoConnection>,
}

impl Connections {
    async fn open(client: &Vm) -> Self {
        let mut all = Vec::new();
        for target in both_targets() {
            let opened = EchoConnection::open_many(client, target, CONNECTIONS).await;
            assert!(opened.iter().any(|it| it.server == "b1") && opened.iter().any(|it| it.server == "b2"));
            all.extend(opened);
        }
        let (of_b1, of_b2) = all.into_iter().partition(|it| it.server == "b1");
        Self { of_b1, of_b2 }
    }

    /// All of the first backend are reset, and no other one is.
    async fn only_those_of_b1_are_reset(mut self, what: &str) {
        for connection in &mut self.of_b1 {
            let by = connection.target;
            assert!(connection.is_reset().await, "{what}, by {by}: it goes on, or ends otherwise");
        }
        let count = self.of_b2.len();
        assert_eq!(alive(&mut self.of_b2).await, count, "{what}");
    }
}

async fn change(site: &Site, id: &str, edit: impl FnOnce(&mut v1::LoadBalancerTree)) {
    let mut tree = tree_now(&site.tenant, id).await;
    edit(&mut tree);
    site.tenant.apply(tree).await;
}

async fn until_both_are_listed(site: &Site) {
    site.until_listed(&at(VIPS[0], OVN_PORT).to_string(), "both backends", |list| list.len() == 2).await;
    site.lab.wait_for_sync().await.unwrap();
}

/// Waits until OVN's row has the second backend alone, on each chassis. Packets that a client sends while OVN flushes connections
/// and has not changed its flows yet would begin one to the same backend again.
async fn until_b2_is_alone(site: &Site) {
    let vip = at(VIPS[0], OVN_PORT).to_string();
    site.until_listed(&vip, "the second backend alone", |list| list == [entry(2)]).await;
    site.lab.wait_for_sync().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_a_backend_that_goes_are_cut_on_both_paths() {
    scenario("connections_of_a_backend_that_goes_are_cut_on_both_paths", || async {
        let site = Site::start("departures").await;
        let [b1, b2, c1] = site.vms([("b1", 1, "ch1"), ("b2", 2, "ch2"), ("c1", 11, "ch1")]).await;
        let _servers = [serve_v4(&b1), serve_v4(&b2)];
        let (checked, _checked) = (serve_checks(&b1), serve_checks(&b2));
        let tree = online(&site.tenant, cutting(&site)).await;
        let id = id_of(&tree);
        until_both_are_listed(&site).await;
        let rows = crate::rows::listener_rows(&site.lab).await;
        for (port, flush) in [(OVN_PORT, Some("true")), (PROXY_PORT, None)] {
            let vip = at(VIPS[0], port).to_string();
            let row = rows.values().find(|row| row["vips"].get(&vip).is_some()).unwrap();
            assert_eq!(row["options"].get("ct_flush").and_then(|it| it.as_str()), flush, "{row}");
        }

        let connections = Connections::open(&c1).await;
        change(&site, &id, |tree| tree.pools[0].backends[0].weight = Some(0)).await;
        until_b2_is_alone(&site).await;
        connections.only_those_of_b1_are_reset("weight 0").await;
        change(&site, &id, |tree| tree.pools[0].backends[0].weight = Some(1)).await;
        until_both_are_listed(&site).await;

        until_both_are_met(&c1).await;
        let connections = Connections::open(&c1).await;
        drop(checked);
        until_b2_is_alone(&site).await;
        connections.only_those_of_b1_are_reset("DOWN").await;
        let _checked = serve_checks(&b1);
        until_tree(&site.tenant, &id, "b1 ONLINE again", |tree| {
            fares(tree, "10.0.0.1").0 == v1::OperatingStatus::Online
        })
        .await;
        until_both_are_listed(&site).await;

        until_both_are_met(&c1).await;
        let connections = Connections::open(&c1).await;
        change(&site, &id, |tree| tree.pools[0].backends.retain(|it| it.address != "10.0.0.1")).await;
        until_b2_is_alone(&site).await;
        connections.only_those_of_b1_are_reset("deleted").await;
        assert_eq!(site.listed(&at(VIPS[0], OVN_PORT).to_string()).await, [entry(2)]);
        site.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_takes_a_listener_to_proxies_which_cut_after_it() {
    scenario("a_timeout_takes_a_listener_to_proxies_which_cut_after_it", || async {
        let site = Site::start("departures-late").await;
        let [b1, b2, c1] = site.vms([("b1", 1, "ch1"), ("b2", 2, "ch2"), ("c1", 11, "ch1")]).await;
        let _servers = [serve_v4(&b1), serve_v4(&b2)];
        let mut tree = load_balancer_v4("web", site.network, VIPS[0], &[1, 2]);
        tree.listeners = vec![listener(OVN_PORT)];
        let timeout = prost_types::Duration::try_from(TIMEOUT).unwrap();
        tree.pools[0].pool.as_mut().unwrap().drain_timeout = Some(timeout);
        let tree = online(&site.tenant, tree).await;
        site.lab.wait_for_sync().await.unwrap();
        let listener = &tree.listeners[0];
        assert_eq!(listener.datapath_in_force(), v1::Datapath::Proxy, "{listener:?}");
        assert_eq!(listener.datapath_reason, "the pool's drain timeout of more than 0 s needs it");

        let target = at(VIPS[0], OVN_PORT);
        let opened = EchoConnection::open_many(&c1, target, CONNECTIONS).await;
        let (mut of_b1, mut of_b2): (Vec<_>, Vec<_>) = opened.into_iter().partition(|it| it.server == "b1");
        let began = Instant::now();
        change(&site, &id_of(&tree), |tree| tree.pools[0].backends[0].weight = Some(0)).await;
        for connection in &mut of_b1 {
            assert!(connection.is_reset().await, "it goes on, or ends otherwise");
        }
        assert!(!of_b1.is_empty() && began.elapsed() >= TIMEOUT, "after {:?}", began.elapsed());
        let count = of_b2.len();
        assert_eq!(alive(&mut of_b2).await, count);
        site.close();
    })
    .await;
}

/// Waits until both backends take connections by both paths: each node has its own verdict.
async fn until_both_are_met(client: &Vm) {
    for target in both_targets() {
        until(&format!("both backends by {target}"), async || {
            let opened = EchoConnection::open_many(client, target, CONNECTIONS).await;
            let meets = |name| opened.iter().any(|it| it.server == name);
            (meets("b1") && meets("b2")).then_some(())
        })
        .await;
    }
}
