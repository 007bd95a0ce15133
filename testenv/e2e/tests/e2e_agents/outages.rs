//! A node without its plugin, and a plugin without the northbound database, for half a minute each.

use std::time::{Duration, Instant};

use fiberlb_lab::{Central, Stop, Vm};
use fiberlb_proto::v1;

use crate::api::{backend, fares, id_of, online, until_tree};
use crate::common::until;
use crate::faults::{Fault, Met, Patient, Traffic};
use crate::resources::{VIPS, entry, limit, load_balancer_v4, on_both};
use crate::scenario::scenario;
use crate::site::Site;

/// Duration of an outage.
const AWAY: Duration = Duration::from_secs(30);
const VIP: &str = "10.0.0.100:80";

async fn shop(name: &str) -> (Site, [Patient; 2], Vm, v1::LoadBalancerTree) {
    let site = Site::start(name).await;
    let [b1, b2, c1] = site.vms([("b1", 1, "ch1"), ("b2", 2, "ch2"), ("c1", 11, "ch1")]).await;
    let patients = [Patient::healthy(&b1), Patient::healthy(&b2)];
    let tree = online(&site.tenant, on_both(load_balancer_v4("web", site.network, VIPS[0], &[1, 2]))).await;
    site.lab.wait_for_sync().await.unwrap();
    (site, patients, c1, tree)
}

/// A backend's machine drops all packets now: proxies leave it out in time, by themselves.
async fn proxies_leave_it_out(patient: &mut Patient, client: &Vm) -> Instant {
    let traffic = Traffic::start(client);
    traffic.reaches(&["b1", "b2"]).await;
    let failed = Instant::now();
    patient.fail(Fault::Silent).await;
    traffic.go_on(limit() + Duration::from_secs(4)).await;
    let ended = Instant::now();
    let [_, proxied] = traffic.stop().await;
    println!("{}", proxied.summary(failed));
    proxied.is_well(failed + limit(), ended, &["b1"]);
    failed
}

/// And they take it back in by themselves.
async fn proxies_take_it_back(patient: &mut Patient, client: &Vm) -> Met {
    patient.recover().await;
    let traffic = Traffic::start(client);
    traffic.reaches(&["b1", "b2"]).await;
    let [_, proxied] = traffic.stop().await;
    proxied
}

async fn rest_of(away: Instant) {
    tokio::time::sleep(AWAY.saturating_sub(away.elapsed())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_without_their_plugin_act_at_once_and_are_in_step_afterwards() {
    scenario("nodes_without_their_plugin_act_at_once_and_are_in_step_afterwards", || async {
        let (mut site, mut patients, client, tree) = shop("plugin-away").await;
        site.tenant.plugin.kill().unwrap();
        let away = Instant::now();
        proxies_leave_it_out(&mut patients[1], &client).await;
        let back = proxies_take_it_back(&mut patients[1], &client).await;
        assert!(back.failed().is_empty(), "{}", back.summary(away));
        proxies_leave_it_out(&mut patients[1], &client).await;
        rest_of(away).await;
        assert_eq!(site.listed(VIP).await.len(), 2, "nobody could write");

        site.tenant.plugin.start_again().await.unwrap();
        site.nodes_alive().await;
        site.until_listed(VIP, "b1 alone", |list| list == [entry(1)]).await;
        until_tree(&site.tenant, &id_of(&tree), "b2 OFFLINE", |tree| {
            fares(tree, "10.0.0.2").0 == v1::OperatingStatus::Offline
        })
        .await;
        patients[1].recover().await;
        site.until_listed(VIP, "both", |list| list.len() == 2).await;
        site.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_without_the_northbound_database_is_in_step_afterwards() {
    scenario("a_plugin_without_the_northbound_database_is_in_step_afterwards", || async {
        let (site, mut patients, client, tree) = shop("nb-away").await;
        site.lab.stop(Central::Northbound, Stop::Kill).await.unwrap();
        let away = Instant::now();
        let failed = proxies_leave_it_out(&mut patients[1], &client).await;
        let id = &backend(&tree, "10.0.0.2").id;
        until("two verdicts that it is down", async || {
            let health = site.operator().health(id).await;
            (health.verdicts.len() == 2 && health.verdicts.iter().all(|verdict| !verdict.up)).then_some(())
        })
        .await;
        println!("known after {:.1?}", failed.elapsed());
        rest_of(away).await;

        site.lab.restart(Central::Northbound).await.unwrap();
        site.until_listed(VIP, "b1 alone", |list| list == [entry(1)]).await;
        patients[1].recover().await;
        site.until_listed(VIP, "both", |list| list.len() == 2).await;
        site.close();
    })
    .await;
}
