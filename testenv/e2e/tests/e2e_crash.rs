//! kill -9 of the plugin at any moment: what it acknowledged is there, once, and whole.

#![cfg(test)] // for clippy: helpers of tests are tests too

mod common;
#[path = "common/rows.rs"]
mod rows;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use fiberlb_lab::plugin::Plugin;
use fiberlb_lab::{Lab, can_run};
use fiberlb_proto::v1;
use fiberlb_proto::v1::load_balancer_service_client::LoadBalancerServiceClient;
use futures_util::future::join_all;
use tonic::transport::Channel;
use uuid::Uuid;

use common::{Tenant, add_network, tree, until};
use rows::{listener_rows, rows};

const CREATES: usize = 500;
const WRITERS: usize = 8;
const KILLS: usize = 6;
/// Environment variable with the seed of a run that is to be had again.
const SEED_ENV: &str = "FIBERLB_SEED";

fn wanted(number: usize, network: Uuid) -> v1::LoadBalancerTree {
    let vip = format!("10.0.{}.{}", number / 250, number % 250 + 1);
    tree(&format!("lb{number}"), network, &vip, &["10.1.0.1:8080", "10.1.0.2:8080"])
}

/// Writes of all writers so far.
#[derive(Default)]
struct Progress {
    next: AtomicUsize,
    acknowledged: AtomicUsize,
}

