//! Selection of backends as only proxies do it.

use std::net::SocketAddr;

use fiberlb_lab::Vm;
use fiberlb_lab::workload::Server;
use fiberlb_proto::v1;

use crate::api::{self, id_of, online, tree_now, until_tree};
use crate::command::fiberlb;
use crate::common::until;
use crate::resources::{OVN_PORT, VIPS, at, backend, listener, load_balancer_v4};
use crate::scenario::scenario;
use crate::site::{Site, ask, serve_v4};

/// Requests that show a share: of three quarters of them no draw is off by a quarter.
const REQUESTS: u64 = 200;

/// Port that the checks go to: it answers while the backend's own does not.
const CHECKED_PORT: u16 = 9090;

fn serve_checks(vm: &Vm) -> Server {
    Server::tcp(vm, SocketAddr::new(vm.ipv4().unwrap(), CHECKED_PORT), vm.name()).unwrap()
}

/// A load balancer with one listener, whose pool is changed.
fn with_pool(site: &Site, backends: &[u8], edit: impl FnOnce(&mut v1::Pool)) -> v1::LoadBalancerTree {
    let mut tree = load_balancer_v4("web", site.network, VIPS[0], backends);
    tree.listeners = vec![listener(OVN_PORT)];
    edit(tree.pools[0].pool.as_mut().unwrap());
    tree
}

