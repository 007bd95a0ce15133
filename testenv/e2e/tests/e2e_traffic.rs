//! Real connections through real OVN, as a tenant's clients meet it.

#![cfg(test)] // for clippy: helpers of tests are tests too

mod common;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use fiberlb_lab::workload::{Report, Requests, Server};
use fiberlb_lab::{Lab, Vm, VmSpec, can_run};
use fiberlb_proto::v1;
use uuid::Uuid;

use common::{Tenant, add_network, tree, until};

const VIPS: [&str; 2] = ["10.0.0.100", "fd00::100"];

/// A VM in `sw0` with both families, `10.0.0.N` and `fd00::N`.
fn vm(name: &str, number: u8, chassis: &str) -> VmSpec {
    VmSpec::new(name, chassis, "sw0")
        .address(&format!("10.0.0.{number}/24"))
        .address(&format!("fd00::{number}/64"))
}

fn with_gateways(spec: VmSpec, gateways: [&str; 2]) -> VmSpec {
    gateways.into_iter().fold(spec, |spec, gateway| spec.gateway(gateway.parse().unwrap()))
}

/// Servers named after their VMs on TCP and UDP port 8080 of both families.
fn serve(vms: &[Vm]) -> Vec<Server> {
    let addresses = |vm: &Vm| [vm.ipv4().unwrap(), vm.ipv6().unwrap()].map(|ip| SocketAddr::new(ip, 8080));
    let both = |vm: &Vm| {
        addresses(vm)
            .map(|at| [Server::tcp(vm, at, vm.name()).unwrap(), Server::udp(vm, at, vm.name()).unwrap()])
    };
    vms.iter().flat_map(both).flatten().collect()
}

fn backend(address: IpAddr) -> v1::Backend {
    v1::Backend { address: address.to_string(), port: 8080, ..Default::default() }
}

fn pool(name: &str, protocol: v1::PoolProtocol, vms: &[Vm]) -> v1::PoolTree {
    let pool = v1::Pool { name: name.to_owned(), protocol: protocol.into(), ..Default::default() };
    let addresses = vms.iter().flat_map(|vm| [vm.ipv4().unwrap(), vm.ipv6().unwrap()]);
    v1::PoolTree { pool: Some(pool), backends: addresses.map(backend).collect(), health_check: None }
}

fn listener(protocol: v1::ListenerProtocol, port: u32, pool: &str) -> v1::Listener {
    let default_pool_id = pool.to_owned();
    v1::Listener { protocol: protocol.into(), port, default_pool_id, ..Default::default() }
}

/// TCP port 80 and UDP port 53 on all backends, and TCP port 81 on the first one alone, each on a VIP of each family.
fn everything(network: Uuid, backends: &[Vm]) -> v1::LoadBalancerTree {
    let mut wanted = tree("everything", network, VIPS[0], &[]);
    let vip = v1::AdditionalVip { address: VIPS[1].to_owned(), ..Default::default() };
    wanted.load_balancer.as_mut().unwrap().additional_vips.push(vip);
    wanted.listeners = vec![
        listener(v1::ListenerProtocol::Tcp, 80, "web"),
        listener(v1::ListenerProtocol::Tcp, 81, "first"),
        listener(v1::ListenerProtocol::Udp, 53, "dns"),
    ];
    wanted.pools = vec![
        pool("web", v1::PoolProtocol::Tcp, backends),
        pool("first", v1::PoolProtocol::Tcp, &backends[..1]),
        pool("dns", v1::PoolProtocol::Udp, backends),
    ];
    wanted
}

fn own_address(vm: &Vm, like: IpAddr) -> IpAddr {
    if like.is_ipv4() { vm.ipv4().unwrap() } else { vm.ipv6().unwrap() }
}

/// From this client each VIP is answered, by all backends, and these see the client's own address.
async fn is_served(client: &Vm) {
    for vip in VIPS.map(|vip| vip.parse::<IpAddr>().unwrap()) {
        let itself = BTreeSet::from([own_address(client, vip)]);
        let report = Requests::tcp(client, SocketAddr::new(vip, 80)).run(100).await.unwrap();
        let case = format!("{} to TCP {vip}: {report}", client.name());
        assert_eq!((report.answered, report.shares.len(), &report.clients), (100, 2, &itself), "{case}");
        let report = Requests::udp(client, SocketAddr::new(vip, 53)).run(30).await.unwrap();
        let case = format!("{} to UDP {vip}: {report}", client.name());
        assert_eq!((report.answered, report.shares.len(), &report.clients), (30, 2, &itself), "{case}");
    }
}

