//! Changes and failures that a tenant's clients must not notice.

#![cfg(test)] // for clippy: helpers of tests are tests too

mod common;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fiberlb_lab::workload::{Requests, Server};
use fiberlb_lab::{Central, Lab, Stop, VmSpec, can_run};
use fiberlb_proto::v1;

use common::{Tenant, add_network, tree, until};

/// Duration of the northbound database's outage.
const OUTAGE: Duration = Duration::from_secs(30);
const BACKENDS: [&str; 3] = ["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8080"];

#[tokio::test(flavor = "multi_thread")]
async fn fifty_changes_of_the_backends_lose_no_new_connection() {
    if !can_run("fifty_changes_of_the_backends_lose_no_new_connection") {
        return;
    }
    let lab = Lab::start("changes").await.unwrap();
    lab.add_all_chassis(&["ch1", "ch2"]).await.unwrap();
    let network = add_network(&lab, "sw0", &[]).await;
    let vm = |name: &str, number: u8, chassis: &str| {
        VmSpec::new(name, chassis, "sw0").address(&format!("10.0.0.{number}/24"))
    };
    let specs = vec![vm("b1", 1, "ch1"), vm("b2", 2, "ch2"), vm("b3", 3, "ch2"), vm("c1", 11, "ch1")];
    let mut vms = lab.add_vms(specs).await.unwrap();
    let client = vms.pop().unwrap();
    let serve = |vm| Server::tcp(vm, SocketAddr::new(vm.ipv4().unwrap(), 8080), vm.name()).unwrap();
    let servers: Vec<Server> = vms.iter().map(serve).collect();
    let tenant = Tenant::start(&lab).await;
    let whole = tenant.apply(tree("web", network, "10.0.0.100", &BACKENDS)).await;
    lab.wait_for_sync().await.unwrap();

    let vip = SocketAddr::new("10.0.0.100".parse().unwrap(), 80);
    let requests = Requests::tcp(&client, vip).timeout(Duration::from_secs(8)).start().unwrap();
    for change in 0..50 {
        // Another one is out each time, and comes back as a new backend.
        let mut without = whole.clone();
        without.pools[0].backends.remove(change % BACKENDS.len());
        without.pools[0].backends.iter_mut().for_each(|backend| backend.id.clear());
        tenant.apply(without).await;
        lab.wait_for_sync().await.unwrap();
        // Each change is met by connections that were not there before it.
        let before = requests.so_far().total();
        until("new connections", async || (requests.so_far().total() >= before + 2).then_some(())).await;
    }
    let report = requests.stop().await;
    println!("50 changes: {report}");
    assert!(report.all_answered() && report.total() >= 100, "{report}");
    assert_eq!(report.shares.len(), servers.len(), "{report}");
    assert!(tenant.plugin.northbound_transactions().await.unwrap() >= 50.0);
    lab.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_go_on_while_the_northbound_database_is_down() {
    if !can_run("writes_go_on_while_the_northbound_database_is_down") {
        return;
    }
    let lab = Lab::start("nb-down").await.unwrap();
    let network = add_network(&lab, "sw0", &[]).await;
    let tenant = Tenant::start(&lab).await;
    let before = tenant.apply(tree("before", network, "10.0.0.100", &BACKENDS)).await;

    lab.stop(Central::Northbound, Stop::Kill).await.unwrap();
    let mut client = tenant.client.clone();
    let mut written = Vec::new();
    let stopped = Instant::now();
    let mut pace = tokio::time::interval(Duration::from_millis(200));
    while stopped.elapsed() < OUTAGE {
        pace.tick().await;
        let number = written.len();
        let wanted = tree(&format!("lb{number}"), network, &format!("10.0.1.{}", number + 1), &BACKENDS);
        let request = v1::ApplyLoadBalancerRequest { tree: Some(wanted), ..Default::default() };
        let answer = client.apply_load_balancer(request).await.unwrap().into_inner();
        written.push(answer.tree.unwrap().load_balancer.unwrap().id);
    }
    println!("{} writes were answered within {OUTAGE:?}", written.len());
    assert!(written.len() >= 100, "writes were held up: {} in {OUTAGE:?}", written.len());
    let mut changed = before.clone();
    changed.pools[0].backends.truncate(1);
    let request = v1::ApplyLoadBalancerRequest { tree: Some(changed), ..Default::default() };
    client.apply_load_balancer(request).await.unwrap();

    let request = v1::GetLoadBalancerRequest { id: written[0].clone() };
    let state = client.get_load_balancer(request).await.unwrap().into_inner().state.unwrap();
    assert_eq!(state.provisioning_status(), v1::ProvisioningStatus::PendingCreate, "{state:?}");
    assert!(state.reason.contains("northbound"), "it does not say what it waits for: {state:?}");

    lab.restart(Central::Northbound).await.unwrap();
    for id in &written {
        tenant.active(id).await;
    }
    tenant.active(&before.load_balancer.unwrap().id).await;
    let names =
        lab.nbctl(&["--bare", "--columns=name", "find", "Load_Balancer", "protocol=tcp"]).await.unwrap();
    assert_eq!(names.split_whitespace().count(), written.len() + 1, "{names}");
    let vips = lab
        .nbctl(&["--bare", "--columns=vips", "find", "Load_Balancer", "name=before", "protocol=tcp"])
        .await
        .unwrap();
    assert_eq!(vips.trim(), "10.0.0.100:80=10.0.0.1:8080");
    lab.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_writes_nothing_when_nothing_changed() {
    if !can_run("a_restart_writes_nothing_when_nothing_changed") {
        return;
    }
    let lab = Lab::start("restart").await.unwrap();
    let network = add_network(&lab, "sw0", &[("subnet", "10.0.0.0/24")]).await;
    let routed = add_network(&lab, "sw1", &[]).await;
    lab.add_router("lr0").await.unwrap();
    lab.attach_router("lr0", "sw1", &["10.1.0.254/24"]).await.unwrap();
    let mut tenant = Tenant::start(&lab).await;
    let mut ids = Vec::new();
    for (network, vip) in [(network, "10.0.0.100"), (network, ""), (routed, "10.1.0.100")] {
        let made = tenant.apply(tree(&format!("lb{}", ids.len()), network, vip, &BACKENDS)).await;
        ids.push(made.load_balancer.unwrap().id);
    }
    for ending in ["terminate", "kill"] {
        match ending {
            "terminate" => tenant.plugin.terminate().unwrap(),
            _ => tenant.plugin.kill().unwrap(),
        }
        tenant.plugin.start_again().await.unwrap();
        for id in &ids {
            tenant.active(id).await;
        }
        // Statuses are those of before until everything has been compared.
        until("a connection", async || {
            tenant.plugin.metric("fiberlb_northbound_connected").await.ok().filter(|it| *it > 0.0)
        })
        .await;
        until("an empty queue", async || {
            (tenant.plugin.metric("fiberlb_reconcile_queue").await.unwrap() < 0.5).then_some(())
        })
        .await;
        assert!(tenant.plugin.northbound_transactions().await.unwrap() < 0.5, "after {ending} it wrote");
    }
    lab.close().unwrap();
}