/// Creates one load balancer after another, each until it is acknowledged; gives the acknowledged ids by name.
async fn write(
    client: LoadBalancerServiceClient<Channel>,
    network: Uuid,
    progress: &Progress,
) -> BTreeMap<String, String> {
    let mut acknowledged = BTreeMap::new();
    loop {
        let number = progress.next.fetch_add(1, Ordering::Relaxed);
        if number >= CREATES {
            return acknowledged;
        }
        let made = until("an acknowledgement", async || {
            let tree = Some(wanted(number, network));
            let request = v1::ApplyLoadBalancerRequest { tree, ..Default::default() };
            client.clone().apply_load_balancer(request).await.ok()?.into_inner().tree?.load_balancer
        })
        .await;
        acknowledged.insert(made.name, made.id);
        progress.acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

/// Numbers of acknowledged creates at which to kill, in order: another choice in each run, the same for the same seed.
fn moments(seed: u64) -> BTreeSet<usize> {
    let random = |number: usize| {
        let bits = Uuid::new_v5(&Uuid::from_u128(seed.into()), &number.to_be_bytes()).as_u128();
        usize::try_from(bits % (CREATES as u128 - 20)).unwrap()
    };
    (0..KILLS).map(random).collect()
}

/// Seed of the moments: given by [`SEED_ENV`], else random. Printed, so that a failure can be reproduced.
fn seed() -> u64 {
    let given = std::env::var(SEED_ENV).ok().map(|text| text.parse().expect("FIBERLB_SEED is a number"));
    let seed = given.unwrap_or_else(|| Uuid::new_v4().as_u64_pair().0);
    println!("{SEED_ENV}={seed}");
    seed
}

/// Kills the plugin at these moments, and starts it again.
async fn kill(plugin: &mut Plugin, progress: &Progress, moments: BTreeSet<usize>) {
    for moment in moments {
        let acknowledged = || progress.acknowledged.load(Ordering::Relaxed);
        until("the next moment to kill", async || (acknowledged() >= moment).then_some(())).await;
        println!("kill -9 after {} acknowledged creates", acknowledged());
        plugin.kill().unwrap();
        plugin.start_again().await.unwrap();
    }
}

/// All load balancers as the API lists them, once all of them are in force.
async fn all_in_force(tenant: &Tenant) -> Vec<v1::LoadBalancer> {
    until("all load balancers in force", async || {
        let request = v1::ListLoadBalancersRequest { page_size: 1000, ..Default::default() };
        let listed =
            tenant.client.clone().list_load_balancers(request).await.unwrap().into_inner().load_balancers;
        let active = |it: &v1::LoadBalancer| {
            it.state.as_ref().unwrap().provisioning_status() == v1::ProvisioningStatus::Active
        };
        listed.iter().all(active).then_some(listed)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kills_at_any_moment() {
    if !can_run("what_was_acknowledged_survives_kills_at_any_moment") {
        return;
    }
    let lab = Lab::start("crash").await.unwrap();
    let network = add_network(&lab, "sw0", &[]).await;
    let mut tenant = Tenant::start(&lab).await;
    let progress = Progress::default();
    let writers = (0..WRITERS).map(|_| write(tenant.client.clone(), network, &progress));
    let (acknowledged, ()) =
        tokio::join!(join_all(writers), kill(&mut tenant.plugin, &progress, moments(seed())));
    let acknowledged: BTreeMap<String, String> = acknowledged.into_iter().flatten().collect();
    assert_eq!(acknowledged.len(), CREATES);

    is_whole_in_the_api(&tenant, &acknowledged).await;
    is_whole_in_ovn(&lab, &acknowledged).await;

    tenant.plugin.kill().unwrap();
    tenant.plugin.start_again().await.unwrap();
    assert_eq!(all_in_force(&tenant).await.len(), CREATES);
    // Statuses are those of before until everything has been compared.
    until("a connection", async || {
        tenant.plugin.metric("fiberlb_northbound_connected").await.ok().filter(|it| *it > 0.0)
    })
    .await;
    until("an empty queue", async || {
        (tenant.plugin.metric("fiberlb_reconcile_queue").await.unwrap() < 0.5).then_some(())
    })
    .await;
    assert!(tenant.plugin.northbound_transactions().await.unwrap() < 0.5, "a restart wrote");
    let one_more = wanted(CREATES, network);
    tenant.apply(one_more).await;
    lab.close().unwrap();
}

async fn is_whole_in_the_api(tenant: &Tenant, acknowledged: &BTreeMap<String, String>) {
    let listed = all_in_force(tenant).await;
    assert_eq!(listed.len(), CREATES, "some are there twice, or not at all");
    let listed: BTreeMap<String, String> = listed.into_iter().map(|it| (it.name, it.id)).collect();
    assert_eq!(&listed, acknowledged);
    for id in acknowledged.values() {
        let request = v1::GetStatusTreeRequest { load_balancer_id: id.clone() };
        let tree = tenant.client.clone().get_status_tree(request).await.unwrap().into_inner();
        let backends: Vec<usize> = tree.pools.iter().map(|pool| pool.backends.len()).collect();
        assert_eq!((tree.listeners.len(), backends), (1, vec![2]), "half a tree: {id}");
    }
}

async fn is_whole_in_ovn(lab: &Lab, acknowledged: &BTreeMap<String, String>) {
    let balancers = listener_rows(lab).await;
    let names: BTreeSet<&str> = balancers.values().map(|row| row["name"].as_str().unwrap()).collect();
    let wanted: BTreeSet<&str> = acknowledged.keys().map(String::as_str).collect();
    assert_eq!((balancers.len(), &names), (CREATES, &wanted));
    for row in balancers.values() {
        let backends = row["vips"].as_object().unwrap().values().next().unwrap();
        assert_eq!(backends, "10.1.0.1:8080,10.1.0.2:8080", "{row}");
    }
    let groups = rows(lab, "Load_Balancer_Group").await;
    let members = groups.values().map(|group| group["load_balancer"].as_array().unwrap().len());
    // Listeners, and where they are rows, answers.
    let kinds = rows(lab, "Load_Balancer").await.len() / CREATES;
    assert_eq!(members.collect::<Vec<_>>(), vec![CREATES; kinds]);
    let ports = rows(lab, "Logical_Switch_Port").await;
    let reserves = |row: &&serde_json::Value| row["name"].as_str().unwrap().starts_with("fiberlb-vip-");
    // A set of one element is shown as that element.
    let addresses = |row: &serde_json::Value| row["addresses"].as_array().map_or(1, Vec::len);
    let reserved = ports.values().filter(reserves).map(addresses);
    assert_eq!(reserved.sum::<usize>(), CREATES);
}
