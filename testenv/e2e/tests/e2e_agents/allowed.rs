//! Listeners that allow some clients only: by an OVN row and on the node that has the VIP, in both families, from the network
//! and from outside, and at the nodes' own addresses.

use std::net::SocketAddr;
use std::time::Duration;

use fiberlb_lab::workload::{Requests, Server};
use fiberlb_lab::{Release, Version, Vm, VmSpec};
use fiberlb_proto::v1;

use crate::api::{id_of, online, tree_now, until_tree};
use crate::common::until;
use crate::echo::EchoConnection;
use crate::resources::{DIRECT_VIPS, OVN_PORT, VIPS, at, listener, load_balancer};
use crate::scenario::scenario;
use crate::site::{Site, ask, serve, vm};

/// Enough that both nodes are met.
const REQUESTS: u64 = 20;
/// The tenant router, on the network and on the one outside, which is its way out.
const ROUTER: [&str; 2] = ["10.0.0.254", "fd00::254"];
const ROUTER_OUTSIDE: [&str; 2] = ["192.0.2.254", "fd03::254"];
/// OVN 23.03 translates also the answers to IPv4 connections from outside that it does not balance, so that nobody
/// outside reaches a server by its own address.
const ANSWERS_AS_THEY_ARE: Version = Version::new(25, 3, 0);

/// The load balancer with listeners that allow these clients, behind an OVN row or not.
fn allowing(mut tree: v1::LoadBalancerTree, exposure: v1::Exposure, cidrs: &[&str]) -> v1::LoadBalancerTree {
    tree.listeners = vec![v1::Listener {
        exposure: exposure.into(),
        allowed_cidrs: cidrs.iter().map(|cidr| (*cidr).to_owned()).collect(),
        ..listener(OVN_PORT)
    }];
    tree
}

async fn is_served(client: &Vm, target: SocketAddr) {
    let report = ask(client, target, REQUESTS).await;
    assert!(report.all_answered(), "{} to {target}: {report}", client.name());
}

async fn is_reset(client: &Vm, target: SocketAddr) {
    let report = Requests::tcp(client, target).timeout(Duration::from_secs(5)).run(REQUESTS).await.unwrap();
    let is_reset = report.failed.iter().all(|failure| failure.error.to_lowercase().contains("reset"));
    assert!(report.answered == 0 && is_reset, "{} to {target}: {report}", client.name());
}

/// VIPs that the client outside reaches at all.
fn from_outside(targets: &[SocketAddr]) -> impl Iterator<Item = &SocketAddr> {
    let is_old = Release::chosen().unwrap().ovn() < ANSWERS_AS_THEY_ARE;
    targets.iter().filter(move |target| !is_old || **target != at(DIRECT_VIPS[0], OVN_PORT))
}

/// A router between the network and the one outside that translates what the network sends there, and a client out there.
async fn add_way_out(site: &Site) -> Vm {
    let lab = &site.lab;
    lab.add_switch("out", &[]).await.unwrap();
    lab.add_router("r0").await.unwrap();
    for (switch, [v4, v6]) in [("sw0", ROUTER), ("out", ROUTER_OUTSIDE)] {
        let addresses = [format!("{v4}/24"), format!("{v6}/64")];
        lab.attach_router("r0", switch, &addresses.each_ref().map(String::as_str)).await.unwrap();
    }
    lab.nbctl(&["lrp-set-gateway-chassis", "r0-out", "ch1", "20"]).await.unwrap();
    lab.nbctl(&["lr-nat-add", "r0", "snat", ROUTER_OUTSIDE[0], "10.0.0.0/24"]).await.unwrap();
    let spec = VmSpec::new("outside", "ch1", "out").address("192.0.2.11/24").address("fd03::11/64");
    let gateways = ROUTER_OUTSIDE.map(|gateway| gateway.parse().unwrap());
    lab.add_vm(gateways.into_iter().fold(spec, VmSpec::gateway)).await.unwrap()
}

/// Endpoints of both nodes' proxies in the row of a VIP.
async fn proxies(site: &Site, vip: &str) -> Vec<SocketAddr> {
    let target = at(vip, OVN_PORT).to_string();
    site.until_listed(&target, "both nodes", |list| list.len() == 2).await;
    site.listed(&target).await.iter().map(|entry| entry.parse().unwrap()).collect()
}