#[tokio::test(flavor = "multi_thread")]
async fn random_selection_takes_a_listener_to_proxies_and_keeps_to_weights() {
    scenario("random_selection_takes_a_listener_to_proxies_and_keeps_to_weights", || async {
        let site = Site::start("selection").await;
        let [b1, b2, c1] = site.vms([("b1", 1, "ch1"), ("b2", 2, "ch2"), ("c1", 11, "ch1")]).await;
        let _servers = [serve_v4(&b1), serve_v4(&b2)];
        let mut tree = with_pool(&site, &[1, 2], |pool| pool.set_algorithm(v1::Algorithm::Random));
        tree.pools[0].backends[0].weight = Some(3);
        let tree = online(&site.tenant, tree).await;
        site.lab.wait_for_sync().await.unwrap();
        let listener = &tree.listeners[0];
        assert_eq!(listener.datapath_in_force(), v1::Datapath::Proxy, "{listener:?}");
        assert_eq!(listener.datapath_reason, "the pool's algorithm RANDOM needs it");
        let report = ask(&c1, at(VIPS[0], OVN_PORT), REQUESTS).await;
        assert!(report.all_answered() && (100..=195).contains(&report.share("b1")), "{report}");

        let mut tree = tree_now(&site.tenant, &id_of(&tree)).await;
        tree.pools[0].pool.as_mut().unwrap().set_algorithm(v1::Algorithm::PowerOfTwoChoices);
        tree.pools[0].backends[1].weight = Some(0);
        let tree = site.tenant.apply(tree).await;
        assert_eq!(tree.listeners[0].datapath_reason, "the pool's algorithm POWER_OF_TWO_CHOICES needs it");
        let report = ask(&c1, at(VIPS[0], OVN_PORT), 20).await;
        assert!(report.all_answered() && report.share("b1") == 20, "{report}");
        site.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_is_added_begins_with_a_small_share() {
    scenario("a_backend_that_is_added_begins_with_a_small_share", || async {
        let site = Site::start("slow-start").await;
        let [b1, b2, c1] = site.vms([("b1", 1, "ch1"), ("b2", 2, "ch2"), ("c1", 11, "ch1")]).await;
        let _servers = [serve_v4(&b1), serve_v4(&b2)];
        let hour = prost_types::Duration { seconds: 3_600, nanos: 0 };
        // Without a check the first one is there with its pool, and begins beside no other.
        let mut tree = with_pool(&site, &[1], |pool| pool.slow_start = Some(hour));
        tree.pools[0].health_check = None;
        let tree = site.tenant.apply(tree).await;
        let id = id_of(&tree);
        let served = until_tree(&site.tenant, &id, "both nodes serving", |tree| {
            tree.listeners[0].proxy_node_ids.len() == 2
        });
        let listener = &served.await.listeners[0];
        site.lab.wait_for_sync().await.unwrap();
        assert_eq!(listener.datapath_in_force(), v1::Datapath::Proxy, "{listener:?}");
        assert_eq!(listener.datapath_reason, "the pool's slow start needs it");
        let report = ask(&c1, at(VIPS[0], OVN_PORT), 20).await;
        assert!(report.all_answered() && report.share("b1") == 20, "alone it takes all: {report}");

        let mut tree = tree_now(&site.tenant, &id).await;
        tree.pools[0].backends.push(backend("10.0.0.2"));
        let mut tree = site.tenant.apply(tree).await;
        until("a connection of the one that was added", async || {
            (ask(&c1, at(VIPS[0], OVN_PORT), 10).await.share("b2") > 0).then_some(())
        })
        .await;
        let report = ask(&c1, at(VIPS[0], OVN_PORT), REQUESTS).await;
        assert!(report.all_answered() && (5..=60).contains(&report.share("b2")), "{report}");

        tree.pools[0].pool.as_mut().unwrap().slow_start = None;
        site.tenant.apply(tree).await;
        site.lab.wait_for_sync().await.unwrap();
        let report = ask(&c1, at(VIPS[0], OVN_PORT), REQUESTS).await;
        assert!(report.all_answered() && (70..=130).contains(&report.share("b2")), "{report}");
        site.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_refuses_clients_but_no_check_is_left_out_and_comes_back() {
    scenario("a_backend_that_refuses_clients_but_no_check_is_left_out_and_comes_back", || async {
        let site = Site::start("passive-health").await;
        let [b1, b2, c1] = site.vms([("b1", 1, "ch1"), ("b2", 2, "ch2"), ("c1", 11, "ch1")]).await;
        let (ill, _well) = (serve_v4(&b1), serve_v4(&b2));
        let _checks = [serve_checks(&b1), serve_checks(&b2)];
        let seconds = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let check = v1::PassiveHealthCheck {
            consecutive_failures: 3,
            ejection_time: seconds(20),
            ..Default::default()
        };
        let mut tree = with_pool(&site, &[1, 2], |pool| pool.passive_health_check = Some(check));
        for backend in &mut tree.pools[0].backends {
            backend.monitor_port = CHECKED_PORT.into();
        }
        let tree = online(&site.tenant, tree).await;
        site.lab.wait_for_sync().await.unwrap();
        let listener = &tree.listeners[0];
        assert_eq!(listener.datapath_in_force(), v1::Datapath::Proxy, "{listener:?}");
        assert_eq!(listener.datapath_reason, "the pool's passive health check needs it");
        let target = at(VIPS[0], OVN_PORT);
        let report = ask(&c1, target, 40).await;
        assert!(report.all_answered() && report.shares.len() == 2, "{report}");

        drop(ill);
        let report = ask(&c1, target, 80).await;
        assert!(report.all_answered() && report.share("b2") == 80, "no client fails: {report}");
        let backend = api::backend(&tree, "10.0.0.1").id.clone();
        let health = until("both nodes leaving it out", async || {
            let health = site.operator().health(&backend).await;
            (health.ejections.len() == 2).then_some(health)
        })
        .await;
        assert_eq!(health.operating_status(), v1::OperatingStatus::Online, "{health:?}");
        for ejection in &health.ejections {
            assert_eq!(ejection.reason, "connection refused");
            let left = ejection.until.unwrap().seconds
                - prost_types::Timestamp::from(std::time::SystemTime::now()).seconds;
            assert!((1..=60).contains(&left), "{health:?}");
        }
        let shown = fiberlb(&site, "health show web/web/10.0.0.1:8080").await.ok();
        assert!(shown.contains("LEFT OUT UNTIL") && shown.contains("connection refused"), "{shown}");
        let mut ejections = 0.0;
        for node in &site.nodes {
            let line = format!("fiberlb_proxy_listener_ejections_total{{listener=\"{}\"}}", listener.id);
            ejections += node.metric(&line).await.unwrap();
        }
        assert!(ejections >= 2.0, "{ejections}");

        let _back = serve_v4(&b1);
        until("the backend with its share again", async || {
            let report = ask(&c1, target, 20).await;
            assert!(report.all_answered(), "{report}");
            (report.share("b1") >= 5).then_some(())
        })
        .await;
        until("nobody leaving it out", async || {
            site.operator().health(&backend).await.ejections.is_empty().then_some(())
        })
        .await;
        site.close();
    })
    .await;
}
