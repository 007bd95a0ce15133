//! Defects of others in health checks (see those that the reconciler's own tests name).

use std::time::Duration;

use fiberlb_lab::Vm;
use fiberlb_proto::v1;
use fiberlb_proto::v1::health_check_service_client::HealthCheckServiceClient;

use crate::api::{fares, id_of, online, until_tree};
use crate::common::until;
use crate::resources::{DELAY_S, FALL, VIPS, check, entry, listener, load_balancer_v4, on_both};
use crate::scenario::scenario;
use crate::site::{Site, serve_v4};

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_behind_two_listeners_leaves_a_dead_backend_out_of_both() {
    scenario("a_pool_behind_two_listeners_leaves_a_dead_backend_out_of_both", || async {
        let site = Site::start("defect3").await;
        let [b1, b2] = site.vms([("b1", 1, "ch1"), ("b2", 2, "ch2")]).await;
        let (_well, ill) = (serve_v4(&b1), serve_v4(&b2));
        let mut tree = load_balancer_v4("web", site.network, VIPS[0], &[1, 2]);
        tree.listeners = vec![listener(80), listener(82)];
        online(&site.tenant, tree).await;
        for port in [80, 82] {
            site.until_listed(&format!("10.0.0.100:{port}"), "both", |list| list.len() == 2).await;
        }
        drop(ill);
        for port in [80, 82] {
            site.until_listed(&format!("10.0.0.100:{port}"), "b1 alone", |list| list == [entry(1)]).await;
        }
        site.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_is_down_marks_no_other_one_by_its_address() {
    scenario("a_backend_that_is_down_marks_no_other_one_by_its_address", || async {
        let site = Site::start("defect5").await;
        let [b1, b11] = site.vms([("b1", 1, "ch1"), ("b11", 11, "ch2")]).await;
        let (ill, _well) = (serve_v4(&b1), serve_v4(&b11));
        let tree = on_both(load_balancer_v4("web", site.network, VIPS[0], &[1, 11]));
        let tree = online(&site.tenant, tree).await;
        drop(ill);
        let degraded = until_tree(&site.tenant, &id_of(&tree), "10.0.0.1 OFFLINE", |tree| {
            fares(tree, "10.0.0.1").0 == v1::OperatingStatus::Offline
        })
        .await;
        assert_eq!(fares(&degraded, "10.0.0.11").0, v1::OperatingStatus::Online);
        site.until_listed("10.0.0.100:80", "10.0.0.11 alone", |list| list == [entry(11)]).await;
        // It stays so while it is probed on.
        let probes = segments(&b11).await;
        until("more probes", async || (segments(&b11).await > probes + 8).then_some(())).await;
        assert_eq!(site.listed("10.0.0.100:80").await, [entry(11)]);
        site.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_is_switched_off_checks_nothing() {
    scenario("a_check_that_is_switched_off_checks_nothing", || async {
        let site = Site::start("defect8").await;
        let [b1, b2] = site.vms([("b1", 1, "ch1"), ("b2", 2, "ch2")]).await;
        let (_well, ill) = (serve_v4(&b1), serve_v4(&b2));
        let tree =
            online(&site.tenant, on_both(load_balancer_v4("web", site.network, VIPS[0], &[1, 2]))).await;
        assert!(!quiet(&b1).await, "nobody probes");
        drop(ill);
        site.until_listed("10.0.0.100:80", "b1 alone", |list| list == [entry(1)]).await;

        let id = tree.pools[0].health_check.as_ref().unwrap().id.clone();
        switch(&site, &id, false).await;
        // A backend that nobody checks takes connections.
        site.until_listed("10.0.0.100:80", "both", |list| list.len() == 2).await;
        let off = until_tree(&site.tenant, &id_of(&tree), "NO_MONITOR", |tree| {
            fares(tree, "10.0.0.2").0 == v1::OperatingStatus::NoMonitor
        })
        .await;
        let state = off.pools[0].health_check.as_ref().unwrap().state.as_ref().unwrap();
        assert!(state.reason.contains("nothing is checked"), "{state:?}");
        until("the end of the probes", async || (quiet(&b1).await && quiet(&b2).await).then_some(())).await;

        switch(&site, &id, true).await;
        site.until_listed("10.0.0.100:80", "b1 alone again", |list| list == [entry(1)]).await;
        site.close();
    })
    .await;
}

/// True if no probe comes for as long as several would take.
async fn quiet(vm: &Vm) -> bool {
    let before = segments(vm).await;
    tokio::time::sleep(Duration::from_secs(u64::from(DELAY_S * (FALL + 1)))).await;
    segments(vm).await == before
}

/// TCP segments that a machine has received. A probe has one at least, also where no connection comes of it.
async fn segments(vm: &Vm) -> u64 {
    let counters = vm.exec("cat", &["/proc/net/snmp"]).await.unwrap();
    let mut tcp = counters.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let place = tcp.next().unwrap().split(' ').position(|name| name == "InSegs").unwrap();
    tcp.next().unwrap().split(' ').nth(place).unwrap().parse().unwrap()
}

async fn switch(site: &Site, id: &str, up: bool) {
    let health_check = v1::HealthCheck { id: id.to_owned(), admin_state_up: Some(up), ..check() };
    let update_mask = Some(prost_types::FieldMask { paths: vec!["admin_state_up".to_owned()] });
    let request =
        v1::UpdateHealthCheckRequest { health_check: Some(health_check), update_mask, ..Default::default() };
    let mut client = HealthCheckServiceClient::new(site.tenant.plugin.channel().unwrap());
    client.update_health_check(request).await.unwrap();
}
