//! Who leads: dies, is frozen, comes back, goes in order.

use std::time::{Duration, Instant};

use fiberlb_testenv::can_run;

use crate::common::until;
use crate::rows::rows;
use crate::site::Site;

/// A new leader has carried out what was written within this time after the old one's death. The lease is 3 s.
const TAKE_OVER: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn another_plugin_takes_over_and_writes_only_what_is_new() {
    if !can_run("another_plugin_takes_over_and_writes_only_what_is_new") {
        return;
    }
    let mut site = Site::start("replicas-take-over").await;
    let leader = site.await_leader().await;
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(site.apply(n % 3, site.tree(&format!("web{n}"), "")).await.unwrap());
    }
    for id in &ids {
        site.active(leader, id).await;
    }
    site.plugins[leader].process_mut().kill().unwrap();
    let died = Instant::now();
    let survivor = (leader + 1) % 3;
    let late = site.apply(survivor, site.tree("late", "")).await.unwrap();
    site.active(survivor, &late).await;
    let took = died.elapsed();
    println!("taken over after {took:?}");
    assert!(took < TAKE_OVER, "{took:?}");
    let new = site.await_leader().await;
    assert_ne!(new, leader);
    for id in &ids {
        site.active(new, id).await;
    }
    // The one that is new; the fence is not counted, for it is no batch.
    assert_eq!(site.committed(new).await, 1.0);
    // The dead one returns and serves.
    site.plugins[leader].process_mut().start_again().await.unwrap();
    site.plugins[leader].ready().await.unwrap();
    site.active(leader, &late).await;
    assert_eq!(site.await_leader().await, new);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_frozen_writes_nothing_when_it_wakes() {
    if !can_run("a_leader_that_was_frozen_writes_nothing_when_it_wakes") {
        return;
    }
    let site = Site::start("replicas-frozen").await;
    let leader = site.await_leader().await;
    let kept = site.apply(leader, site.tree("kept", "10.0.3.1")).await.unwrap();
    site.active(leader, &kept).await;
    let others: Vec<usize> = (0..3).filter(|plugin| *plugin != leader).collect();
    site.plugins[leader].process().pause().unwrap();
    let id = site.apply(others[0], site.tree("while frozen", "10.0.3.2")).await.unwrap();
    site.active(others[1], &id).await;
    // A row that only the frozen one would put right as it knows it: with what the new one wants it has nothing in common.
    site.plugins[leader].process().resume().unwrap();
    let again = until("the frozen one follows", async || {
        let leads = site.leader().await?;
        let says = site.plugins[leader].metric("fiberlb_leads").await.ok()?;
        (leads != leader && says == 0.0).then_some(leads)
    })
    .await;
    // It serves, and what it says is what the new one published.
    site.active(leader, &id).await;
    let last = site.apply(leader, site.tree("after", "10.0.3.3")).await.unwrap();
    site.active(leader, &last).await;
    assert_eq!(rows(&site.lab, "Load_Balancer").await.len(), 3);
    let fences = site.lab.nbctl(&["get", "NB_Global", ".", "external_ids"]).await.unwrap();
    assert_eq!(fences.matches("fiberlb:fence:").count(), 1, "{fences}");
    assert!(site.committed(again).await >= 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stops_in_order_is_followed_at_once() {
    if !can_run("a_leader_that_stops_in_order_is_followed_at_once") {
        return;
    }
    let mut site = Site::start("replicas-stop").await;
    let leader = site.await_leader().await;
    let id = site.apply(leader, site.tree("web", "10.0.4.1")).await.unwrap();
    site.active(leader, &id).await;
    site.plugins[leader].process_mut().terminate().unwrap();
    let stopped = Instant::now();
    let survivor = (leader + 1) % 3;
    let late = site.apply(survivor, site.tree("late", "10.0.4.2")).await.unwrap();
    site.active(survivor, &late).await;
    // Without the lease's time: it was given back.
    assert!(stopped.elapsed() < Duration::from_millis(2500), "{:?}", stopped.elapsed());
}
