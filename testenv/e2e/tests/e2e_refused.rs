//! A tree that the northbound database refuses stands alone: all others of its transaction are carried out.

#![cfg(test)] // for clippy: helpers of tests are tests too

mod common;

use std::sync::atomic::{AtomicU32, Ordering};

use fiberlb_lab::{Central, Lab, Stop, can_run};
use fiberlb_proto::v1;
use uuid::Uuid;

use common::{Tenant, add_network, tree, until};

/// The name that the port of a load balancer will have which is alone on its network: nobody else has it, unless on purpose.
async fn name_of_port(lab: &Lab, load_balancer: Uuid) -> String {
    let owners = lab.nbctl(&["--bare", "--columns=external_ids", "list", "Load_Balancer"]).await.unwrap();
    let installation: Uuid = owners.split('/').nth(1).unwrap().parse().unwrap();
    let port = Uuid::new_v5(&installation, format!("vip/{load_balancer}").as_bytes());
    format!("fiberlb-vip-{port}")
}

async fn store(tenant: &Tenant, wanted: v1::LoadBalancerTree) -> String {
    let request = v1::ApplyLoadBalancerRequest { tree: Some(wanted), ..Default::default() };
    let answer = tenant.client.clone().apply_load_balancer(request).await.unwrap().into_inner();
    answer.tree.unwrap().load_balancer.unwrap().id
}

async fn state(tenant: &Tenant, id: &str) -> v1::ResourceState {
    let request = v1::GetLoadBalancerRequest { id: id.to_owned() };
    tenant.client.clone().get_load_balancer(request).await.unwrap().into_inner().state.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_tree_does_not_hold_up_the_others() {
    if !can_run("a_refused_tree_does_not_hold_up_the_others") {
        return;
    }
    let lab = Lab::start("refused").await.unwrap();
    let network = add_network(&lab, "sw0", &[]).await;
    let elsewhere = add_network(&lab, "sw1", &[]).await;
    let apart = add_network(&lab, "sw2", &[]).await;
    let tenant = Tenant::start(&lab).await;
    tenant.apply(tree("first", network, "10.0.0.100", &[])).await;
    let guilty = Uuid::now_v7();
    let name = name_of_port(&lab, guilty).await;
    lab.nbctl(&["lsp-add", "sw1", &name]).await.unwrap();

    // What is written while the database is away goes there in one transaction.
    lab.stop(Central::Northbound, Stop::Kill).await.unwrap();
    let number = AtomicU32::new(1);
    let next = |network| {
        let number = number.fetch_add(1, Ordering::Relaxed);
        tree(&format!("lb{number}"), network, &format!("10.0.1.{number}"), &["10.0.0.1:80"])
    };
    let mut innocent = Vec::new();
    for _ in 0..5 {
        innocent.push(store(&tenant, next(network)).await);
    }
    let mut wrong = next(apart);
    wrong.load_balancer.as_mut().unwrap().id = guilty.to_string();
    let guilty = store(&tenant, wrong).await;
    for network in [network, elsewhere, network] {
        innocent.push(store(&tenant, next(network)).await);
    }
    lab.restart(Central::Northbound).await.unwrap();

    for id in &innocent {
        tenant.active(id).await;
    }
    let refused = until("the refusal", async || {
        let state = state(&tenant, &guilty).await;
        (state.provisioning_status() == v1::ProvisioningStatus::Error).then_some(state)
    })
    .await;
    assert!(refused.reason.contains("Logical_Switch_Port"), "{refused:?}");
    assert!(refused.next_attempt_at.is_some() && refused.observed_generation == 0, "{refused:?}");
    let refusals = "fiberlb_northbound_transactions_total{outcome=\"refused\"}";
    assert!(tenant.plugin.metric(refusals).await.unwrap() >= 2.0, "they were not in one transaction");

    lab.nbctl(&["lsp-del", &name]).await.unwrap();
    tenant.active(&guilty).await;
    lab.close().unwrap();
}
