//! The lab's hosts: an etcd cluster and a plugin on it lose members and links, and get them back.

#![cfg(test)] // for clippy: helpers of tests are tests too

use std::time::{Duration, Instant};

use fiberlb_lab::etcd::Cluster;
use fiberlb_lab::replica::{Replica, ReplicaSpec};
use fiberlb_lab::{Host, Lab, can_run_with};
use fiberlb_proto::v1;
use fiberlb_proto::v1::load_balancer_service_client::LoadBalancerServiceClient;
use tonic::transport::Channel;

const ETCD: [&str; 2] = ["etcd", "etcdctl"];
/// Far above what anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Site {
    replica: Replica,
    store: Cluster,
    client: LoadBalancerServiceClient<Channel>,
    network: uuid::Uuid,
    // Last: nothing of the lab outlives it.
    lab: Lab,
}

async fn site(name: &str) -> Site {
    let lab = Lab::start(name).await.unwrap();
    let network = lab.add_switch("sw0", &[("subnet", "10.0.0.0/24")]).await.unwrap();
    let store = Cluster::start(&lab, 3).await.unwrap();
    let [plugin, desk]: [Host; 2] =
        [lab.add_host("plugin0").await.unwrap(), lab.add_host("desk").await.unwrap()];
    let northbound = vec!["unix:/run/central/nb.sock".to_owned()];
    let spec = ReplicaSpec { store: store.store(), northbound, agents: false, more: Vec::new() };
    let replica = Replica::start(plugin, "plugin0", &spec).await.unwrap();
    replica.ready().await.unwrap();
    until("the plugin to see the network", async || {
        replica.metric("fiberlb_northbound_connected").await.ok().filter(|connected| *connected > 0.0)
    })
    .await;
    let client = LoadBalancerServiceClient::new(replica.channel_from(&desk));
    Site { replica, store, client, network, lab }
}

async fn create(site: &Site, name: &str) -> Result<v1::ApplyLoadBalancerResponse, tonic::Status> {
    let network = site.network.to_string();
    let load_balancer = v1::LoadBalancer { name: name.to_owned(), network, ..Default::default() };
    let tree = Some(v1::LoadBalancerTree { load_balancer: Some(load_balancer), ..Default::default() });
    let request = v1::ApplyLoadBalancerRequest { tree, ..Default::default() };
    Ok(site.client.clone().apply_load_balancer(request).await?.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_writes_on_while_the_leader_of_its_store_is_dead_or_frozen() {
    if !can_run_with("a_plugin_writes_on_while_the_leader_of_its_store_is_dead_or_frozen", &ETCD) {
        return;
    }
    let mut site = site("hosts-store").await;
    create(&site, "a").await.unwrap();
    let dead = site.store.leader().await.unwrap();
    site.store.members_mut()[dead].process_mut().kill().unwrap();
    let second =
        until("another leader", async || site.store.leader().await.ok().filter(|it| *it != dead)).await;
    until("a write without the first leader", async || create(&site, "b").await.ok()).await;
    site.store.members_mut()[dead].process_mut().start_again().await.unwrap();
    site.store.members()[second].process().pause().unwrap();
    until("a write without the second leader", async || create(&site, "c").await.ok()).await;
    site.store.members()[second].process().resume().unwrap();
    let keys = site.store.ctl(&["get", "--prefix", "/fiberlb/loadbalancers/", "--keys-only"]).await.unwrap();
    assert!(keys.lines().filter(|line| !line.is_empty()).count() >= 3, "{keys}");
    let usage = site.replica.process().usage().unwrap();
    assert!(usage.memory > 1 << 20 && usage.descriptors > 5, "{usage:?}");
    site.lab.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_cut_off_is_not_heard_until_the_link_is_mended() {
    if !can_run_with("who_is_cut_off_is_not_heard_until_the_link_is_mended", &ETCD) {
        return;
    }
    let site = site("hosts-link").await;
    create(&site, "a").await.unwrap();
    let link = site.replica.host().link().clone();
    link.cut().await.unwrap();
    create(&site, "b").await.unwrap_err();
    link.mend().await.unwrap();
    until("a write over the mended link", async || create(&site, "c").await.ok()).await;
    link.slow().await.unwrap();
    until("a write over the slow link", async || create(&site, "d").await.ok()).await;
    link.fast().await.unwrap();
    until("a write as fast as before", async || create(&site, "e").await.ok()).await;
    site.lab.close().unwrap();
}

/// Asks again and again until there is an answer.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "waited {PATIENCE:?} for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