/// A backend reaches itself through the VIP, and sees the VIP as its client.
async fn meets_itself(backend: &Vm) {
    for vip in VIPS.map(|vip| vip.parse::<IpAddr>().unwrap()) {
        let report = Requests::tcp(backend, SocketAddr::new(vip, 81)).run(100).await.unwrap();
        let case = format!("{} to itself by {vip}: {report}", backend.name());
        assert_eq!((report.answered, report.share(backend.name())), (100, 100), "{case}");
        assert_eq!(report.clients, BTreeSet::from([vip]), "{case}");
        let report = Requests::tcp(backend, SocketAddr::new(vip, 80)).run(100).await.unwrap();
        let case = format!("{} to all by {vip}: {report}", backend.name());
        assert_eq!((report.answered, report.shares.len()), (100, 2), "{case}");
        assert_eq!(report.clients, BTreeSet::from([vip, own_address(backend, vip)]), "{case}");
    }
}

async fn two_chassis(name: &str) -> (Lab, Uuid) {
    let lab = Lab::start(name).await.unwrap();
    lab.add_all_chassis(&["ch1", "ch2"]).await.unwrap();
    let network = add_network(&lab, "sw0", &[]).await;
    (lab, network)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vip_of_the_switch_is_served_without_a_router() {
    if !can_run("a_vip_of_the_switch_is_served_without_a_router") {
        return;
    }
    let (lab, network) = two_chassis("no-router").await;
    let specs = vec![vm("b1", 1, "ch1"), vm("b2", 2, "ch2"), vm("c1", 11, "ch1"), vm("c2", 12, "ch2")];
    let vms = lab.add_vms(specs).await.unwrap();
    let (backends, clients) = vms.split_at(2);
    let _servers = serve(backends);
    let mut tenant = Tenant::start(&lab).await;
    tenant.apply(everything(network, backends)).await;
    lab.wait_for_sync().await.unwrap();
    for client in clients {
        is_served(client).await;
    }
    meets_itself(&backends[0]).await;
    tenant.plugin.terminate().unwrap();
    let report =
        Requests::tcp(&clients[0], SocketAddr::new(VIPS[0].parse().unwrap(), 80)).run(20).await.unwrap();
    assert_eq!(report.answered, 20, "without the plugin: {report}");
    lab.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vip_of_the_switch_is_served_with_a_tenant_router() {
    if !can_run("a_vip_of_the_switch_is_served_with_a_tenant_router") {
        return;
    }
    let (lab, network) = two_chassis("router").await;
    lab.add_switch("sw1", &[]).await.unwrap();
    lab.add_router("lr0").await.unwrap();
    lab.attach_router("lr0", "sw0", &["10.0.0.254/24", "fd00::254/64"]).await.unwrap();
    lab.attach_router("lr0", "sw1", &["10.1.0.254/24", "fd01::254/64"]).await.unwrap();
    let here = ["10.0.0.254", "fd00::254"];
    let near = [vm("b1", 1, "ch1"), vm("b2", 2, "ch2"), vm("c1", 11, "ch1"), vm("c2", 12, "ch2")];
    let mut specs: Vec<VmSpec> = near.into_iter().map(|spec| with_gateways(spec, here)).collect();
    let behind = VmSpec::new("c3", "ch2", "sw1").address("10.1.0.13/24").address("fd01::13/64");
    specs.push(with_gateways(behind, ["10.1.0.254", "fd01::254"]));
    let vms = lab.add_vms(specs).await.unwrap();
    let (backends, clients) = vms.split_at(2);
    let _servers = serve(backends);
    let tenant = Tenant::start(&lab).await;
    tenant.apply(everything(network, backends)).await;
    lab.wait_for_sync().await.unwrap();
    for client in clients {
        is_served(client).await;
    }
    meets_itself(&backends[0]).await;
    lab.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ipv6_vip_is_served_beside_a_tenant_router_that_has_ipv4_alone() {
    if !can_run("an_ipv6_vip_is_served_beside_a_tenant_router_that_has_ipv4_alone") {
        return;
    }
    let (lab, network) = two_chassis("half-router").await;
    lab.add_router("lr0").await.unwrap();
    lab.attach_router("lr0", "sw0", &["10.0.0.254/24"]).await.unwrap();
    let specs = vec![vm("b1", 1, "ch1"), vm("b2", 2, "ch2"), vm("c1", 11, "ch1"), vm("c2", 12, "ch2")];
    let vms = lab.add_vms(specs).await.unwrap();
    let (backends, clients) = vms.split_at(2);
    let _servers = serve(backends);
    let mut tenant = Tenant::start(&lab).await;
    tenant.apply(everything(network, backends)).await;
    lab.wait_for_sync().await.unwrap();
    for client in clients {
        is_served(client).await;
    }
    meets_itself(&backends[0]).await;

    tenant.plugin.terminate().unwrap();
    tenant.plugin.start_again().await.unwrap();
    tenant.apply(tree("last", network, "10.0.0.98", &["10.0.0.1:8080"])).await;
    lab.nbctl(&["set", "Logical_Router_Port", "lr0-sw0", r#"networks="10.0.0.254/24","fd00::254/64""#])
        .await
        .unwrap();
    lab.wait_for_sync().await.unwrap();
    for client in clients {
        is_served(client).await;
        client.exec("ip", &["neigh", "flush", "all"]).await.unwrap();
        is_served(client).await;
    }
    lab.close().unwrap();
}

/// A load balancer on `b1`, `b2` and `b3`, whose tree is changed and applied again between requests.
struct Shop {
    tenant: Tenant,
    tree: v1::LoadBalancerTree,
    client: Vm,
    lab: Lab,
}

impl Shop {
    async fn apply(&mut self) {
        self.tree = self.tenant.apply(self.tree.clone()).await;
        self.lab.wait_for_datapaths(&["ch1", "ch2"]).await.unwrap();
    }

    fn backend(&mut self, name: &str) -> &mut v1::Backend {
        self.tree.pools[0].backends.iter_mut().find(|backend| backend.name == name).unwrap()
    }

    fn pool(&mut self) -> &mut v1::Pool {
        self.tree.pools[0].pool.as_mut().unwrap()
    }

    async fn ask(&self, count: u64) -> Report {
        let vip = SocketAddr::new(VIPS[0].parse().unwrap(), 80);
        let report = Requests::tcp(&self.client, vip).run(count).await.unwrap();
        assert_eq!(report.answered, count, "{report}");
        report
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_drains_backups_and_persistence_show_in_the_traffic() {
    if !can_run("weights_drains_backups_and_persistence_show_in_the_traffic") {
        return;
    }
    let (lab, network) = two_chassis("shares").await;
    let specs = vec![vm("b1", 1, "ch1"), vm("b2", 2, "ch2"), vm("b3", 3, "ch2"), vm("c1", 11, "ch1")];
    let mut vms = lab.add_vms(specs).await.unwrap();
    let client = vms.pop().unwrap();
    let _servers = serve(&vms);
    let tenant = Tenant::start(&lab).await;
    let mut wanted = tree("shop", network, VIPS[0], &["10.0.0.1:8080", "10.0.0.2:8080", "10.0.0.3:8080"]);
    for (name, backend) in ["b1", "b2", "b3"].into_iter().zip(&mut wanted.pools[0].backends) {
        name.clone_into(&mut backend.name);
    }
    let mut shop = Shop { tenant, tree: wanted, client, lab };

    shop.backend("b1").weight = Some(3);
    shop.backend("b3").backup = true;
    shop.apply().await;
    let report = shop.ask(400).await;
    assert!(
        (260..=340).contains(&report.share("b1")) && report.share("b3") == 0,
        "3:1 and a backup: {report}"
    );

    shop.backend("b1").weight = Some(0);
    shop.apply().await;
    let report = shop.ask(50).await;
    assert_eq!(report.share("b2"), 50, "b1 drained: {report}");

    shop.backend("b2").admin_state_up = Some(false);
    shop.apply().await;
    let report = shop.ask(50).await;
    assert_eq!(report.share("b3"), 50, "only the backup left: {report}");

    shop.backend("b1").weight = Some(1);
    shop.backend("b2").admin_state_up = Some(true);
    shop.backend("b3").backup = false;
    shop.apply().await;
    let report = shop.ask(100).await;
    assert_eq!(report.shares.len(), 3, "all of them: {report}");

    shop.pool().algorithm = v1::Algorithm::SourceIp.into();
    shop.apply().await;
    let report = shop.ask(50).await;
    assert_eq!(report.shares.len(), 1, "by source IP: {report}");

    let kind = v1::SessionPersistenceType::SourceIp.into();
    shop.pool().algorithm = v1::Algorithm::RoundRobin.into();
    shop.pool().session_persistence = Some(v1::SessionPersistence { r#type: kind, ..Default::default() });
    shop.apply().await;
    let report = shop.ask(50).await;
    assert_eq!(report.shares.len(), 1, "source IP persistence: {report}");
    shop.lab.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allocated_vip_is_free_and_stays_ours() {
    if !can_run("an_allocated_vip_is_free_and_stays_ours") {
        return;
    }
    let lab = Lab::start("allocated").await.unwrap();
    let network = add_network(&lab, "sw0", &[("subnet", "10.0.0.0/29")]).await;
    lab.nbctl(&["lsp-add", "sw0", "taken", "--", "lsp-set-addresses", "taken", "02:00:00:00:00:01 10.0.0.6"])
        .await
        .unwrap();
    let tenant = Tenant::start(&lab).await;
    // The plugin has seen the taken address once it has seen the database.
    let first = until("an allocated VIP", async || {
        let request = v1::ApplyLoadBalancerRequest {
            tree: Some(tree("lb", network, "", &["10.0.0.2:80"])),
            ..Default::default()
        };
        let answer = tenant.client.clone().apply_load_balancer(request).await.ok()?;
        answer.into_inner().tree?.load_balancer
    })
    .await;
    tenant.active(&first.id).await;
    assert_eq!(first.vip_address, "10.0.0.5");

    let mut handed_out = BTreeSet::new();
    for port in ["d1", "d2", "d3", "d4"] {
        lab.nbctl(&["--wait=sb", "lsp-add", "sw0", port, "--", "lsp-set-addresses", port, "dynamic"])
            .await
            .unwrap();
        let said = lab
            .nbctl(&["--if-exists", "get", "Logical_Switch_Port", port, "dynamic_addresses"])
            .await
            .unwrap();
        let said = said.trim().trim_matches('"');
        handed_out.extend(said.split_whitespace().nth(1).map(str::to_owned));
    }
    let free = ["10.0.0.2", "10.0.0.3", "10.0.0.4"].map(str::to_owned);
    assert_eq!(handed_out, BTreeSet::from(free), "OVN's IPAM hands out all but the VIP");

    let second = tree("other", network, "", &[]);
    let request = v1::ApplyLoadBalancerRequest { tree: Some(second), ..Default::default() };
    let refused = tenant.client.clone().apply_load_balancer(request).await.unwrap_err();
    assert!(refused.message().contains("no free address"), "{refused}");
    lab.close().unwrap();
}

/// Numbers of buckets of a chassis' OpenFlow groups. A vswitchd with a group that is too large for one message dies of this.
async fn group_sizes(lab: &Lab, chassis: &str) -> Vec<usize> {
    let mut command = lab.chassis_command(chassis, "ovs-ofctl");
    let bridge = format!("unix:/run/chassis/{chassis}/br-int.mgmt");
    let output = command.args(["-O", "OpenFlow15", "dump-groups", &bridge]).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let groups = String::from_utf8(output.stdout).unwrap();
    groups.lines().map(|group| group.matches("bucket=").count()).filter(|buckets| *buckets > 0).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_groups_of_the_largest_pool_can_be_listed_whatever_its_weights() {
    if !can_run("the_groups_of_the_largest_pool_can_be_listed_whatever_its_weights") {
        return;
    }
    let lab = Lab::start("groups").await.unwrap();
    lab.add_chassis("ch1").await.unwrap();
    let network = add_network(&lab, "sw0", &[]).await;
    let client = lab.add_vms(vec![vm("c1", 11, "ch1")]).await.unwrap();
    let tenant = Tenant::start(&lab).await;
    let mut wanted = tree("heavy", network, VIPS[0], &[]);
    let vip = v1::AdditionalVip { address: VIPS[1].to_owned(), ..Default::default() };
    wanted.load_balancer.as_mut().unwrap().additional_vips.push(vip);
    for (name, port, prefix) in [("v4", 80, "10.0."), ("v6", 81, "fd00::")] {
        let mut many = pool(name, v1::PoolProtocol::Tcp, &[]);
        many.backends = (0..500)
            .map(|number| {
                let separator = if prefix.ends_with(':') { ":" } else { "." };
                let address = format!("{prefix}{}{separator}{}", 1 + number / 250, 1 + number % 250);
                let weight = Some(if number < 100 { 256 } else { 1 });
                v1::Backend { weight, ..backend(address.parse().unwrap()) }
            })
            .collect();
        wanted.pools.push(many);
        wanted.listeners.push(listener(v1::ListenerProtocol::Tcp, port, name));
    }
    wanted.listeners.remove(0);
    wanted.pools.remove(0);
    tenant.apply(wanted).await;
    lab.wait_for_sync().await.unwrap();

    let lists =
        lab.nbctl(&["--bare", "--columns=vips", "find", "Load_Balancer", "protocol!=[]"]).await.unwrap();
    let sizes: Vec<usize> = lists
        .split_whitespace()
        .filter_map(|word| word.split_once('='))
        .map(|(_, list)| list.split(',').filter(|entry| !entry.is_empty()).count())
        .filter(|entries| *entries > 0)
        .collect();
    assert_eq!(sizes, [500, 500], "{lists:.300}");
    for _ in 0..2 {
        let groups = group_sizes(&lab, "ch1").await;
        assert!(groups.len() >= 2 && groups.iter().all(|buckets| *buckets <= 512), "{groups:?}");
    }
    drop(client);
    lab.close().unwrap();
}
