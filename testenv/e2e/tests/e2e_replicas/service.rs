//! Any plugin serves: reads, writes, statuses, uniqueness, watches.

use std::collections::BTreeSet;
use std::time::Duration;

use fiberlb_lab::can_run;
use fiberlb_proto::v1;
use fiberlb_proto::v1::backend_service_client::BackendServiceClient;
use fiberlb_proto::v1::watch_service_client::WatchServiceClient;
use futures_util::future::join_all;
use tonic::Code;

use crate::common::until;
use crate::rows::listener_rows;
use crate::site::Site;

#[tokio::test(flavor = "multi_thread")]
async fn any_plugin_takes_writes_and_tells_what_the_leader_carried_out() {
    if !can_run("any_plugin_takes_writes_and_tells_what_the_leader_carried_out") {
        return;
    }
    let site = Site::start("replicas-serve").await;
    let leader = site.await_leader().await;
    for plugin in 0..3 {
        let name = format!("web{plugin}");
        let id = site.apply(plugin, site.tree(&name, &format!("10.0.1.{}", plugin + 1))).await.unwrap();
        // A client reads its own write where it wrote.
        assert!(site.status_tree(plugin, &id).await.is_ok());
        for other in 0..3 {
            site.active(other, &id).await;
        }
    }
    assert_eq!(listener_rows(&site.lab).await.len(), 3);
    for follower in (0..3).filter(|plugin| *plugin != leader) {
        assert_eq!(site.committed(follower).await, 0.0, "only the one that leads writes");
    }
    // An operator can look, with plain etcdctl.
    let keys = site.etcd.ctl(&["get", "/fiberlb/status/", "--prefix", "--print-value-only"]).await.unwrap();
    let statuses: Vec<serde_json::Value> =
        keys.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    assert_eq!(statuses.len(), 3, "{keys}");
    assert!(statuses.iter().all(|status| status["version"] == 1));
    let leads = site.etcd.ctl(&["get", "/fiberlb/leader", "--print-value-only"]).await.unwrap();
    let leads: serde_json::Value = serde_json::from_str(leads.trim()).unwrap();
    assert!(leads["plugin"].is_string() && leads["version"] == 1, "{leads}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_be_unique_is_so_however_many_plugins_are_asked_at_once() {
    if !can_run("what_must_be_unique_is_so_however_many_plugins_are_asked_at_once") {
        return;
    }
    let site = Site::start("replicas-unique").await;
    // One VIP, requested through all of them at the same moment, again and again.
    for round in 0..5 {
        let vip = format!("10.0.2.{}", round + 1);
        let asked = (0..9).map(|n| site.apply(n % 3, site.tree(&format!("r{round}-{n}"), &vip)));
        let answers = join_all(asked).await;
        let won = answers.iter().filter(|answer| answer.is_ok()).count();
        let codes: Vec<Code> =
            answers.iter().filter_map(|answer| Some(answer.as_ref().err()?.code())).collect();
        assert_eq!(won, 1, "{answers:?}");
        assert!(codes.iter().all(|code| *code == Code::AlreadyExists), "{answers:?}");
    }
    // To choose an address each must have reached the northbound database.
    for n in 0..3 {
        let tree = site.tree(&format!("first{n}"), "");
        until("a plugin that chooses addresses", async || site.apply(n, tree.clone()).await.ok()).await;
    }
    // An address that FiberLB chooses: nobody is refused, and no two get the same.
    let chosen = (0..30).map(|n| site.apply(n % 3, site.tree(&format!("chosen{n}"), "")));
    let ids: Vec<String> = join_all(chosen).await.into_iter().map(|answer| answer.unwrap()).collect();
    let mut vips = BTreeSet::new();
    for id in &ids {
        // The plugin that is asked may be a moment behind the one that wrote.
        let tree = until("the load balancer", async || site.status_tree(0, id).await.ok()).await;
        vips.insert(tree.load_balancer.unwrap().vip_address);
    }
    assert_eq!(vips.len(), ids.len());
    // One backend of one pool, added through all of them at once.
    let pool = site.status_tree(0, &ids[0]).await.unwrap().pools.remove(0).pool.unwrap().id;
    for plugin in 0..3 {
        until("the pool", async || site.status_tree(plugin, &ids[0]).await.ok()).await;
    }
    let backend = v1::Backend { pool_id: pool, address: "10.0.9.9".into(), port: 80, ..Default::default() };
    let added = (0..6).map(|n| {
        let mut client = BackendServiceClient::new(site.channel(n % 3));
        let backend = Some(backend.clone());
        async move { client.create_backend(v1::CreateBackendRequest { backend, ..Default::default() }).await }
    });
    let added = join_all(added).await;
    assert_eq!(added.iter().filter(|answer| answer.is_ok()).count(), 1, "{added:?}");
    let refused = added.iter().filter_map(|answer| answer.as_ref().err());
    assert!(refused.into_iter().all(|status| status.code() == Code::AlreadyExists), "{added:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_shows_everything_whichever_plugin_it_is_on() {
    if !can_run("a_watch_shows_everything_whichever_plugin_it_is_on") {
        return;
    }
    const WRITES: usize = 60;
    let site = Site::start("replicas-watch").await;
    let site = &site;
    let watches = (0..3).map(|plugin| async move {
        let mut client = WatchServiceClient::new(site.channel_without_limit(plugin));
        let mut events = client.watch(v1::WatchRequest::default()).await.unwrap().into_inner();
        let mut active = BTreeSet::new();
        while active.len() < WRITES {
            let next = tokio::time::timeout(Duration::from_secs(60), events.message());
            let event = next.await.expect("an event is missing").unwrap().unwrap();
            if let Some(v1::watch_event::Resource::LoadBalancer(it)) = event.resource
                && it.state.unwrap().provisioning_status == crate::site::ACTIVE
            {
                active.insert(it.name);
            }
        }
        active
    });
    let writes = async {
        for n in 0..WRITES {
            site.apply(n % 3, site.tree(&format!("w{n}"), "")).await.unwrap();
        }
    };
    let (seen, ()) = tokio::join!(join_all(watches), writes);
    assert!(seen.iter().all(|names| names.len() == WRITES));
}
