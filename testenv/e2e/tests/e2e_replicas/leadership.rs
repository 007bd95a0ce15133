//! The leader dies, is frozen, comes back, stops in order.

use std::time::{Duration, Instant};

use fiberlb_lab::can_run;
use fiberlb_proto::v1;
use fiberlb_proto::v1::watch_service_client::WatchServiceClient;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::until;
use crate::rows::{listener_rows, rows};
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
    assert_eq!(listener_rows(&site.lab).await.len(), 3);
    let fences = site.lab.nbctl(&["get", "NB_Global", ".", "external_ids"]).await.unwrap();
    assert_eq!(fences.matches("fiberlb:fence:").count(), 1, "{fences}");
    assert!(site.committed(again).await >= 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_stops_in_order_is_followed_at_once() {
    if !can_run("a_leader_that_stops_in_order_is_followed_at_once") {
        return;
    }
    let site = Site::start("replicas-stop").await;
    let leader = site.await_leader().await;
    let id = site.apply(leader, site.tree("web", "10.0.4.1")).await.unwrap();
    site.active(leader, &id).await;
    // A stream that would go on for ever keeps a plugin from ending, and not its place from others.
    let mut client = WatchServiceClient::new(site.channel_without_limit(leader));
    let _watch = client.watch(v1::WatchRequest::default()).await.unwrap().into_inner();
    let pid = i32::try_from(site.plugins[leader].process().pid()).unwrap();
    kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
    let stopped = Instant::now();
    let survivor = (leader + 1) % 3;
    let late = site.apply(survivor, site.tree("late", "10.0.4.2")).await.unwrap();
    site.active(survivor, &late).await;
    // Sooner than the lease expires: it was revoked.
    assert!(stopped.elapsed() < Duration::from_millis(2500), "{:?}", stopped.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_name_somebody_removed_leads_no_more_beside_another() {
    if !can_run("a_leader_whose_name_somebody_removed_leads_no_more_beside_another") {
        return;
    }
    let site = Site::start("replicas-removed").await;
    let leader = site.await_leader().await;
    let id = site.apply(leader, site.tree("web", "10.0.4.5")).await.unwrap();
    site.active(leader, &id).await;
    let (_, before) = fence(&site).await.unwrap();
    site.etcd.ctl(&["del", "/fiberlb/leader"]).await.unwrap();
    // Until another one has the fence, the old one may still carry it out: nobody else writes.
    let late = site.apply((leader + 1) % 3, site.tree("late", "10.0.4.6")).await.unwrap();
    site.active(leader, &late).await;
    until("a leader that was chosen anew", async || {
        fence(&site).await.filter(|(_, after)| *after > before).map(drop)
    })
    .await;
    site.await_leader().await;
    let last = site.apply((leader + 2) % 3, site.tree("last", "10.0.4.7")).await.unwrap();
    site.active(leader, &last).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_that_somebody_moved_is_raised_above_that_by_the_one_that_leads() {
    if !can_run("a_fence_that_somebody_moved_is_raised_above_that_by_the_one_that_leads") {
        return;
    }
    let site = Site::start("replicas-fence").await;
    let leader = site.await_leader().await;
    let first = site.apply(leader, site.tree("first", "10.0.7.1")).await.unwrap();
    site.active(leader, &first).await;
    let (key, term) = fence(&site).await.unwrap();
    assert!(term > 0);
    // As after the store was restored from a backup, or moved: its revisions are lower than they were.
    let moved = format!("external_ids:\"{key}\"=\"999999999999\"");
    site.lab.nbctl(&["set", "NB_Global", ".", &moved]).await.unwrap();
    let second = site.apply(leader, site.tree("second", "10.0.7.2")).await.unwrap();
    site.active(leader, &second).await;
    assert_eq!(fence(&site).await.unwrap().1, 1_000_000_000_000);
    site.lab.nbctl(&["remove", "NB_Global", ".", "external_ids", &format!("\"{key}\"")]).await.unwrap();
    let third = site.apply(leader, site.tree("third", "10.0.7.3")).await.unwrap();
    site.active(leader, &third).await;
    assert!(fence(&site).await.is_some());
    assert_eq!(site.await_leader().await, leader, "it leads on");
}

/// The fence's key, and where it stands.
async fn fence(site: &Site) -> Option<(String, u64)> {
    let global = rows(&site.lab, "NB_Global").await.into_values().next().unwrap();
    let ids = global["external_ids"].as_object().unwrap().clone();
    let (key, term) = ids.into_iter().find(|(key, _)| key.starts_with("fiberlb:fence:"))?;
    Some((key, term.as_str().unwrap().parse().unwrap()))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_is_refused_while_a_plugin_works_and_an_export_moves_all_but_the_lead() {
    if !can_run("an_import_is_refused_while_a_plugin_works_and_an_export_moves_all_but_the_lead") {
        return;
    }
    let mut site = Site::start("replicas-move").await;
    let leader = site.await_leader().await;
    let id = site.apply(leader, site.tree("web", "10.0.8.1")).await.unwrap();
    site.active(leader, &id).await;
    let (file, store) = ("/run/export.jsonl", site.etcd.store());
    let (exported, text) = site.plugin_command(&["store", "export", "--store", &store, file]).await;
    assert!(exported, "{text}");
    let (imported, text) =
        site.plugin_command(&["store", "import", "--replace", "--store", &store, file]).await;
    assert!(!imported && text.contains("works on the store") && text.contains("stop all plugins"), "{text}");
    for plugin in &mut site.plugins {
        plugin.process_mut().terminate().unwrap();
    }
    let (imported, text) =
        site.plugin_command(&["store", "import", "--replace", "--store", &store, file]).await;
    assert!(imported, "{text}");
    for plugin in &mut site.plugins {
        plugin.process_mut().start_again().await.unwrap();
    }
    for plugin in 0..3 {
        site.active(plugin, &id).await;
    }
    // The embedded store takes it too, and there nobody leads but the one plugin.
    let embedded = "/run/moved.redb";
    let (imported, text) = site.plugin_command(&["store", "import", "--store", embedded, file]).await;
    assert!(imported, "{text}");
    let (exported, text) =
        site.plugin_command(&["store", "export", "--store", embedded, "/run/again.jsonl"]).await;
    assert!(exported, "{text}");
    let read = |path: &str| std::fs::read_to_string(site.lab.world().path(path)).unwrap();
    assert!(read(file).contains("/fiberlb/heads/") && !read(file).contains("/fiberlb/leader"));
    assert_eq!(read(file).lines().count(), read("/run/again.jsonl").lines().count());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_a_plugin_from_starting_is_said_with_what_to_do() {
    if !can_run("what_keeps_a_plugin_from_starting_is_said_with_what_to_do") {
        return;
    }
    let mut site = Site::start("replicas-refused").await;
    let id = site.apply(0, site.tree("web", "10.0.9.1")).await.unwrap();
    site.active(0, &id).await;
    let store = site.etcd.store();
    let everywhere = ["--store", &store, "--agents-listen", "tcp:0.0.0.0:0"];
    let (started, text) = site.plugin_command(&everywhere).await;
    assert!(!started && text.contains("agents.tls_certificate"), "{text}");
    let nobody = ["--store", "chainfire://127.0.0.1:1", "--agents-listen", "off"];
    let (started, text) = site.plugin_command(&nobody).await;
    assert!(!started && text.contains("no endpoint of the cluster can be reached"), "{text}");
    // A value that somebody broke by hand: those that run go on, and none starts.
    let key = format!("/fiberlb/loadbalancers/default/default/{id}");
    site.etcd.ctl(&["put", &key, "broken"]).await.unwrap();
    let alone = ["--store", &store, "--agents-listen", "off", "--metrics-listen", "127.0.0.1:0"];
    let (started, text) = site.plugin_command(&alone).await;
    assert!(!started && text.contains(&key) && text.contains("cannot be used"), "{text}");
    site.active(1, &id).await;
    let (in_step, text) = site.verify(0).await;
    assert!(in_step, "{text}");
    // A majority that is away.
    for member in site.etcd.members_mut().iter_mut().take(2) {
        member.process_mut().kill().unwrap();
    }
    let (started, text) = site.plugin_command(&alone).await;
    assert!(!started && text.contains("no leader"), "{text}");
    let refused = site.apply(0, site.tree("late", "10.0.9.2")).await.unwrap_err();
    assert_ne!(refused.code(), tonic::Code::Ok);
    assert!(site.status_tree(0, &id).await.is_ok(), "reads go on");
}
