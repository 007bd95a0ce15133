//! Features of the connected OVN: refused alone, by name, where they are lacking; in the row where they are there.

#![cfg(test)] // for clippy: helpers of tests are tests too

mod common;
#[path = "common/rows.rs"]
mod rows;

use fiberlb_lab::{Lab, Release, Version, can_run, can_run_on};
use fiberlb_proto::v1;
use fiberlb_proto::v1::pool_service_client::PoolServiceClient;
use prost_types::FieldMask;
use serde_json::{Value, json};

use common::{Tenant, add_network, tree, until};
use rows::listener_rows;

/// A listener that OVN itself is to serve, with the pool of this name.
fn listener(protocol: v1::ListenerProtocol, port: u32, pool: &str) -> v1::Listener {
    v1::Listener {
        protocol: protocol.into(),
        port,
        default_pool_id: pool.to_owned(),
        datapath: v1::Datapath::Ovn.into(),
        ..Default::default()
    }
}

/// The `Load_Balancer` rows, in the order of their VIPs.
async fn balancers(lab: &Lab) -> Vec<Value> {
    let mut rows: Vec<Value> = listener_rows(lab).await.into_values().collect();
    rows.sort_by_key(|row| row["vips"].to_string());
    rows
}

/// The tree as its status is now, once its listener on port 80 is in force.
async fn seen(tenant: &Tenant, id: &str) -> v1::LoadBalancerTree {
    until("the listener on port 80 in force", async || {
        let request = v1::GetStatusTreeRequest { load_balancer_id: id.to_owned() };
        let tree = tenant.client.clone().get_status_tree(request).await.unwrap().into_inner();
        let plain = tree.listeners.iter().find(|listener| listener.port == 80).unwrap();
        let state = plain.state.as_ref().unwrap();
        (state.provisioning_status() == v1::ProvisioningStatus::Active).then_some(tree)
    })
    .await
}

/// OVN hashes the addresses of IPv6 from here on.
const HASHES_IPV6: Version = Version::new(25, 3, 0);

/// A load balancer with an IPv6 VIP, and a second listener on port 81 with SOURCE_IP, which OVN itself is to serve.
async fn source_ip_on_ipv6(name: &str) -> (Lab, Tenant, v1::LoadBalancerTree) {
    let lab = Lab::start(name).await.unwrap();
    let network = add_network(&lab, "sw0", &[]).await;
    let tenant = Tenant::start(&lab).await;
    let mut wanted = tree("v6", network, "fd00::100", &["[fd00::1]:8080"]);
    wanted.listeners.push(listener(v1::ListenerProtocol::Tcp, 81, "sticky"));
    let mut sticky = wanted.pools[0].clone();
    let pool = sticky.pool.as_mut().unwrap();
    (pool.name, pool.algorithm) = ("sticky".to_owned(), v1::Algorithm::SourceIp.into());
    wanted.pools.push(sticky);
    let request = v1::ApplyLoadBalancerRequest { tree: Some(wanted), ..Default::default() };
    let stored = tenant.client.clone().apply_load_balancer(request).await.unwrap().into_inner().tree.unwrap();

    let tree = seen(&tenant, &stored.load_balancer.unwrap().id).await;
    (lab, tenant, tree)
}

/// State of the listener on port 81.
fn asking(tree: &v1::LoadBalancerTree) -> &v1::ResourceState {
    let asking = tree.listeners.iter().find(|listener| listener.port == 81).unwrap();
    asking.state.as_ref().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn source_ip_on_an_ipv6_vip_is_served_by_an_ovn_that_can() {
    if !can_run_on("source_ip_on_an_ipv6_vip_is_served_by_an_ovn_that_can", HASHES_IPV6) {
        return;
    }
    let (lab, tenant, tree) = source_ip_on_ipv6("source-ip-v6").await;
    let tree = tenant.active(&tree.load_balancer.unwrap().id).await;
    assert_eq!(asking(&tree).provisioning_status(), v1::ProvisioningStatus::Active);
    let fields = |row: &Value| row["selection_fields"].to_string();
    let hashed = balancers(&lab).await.iter().filter(|row| fields(row).contains("ipv6_src")).count();
    assert_eq!(hashed, 1);
    lab.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn source_ip_on_an_ipv6_vip_is_refused_alone_on_an_ovn_that_cannot() {
    let test = "source_ip_on_an_ipv6_vip_is_refused_alone_on_an_ovn_that_cannot";
    if Release::chosen().is_ok_and(|release| release.ovn() >= HASHES_IPV6) {
        eprintln!("SKIPPED {test}: this OVN can");
        return;
    }
    if !can_run(test) {
        return;
    }
    let (lab, tenant, tree) = source_ip_on_ipv6("no-source-ip-v6").await;
    let state = asking(&tree);
    assert_eq!(state.provisioning_status(), v1::ProvisioningStatus::Error, "{state:?}");
    assert_eq!(state.operating_status(), v1::OperatingStatus::Error, "{state:?}");
    assert!(state.reason.contains("SOURCE_IP on an IPv6 VIP needs OVN 25.03"), "{state:?}");
    let load_balancer = tree.load_balancer.clone().unwrap();
    let whole = load_balancer.state.unwrap();
    assert_eq!(whole.operating_status(), v1::OperatingStatus::Degraded, "{whole:?}");
    let rows = balancers(&lab).await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0]["vips"], json!({"[fd00::100]:80": "[fd00::1]:8080"}));

    // What stands in the way goes, and so does the refusal.
    let mut pools = PoolServiceClient::new(tenant.plugin.channel().unwrap());
    let pool = tree.pools.into_iter().filter_map(|it| it.pool).find(|pool| pool.name == "sticky").unwrap();
    let pool = v1::Pool { algorithm: v1::Algorithm::SourceIpPort.into(), ..pool };
    let update_mask = Some(FieldMask { paths: vec!["algorithm".to_owned()] });
    let request = v1::UpdatePoolRequest { pool: Some(pool), update_mask, ..Default::default() };
    pools.update_pool(request).await.unwrap();
    tenant.active(&load_balancer.id).await;
    assert_eq!(balancers(&lab).await.len(), 2);
    lab.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sctp_is_balanced_beside_tcp_on_the_same_port() {
    if !can_run("sctp_is_balanced_beside_tcp_on_the_same_port") {
        return;
    }
    let lab = Lab::start("sctp").await.unwrap();
    let network = add_network(&lab, "sw0", &[]).await;
    let tenant = Tenant::start(&lab).await;
    let mut wanted = tree("both", network, "10.0.0.100", &["10.0.0.1:8080"]);
    wanted.listeners.push(listener(v1::ListenerProtocol::Sctp, 80, "signalling"));
    let mut signalling = wanted.pools[0].clone();
    let pool = signalling.pool.as_mut().unwrap();
    (pool.name, pool.protocol) = ("signalling".to_owned(), v1::PoolProtocol::Sctp.into());
    signalling.backends[0].port = 3868;
    wanted.pools.push(signalling);
    tenant.apply(wanted).await;
    let rows = balancers(&lab).await;
    let seen: Vec<_> = rows.iter().map(|row| (&row["protocol"], &row["vips"])).collect();
    let (sctp, tcp) = (json!("sctp"), json!("tcp"));
    let sctp_vips = json!({"10.0.0.100:80": "10.0.0.1:3868"});
    let tcp_vips = json!({"10.0.0.100:80": "10.0.0.1:8080"});
    assert_eq!(seen, [(&sctp, &sctp_vips), (&tcp, &tcp_vips)]);
    lab.close().unwrap();
}