/// Clients that the proxies of both nodes have turned away because of the list.
async fn turned_away(site: &Site, listener: &str) -> f64 {
    let labels = format!("listener=\"{listener}\",reason=\"allowed_cidrs\"");
    let line = format!("fiberlb_proxy_listener_ends_total{{{labels}}}");
    let mut total = 0.0;
    for node in &site.nodes {
        total += node.metric(&line).await.unwrap();
    }
    total
}

#[tokio::test(flavor = "multi_thread")]
async fn only_allowed_clients_are_served_wherever_they_come_from() {
    scenario("only_allowed_clients_are_served_wherever_they_come_from", || async {
        let site = Site::start("allowed").await;
        let outside = add_way_out(&site).await;
        let vms = [("b1", 1, "ch2"), ("c1", 11, "ch1"), ("c2", 12, "ch2")]
            .map(|(name, number, chassis)| with_gateways(vm(name, number, chassis, "sw0")));
        let [b1, c1, c2]: [Vm; 3] = site.lab.add_vms(vms.into()).await.unwrap().try_into().unwrap();
        let _servers: [Server; 2] = serve(&b1);
        // The router's addresses let nobody in who comes through it.
        let first = ["10.0.0.11/32", "fd00::11/128", "10.0.0.254/32", "fd00::254/128", "192.0.2.254/32"];
        let rows = load_balancer("rows", site.network, VIPS, &[1]);
        let rows = online(&site.tenant, allowing(rows, v1::Exposure::Auto, &first)).await;
        let direct = load_balancer("direct", site.network, DIRECT_VIPS, &[1]);
        let direct = online(&site.tenant, allowing(direct, v1::Exposure::Direct, &first)).await;
        site.lab.wait_for_sync().await.unwrap();

        let listener = &rows.listeners[0];
        assert_eq!(listener.datapath_in_force(), v1::Datapath::Proxy, "{listener:?}");
        assert_eq!(listener.datapath_reason, "a list of allowed CIDRs needs it");
        assert_eq!(listener.allowed_cidrs, first);
        let targets: Vec<SocketAddr> =
            VIPS.into_iter().chain(DIRECT_VIPS).map(|vip| at(vip, OVN_PORT)).collect();
        let mut nodes = proxies(&site, VIPS[0]).await;
        nodes.extend(proxies(&site, VIPS[1]).await);
        for target in targets.iter().chain(&nodes) {
            is_served(&c1, *target).await;
            for client in [&c2, &b1] {
                is_reset(client, *target).await;
            }
        }
        for target in from_outside(&targets) {
            is_reset(&outside, *target).await;
        }
        assert!(turned_away(&site, &listener.id).await > 0.0);

        // Another list: for new connections.
        let mut early = EchoConnection::open(&c1, targets[0]).await;
        for (tree, exposure) in [(&rows, v1::Exposure::Auto), (&direct, v1::Exposure::Direct)] {
            let mut changed = tree_now(&site.tenant, &id_of(tree)).await;
            changed.listeners[0].allowed_cidrs = vec!["192.0.2.0/24".to_owned(), "fd03::/64".to_owned()];
            changed.listeners[0].exposure = exposure.into();
            site.tenant.apply(changed).await;
            until_tree(&site.tenant, &id_of(tree), "the new list in force", |tree| {
                let state = tree.listeners[0].state.as_ref().unwrap();
                state.observed_generation == state.generation
                    && state.provisioning_status() == v1::ProvisioningStatus::Active
            })
            .await;
        }
        for target in from_outside(&targets) {
            is_served(&outside, *target).await;
        }
        for target in targets.iter().chain(&nodes) {
            is_reset(&c1, *target).await;
        }
        assert!(early.echoes().await, "an established connection is cut");
        drop(early);

        // A list of all clients is OVN's to carry.
        let mut open = tree_now(&site.tenant, &id_of(&rows)).await;
        open.listeners[0].allowed_cidrs = vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()];
        site.tenant.apply(open).await;
        until("the backend itself in the row", async || {
            (site.listed("10.0.0.100:80").await == ["10.0.0.1:8080"]).then_some(())
        })
        .await;
        site.lab.wait_for_sync().await.unwrap();
        is_served(&c2, targets[0]).await;
        let open = tree_now(&site.tenant, &id_of(&rows)).await;
        assert_eq!(open.listeners[0].allowed_cidrs, ["0.0.0.0/0", "::/0"]);
        site.close();
    })
    .await;
}

fn with_gateways(spec: VmSpec) -> VmSpec {
    ROUTER.iter().fold(spec, |spec, gateway| spec.gateway(gateway.parse().unwrap()))
}
