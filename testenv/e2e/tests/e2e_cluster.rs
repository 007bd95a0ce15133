//! A plugin on a clustered northbound database: members die, freeze and are cut off while tenants write.

#![cfg(test)] // for clippy: helpers of tests are tests too

mod common;

use std::collections::BTreeSet;

use fiberlb_lab::{Central, Lab, Member, Stop, can_run};
use fiberlb_proto::v1;
use uuid::Uuid;

use common::{Tenant, add_network, tree, until};

/// Fault of the leading member.
#[derive(Clone, Copy)]
enum Fault {
    Kill,
    Freeze,
    Cut,
}

impl Fault {
    async fn strike(self, lab: &Lab, member: Member) {
        match self {
            Fault::Kill => lab.stop(Central::Member(member), Stop::Kill).await.unwrap(),
            Fault::Freeze => lab.pause(Central::Member(member)).await.unwrap(),
            Fault::Cut => lab.cut_member(member).await.unwrap(),
        }
    }

    async fn mend(self, lab: &Lab, member: Member) {
        match self {
            Fault::Kill => lab.restart(Central::Member(member)).await.unwrap(),
            Fault::Freeze => lab.resume(Central::Member(member)).await.unwrap(),
            Fault::Cut => lab.heal_member(member).await.unwrap(),
        }
        lab.wait_for_member(member).await.unwrap();
    }
}

/// Writes load balancers `lb-FROM` and on; each write is acknowledged whatever becomes of the database.
async fn write(tenant: &Tenant, network: Uuid, numbers: std::ops::Range<usize>) -> Vec<String> {
    let mut ids = Vec::new();
    for number in numbers {
        let tree = tree(&format!("lb-{number}"), network, &format!("10.0.0.{number}"), &["10.0.1.1:80"]);
        let request = v1::ApplyLoadBalancerRequest { tree: Some(tree), ..Default::default() };
        let answer = tenant.client.clone().apply_load_balancer(request).await.unwrap().into_inner();
        ids.push(answer.tree.unwrap().load_balancer.unwrap().id);
    }
    ids
}

/// Every listener has its row, once.
async fn assert_rows(lab: &Lab, count: usize) {
    let columns = ["--bare", "--no-headings", "--columns=vips", "find", "Load_Balancer", "protocol!=[]"];
    let text = lab.nbctl(&columns).await.unwrap();
    let rows: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let unique: BTreeSet<&&str> = rows.iter().collect();
    assert_eq!((rows.len(), unique.len()), (count, count), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_befalls_its_leader_nothing_is_lost_or_doubled() {
    if !can_run("whatever_befalls_its_leader_nothing_is_lost_or_doubled") {
        return;
    }
    let lab = Lab::start_clustered("cluster-faults").await.unwrap();
    let network = add_network(&lab, "sw0", &[("subnet", "10.0.0.0/16")]).await;
    let mut tenant = Tenant::start(&lab).await;
    let mut next = 10;
    for fault in [Fault::Kill, Fault::Cut, Fault::Freeze] {
        let leader = lab.nb_leader().await.unwrap();
        let mut ids = write(&tenant, network, next..next + 5).await;
        fault.strike(&lab, leader).await;
        ids.extend(write(&tenant, network, next + 5..next + 10).await);
        next += 10;
        // The others carry on without it.
        for id in ids {
            tenant.active(&id).await;
        }
        fault.mend(&lab, leader).await;
    }
    assert_rows(&lab, next - 10).await;
    tenant.plugin.kill().unwrap();
    tenant.plugin.start_again().await.unwrap();
    let connected =
        async || tenant.plugin.metric("fiberlb_northbound_connected").await.ok().filter(|it| *it > 0.0);
    until("a connection", connected).await;
    tenant.apply(tree("last", network, "10.0.0.250", &["10.0.1.1:80"])).await;
    let written = tenant.plugin.northbound_transactions().await.unwrap();
    assert!(
        written <= 2.0,
        "a restart wrote {written} transactions, of which one load balancer needs no more than 2"
    );
    lab.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_writes_are_kept_and_carried_out_later() {
    if !can_run("without_a_quorum_writes_are_kept_and_carried_out_later") {
        return;
    }
    let lab = Lab::start_clustered("cluster-quorum").await.unwrap();
    let network = add_network(&lab, "sw0", &[("subnet", "10.0.0.0/16")]).await;
    let tenant = Tenant::start(&lab).await;
    let leader = lab.nb_leader().await.unwrap();
    let others = || Member::ALL.into_iter().filter(|member| *member != leader);
    for member in others() {
        lab.stop(Central::Member(member), Stop::Kill).await.unwrap();
    }
    let ids = write(&tenant, network, 10..20).await;
    let lost =
        async || tenant.plugin.metric("fiberlb_northbound_connected").await.ok().filter(|it| *it == 0.0);
    until("the loss of the quorum", lost).await;
    for member in others() {
        lab.restart(Central::Member(member)).await.unwrap();
    }
    for id in ids {
        tenant.active(&id).await;
    }
    assert_rows(&lab, 10).await;
    lab.close().unwrap();
}
