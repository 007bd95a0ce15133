//! Topologies: whatever routers a tenant's network has, and whenever they come and go, each client is served by each backend that
//! it could reach by itself, by OVN and by proxies, and meets one MAC of the VIP for as long as that is there; a backend that nobody
//! can reach is down. And the rows of an earlier layout, which are replaced without a failed connection.

#![cfg(test)] // for clippy: helpers of tests are tests too

mod common;
#[path = "common/rows.rs"]
mod rows;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use fiberlb_lab::proxy::ProxyNode;
use fiberlb_lab::workload::{Requests, Running, Server};
use fiberlb_lab::{Lab, Release, Version, Vm, VmSpec, can_run};
use fiberlb_proto::v1;
use uuid::Uuid;

use common::{Tenant, add_network, tree, until};
use rows::rows;

const VIPS: [&str; 2] = ["10.0.0.100", "fd00::100"];
/// Requests of a cell of the matrix.
const REQUESTS: u64 = 3;
/// Responders answer by rows from here on, and by addresses of theirs before.
const ANSWER_ROWS: Version = Version::new(24, 9, 0);
/// Exits with success if an address answers a ping within three seconds.
const PING: &str = "
import socket, struct, sys
v6 = ':' in sys.argv[1]
s = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP)
s.settimeout(1)
head = struct.pack('!BBHHH', 128 if v6 else 8, 0, 0 if v6 else 0xf7ff - 0x42 - 1, 0x42, 1)
for _ in range(3):
    s.sendto(head, (sys.argv[1], 0))
    try:
        while True:
            data, (source, *_) = s.recvfrom(2048)
            kind = data[0] if v6 else data[20]
            if source == sys.argv[1] and kind == (129 if v6 else 0): sys.exit(0)
    except TimeoutError: pass
sys.exit(1)
";

/// True if the OVN under test has responders answer by rows.
fn has_answer_rows() -> bool {
    Release::chosen().is_ok_and(|release| release.ovn() >= ANSWER_ROWS)
}

/// The cloud: `sw0` with the VIPs, `sw1` and `sw3` (outside) behind the router `r0`, `sw2` behind `r2`. With its VMs, and the tenant's load balancer: a listener on TCP and UDP port `1000 + N` for the backend on `swN`, and one by proxies on port `2000 + N` of each.
struct Cloud {
    /// Empty: there are no proxies, and no health checks.
    nodes: Vec<ProxyNode>,
    network: Uuid,
    /// Of `sw0`, `sw1`, `sw2` and `sw3`.
    clients: Vec<Vm>,
    /// Of `sw0`, `sw1` and `sw2`.
    backends: Vec<Vm>,
    tenant: Tenant,
    _servers: Vec<Server>,
    lab: Lab,
}

/// Address of a host on a switch, of each family.
fn addresses(switch: usize, host: u8) -> [String; 2] {
    let v4 = if switch == 3 { format!("192.0.2.{host}") } else { format!("10.{switch}.0.{host}") };
    [v4, format!("fd0{switch}::{host}")]
}

fn vm(name: &str, host: u8, switch: usize, chassis: &str) -> VmSpec {
    let [v4, v6] = addresses(switch, host);
    let spec = VmSpec::new(&format!("{name}{switch}"), chassis, &format!("sw{switch}"))
        .address(&format!("{v4}/24"))
        .address(&format!("{v6}/64"));
    let router = addresses(switch, 254);
    router.iter().fold(spec, |spec, gateway| spec.gateway(gateway.parse().unwrap()))
}

/// A health check of once a second.
fn check() -> v1::HealthCheck {
    let second = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    v1::HealthCheck {
        r#type: v1::HealthCheckType::Tcp.into(),
        delay: second,
        timeout: second,
        rise: 1,
        fall: 1,
        ..Default::default()
    }
}

impl Cloud {
    async fn start(name: &str) -> Self {
        let lab = Lab::start(name).await.unwrap();
        lab.add_all_chassis(&["ch1", "ch2"]).await.unwrap();
        // Proxy nodes leave the routers' addresses alone.
        let subnets =
            [("subnet", "10.0.0.0/24"), ("exclude_ips", "10.0.0.253..10.0.0.254"), ("ipv6_prefix", "fd00::")];
        let network = add_network(&lab, "sw0", &subnets).await;
        for switch in ["sw1", "sw2", "sw3"] {
            lab.add_switch(switch, &[]).await.unwrap();
        }
        // Clients and backends of a network are on different chassis. The one outside is where the gateway port is.
        let backends =
            [(0, "ch1"), (1, "ch2"), (2, "ch1")].map(|(switch, chassis)| vm("b", 1, switch, chassis));
        let clients = [(0, "ch2"), (1, "ch1"), (2, "ch2"), (3, "ch1")];
        let clients = clients.map(|(switch, chassis)| vm("c", 11, switch, chassis));
        let mut vms = lab.add_vms(backends.into_iter().chain(clients).collect()).await.unwrap();
        let clients = vms.split_off(3);
        let serve = |vm: &Vm| {
            [vm.ipv4(), vm.ipv6()].map(|ip| {
                let at = SocketAddr::new(ip.unwrap(), 8080);
                [Server::tcp(vm, at, vm.name()).unwrap(), Server::udp(vm, at, vm.name()).unwrap()]
            })
        };
        let servers = vms.iter().flat_map(serve).flatten().collect();
        let tenant = Tenant::start(&lab).await;
        Self { nodes: Vec::new(), network, clients, backends: vms, tenant, _servers: servers, lab }
    }

    /// Adds a proxy node on each chassis.
    async fn add_nodes(&mut self) {
        let plugin = self.tenant.plugin.agents_endpoint();
        for chassis in ["ch1", "ch2"] {
            self.nodes.push(ProxyNode::start(&self.lab, chassis, &plugin).await.unwrap());
        }
    }

    async fn create(&self) {
        let mut wanted = tree("everything", self.network, VIPS[0], &[]);
        let vip = v1::AdditionalVip { address: VIPS[1].to_owned(), ..Default::default() };
        wanted.load_balancer.as_mut().unwrap().additional_vips.push(vip);
        (wanted.listeners, wanted.pools) = (Vec::new(), Vec::new());
        for (number, vm) in (1000..).zip(&self.backends) {
            for (listener, pool) in [
                (v1::ListenerProtocol::Tcp, v1::PoolProtocol::Tcp),
                (v1::ListenerProtocol::Udp, v1::PoolProtocol::Udp),
            ] {
                let name = format!("{}-{}", vm.name(), pool.as_str_name());
                wanted.listeners.push(v1::Listener {
                    protocol: listener.into(),
                    port: number,
                    default_pool_id: name.clone(),
                    ..Default::default()
                });
                let has_proxies = !self.nodes.is_empty();
                wanted.listeners.extend(has_proxies.then(|| v1::Listener {
                    protocol: listener.into(),
                    port: number + 1000,
                    default_pool_id: name.clone(),
                    datapath: v1::Datapath::Proxy.into(),
                    ..Default::default()
                }));
                let backend =
                    |ip: IpAddr| v1::Backend { address: ip.to_string(), port: 8080, ..Default::default() };
                wanted.pools.push(v1::PoolTree {
                    pool: Some(v1::Pool { name, protocol: pool.into(), ..Default::default() }),
                    backends: [vm.ipv4(), vm.ipv6()].map(|ip| backend(ip.unwrap())).into(),
                    health_check: (pool == v1::PoolProtocol::Tcp && has_proxies).then(check),
                });
            }
        }
        self.tenant.apply(wanted).await;
        self.lab.wait_for_sync().await.unwrap();
    }

    /// Puts a router on a switch, with the host number 254, or on `sw0` another one for the second router.
    async fn attach(&self, router: &str, switch: usize, host: u8) {
        let [v4, v6] = addresses(switch, host);
        let networks = [format!("{v4}/24"), format!("{v6}/64")];
        let networks = networks.each_ref().map(String::as_str);
        self.lab.attach_router(router, &format!("sw{switch}"), &networks).await.unwrap();
    }

    /// Has a router reach a network by an address on `sw0`.
    async fn route(&self, router: &str, switch: usize, host: u8) {
        let [v4, v6] = addresses(switch, 0);
        let [via_v4, via_v6] = addresses(0, host);
        let v6 = v6.trim_end_matches('0').to_owned();
        for (network, via) in [(format!("{v4}/24"), via_v4), (format!("{v6}/64"), via_v6)] {
            self.lab.nbctl(&["lr-route-add", router, &network, &via]).await.unwrap();
        }
    }

    /// MAC that the client on `sw0` has for each VIP.
    async fn macs(&self) -> BTreeSet<(String, String)> {
        let neighbours = self.clients[0].exec("ip", &["neigh", "show"]).await.unwrap();
        let word = |line: &str, number: usize| line.split_whitespace().nth(number).map(str::to_owned);
        let of_vip =
            neighbours.lines().filter(|line| VIPS.contains(&line.split(' ').next().unwrap_or_default()));
        of_vip.filter_map(|line| Some((word(line, 0)?, word(line, 4)?))).collect()
    }

    /// Waits until the checked backends on these networks are up, and the others down.
    async fn is_up(&self, phase: &str, backends: &[usize]) {
        if self.nodes.is_empty() {
            return;
        }
        let addresses = |index: &usize| addresses(*index, 1);
        let reachable: BTreeSet<String> = backends.iter().flat_map(addresses).collect();
        until(&format!("{phase}: {reachable:?} up, and no other backend"), async || {
            let request = v1::GetStatusTreeRequest { load_balancer_id: self.id().await };
            let tree = self.tenant.client.clone().get_status_tree(request).await.ok()?.into_inner();
            let checked = tree.pools.iter().filter(|pool| pool.health_check.is_some());
            let is_right = |backend: &v1::Backend| {
                let wanted = if reachable.contains(&backend.address) {
                    v1::OperatingStatus::Online
                } else {
                    v1::OperatingStatus::Offline
                };
                backend.state.as_ref().is_some_and(|state| state.operating_status() == wanted)
            };
            checked.flat_map(|pool| &pool.backends).all(is_right).then_some(())
        })
        .await;
    }

    /// Id of the load balancer.
    async fn id(&self) -> String {
        let request = v1::ListLoadBalancersRequest::default();
        let all = self.tenant.client.clone().list_load_balancers(request).await.unwrap().into_inner();
        all.load_balancers[0].id.clone()
    }

    /// From each of these networks, clients and the backend there are served by each of these backends, and no others are up.
    async fn serves(&self, phase: &str, places: &[usize], backends: &[usize]) {
        self.serves_also(phase, places, backends, backends).await;
    }

    /// The same where `reachable` backends are up.
    async fn serves_also(&self, phase: &str, places: &[usize], backends: &[usize], reachable: &[usize]) {
        self.is_up(phase, reachable).await;
        self.lab.wait_for_sync().await.unwrap();
        let local = places.iter().filter_map(|place| self.backends.get(*place));
        let from: Vec<&Vm> = places.iter().map(|place| &self.clients[*place]).chain(local).collect();
        for client in from {
            for backend in backends {
                for vip in VIPS {
                    self.is_served(phase, client, &self.backends[*backend], vip.parse().unwrap()).await;
                }
            }
        }
    }

    /// Pings are answered, and closed ports refuse, where responders answer by addresses; where they answer by rows, neither is so.
    async fn has_its_manners(&self, phase: &str, places: &[usize]) {
        self.lab.wait_for_sync().await.unwrap();
        for client in places.iter().map(|place| &self.clients[*place]) {
            for vip in VIPS {
                let cell = format!("{phase}: {} and {vip}", client.name());
                let pinged = client.exec("python3", &["-c", PING, vip]).await.is_ok();
                assert_eq!(pinged, !has_answer_rows(), "ping, {cell}");
                let closed = SocketAddr::new(vip.parse().unwrap(), 9);
                let report =
                    Requests::tcp(client, closed).timeout(Duration::from_secs(3)).run(1).await.unwrap();
                let error = report.failed.first().map(|failure| failure.error.as_str()).unwrap_or_default();
                assert_eq!(error.contains("refused"), !has_answer_rows(), "closed port, {cell}: {report}");
            }
        }
    }

    async fn is_served(&self, phase: &str, client: &Vm, backend: &Vm, vip: IpAddr) {
        let port = 1000 + u16::from(backend.name().as_bytes()[1] - b'0');
        let target = SocketAddr::new(vip, port);
        let like = |vm: &Vm| if vip.is_ipv4() { vm.ipv4().unwrap() } else { vm.ipv6().unwrap() };
        // A backend that calls itself meets the VIP.
        let seen = if client.name() == backend.name() { vip } else { like(client) };
        let protocols = [("TCP", Requests::tcp as fn(&Vm, SocketAddr) -> Requests), ("UDP", Requests::udp)];
        for (protocol, requests) in protocols {
            let cell = format!("{phase}: {} to {} by {protocol} {target}", client.name(), backend.name());
            let report = until(&cell, async || {
                let report =
                    requests(client, target).timeout(Duration::from_secs(3)).run(REQUESTS).await.unwrap();
                (report.answered == REQUESTS).then_some(report)
            })
            .await;
            assert_eq!((report.share(backend.name()), &report.clients), (REQUESTS, &[seen].into()), "{cell}");
        }
        for (protocol, requests) in protocols.into_iter().filter(|_| !self.nodes.is_empty()) {
            let proxied = SocketAddr::new(vip, port + 1000);
            let cell =
                format!("{phase}: {} to {} by proxies {protocol} {proxied}", client.name(), backend.name());
            until(&cell, async || {
                let requests = requests(client, proxied).timeout(Duration::from_secs(3));
                (requests.run(REQUESTS).await.unwrap().share(backend.name()) == REQUESTS).then_some(())
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_client_reaches_each_backend_whatever_routers_there_are() {
    if !can_run("each_client_reaches_each_backend_whatever_routers_there_are") {
        return;
    }
    let mut cloud = Cloud::start("topologies").await;
    // The userspace conntrack of the Open vSwitch beside older releases aborts too often under so many connections.
    if has_answer_rows() {
        cloud.add_nodes().await;
    }
    cloud.create().await;
    cloud.serves("no router", &[0], &[0]).await;
    cloud.has_its_manners("no router", &[0]).await;
    let macs = cloud.macs().await;
    assert_eq!(macs.len(), VIPS.len(), "{macs:?}");

    cloud.lab.add_router("r0").await.unwrap();
    cloud.attach("r0", 0, 254).await;
    cloud.attach("r0", 1, 254).await;
    cloud.serves("a router that came later", &[0, 1], &[0, 1]).await;
    cloud.has_its_manners("a router that came later", &[0, 1]).await;
    assert_eq!(cloud.macs().await, macs);

    cloud.lab.add_router("r2").await.unwrap();
    cloud.attach("r2", 0, 253).await;
    cloud.attach("r2", 2, 254).await;
    cloud.route("r0", 2, 253).await;
    cloud.route("r2", 1, 254).await;
    cloud.serves("two routers", &[0, 1, 2], &[0, 1, 2]).await;
    assert_eq!(cloud.macs().await, macs);

    cloud.attach("r0", 3, 254).await;
    cloud.lab.nbctl(&["lrp-set-gateway-chassis", "r0-sw3", "ch1", "20"]).await.unwrap();
    cloud.serves("a way out", &[0, 1, 2], &[0, 1, 2]).await;
    cloud.serves_also("from outside", &[3], &[0, 1], &[0, 1, 2]).await;
    assert_eq!(cloud.macs().await, macs);

    // All of it once more, with the routers there first.
    let id = cloud.id().await;
    let request = v1::DeleteLoadBalancerRequest { id: id.clone(), cascade: true, ..Default::default() };
    cloud.tenant.client.clone().delete_load_balancer(request).await.unwrap();
    until("the deletion", async || {
        let request = v1::GetLoadBalancerRequest { id: id.clone() };
        cloud.tenant.client.clone().get_load_balancer(request).await.err()
    })
    .await;
    let left = cloud.lab.nbctl(&["--bare", "--columns=name", "list", "Logical_Router"]).await.unwrap();
    assert_eq!(left.split_whitespace().collect::<BTreeSet<_>>(), ["r0", "r2"].into());
    cloud.create().await;
    cloud.serves("routers first", &[0, 1, 2], &[0, 1, 2]).await;
    cloud.serves_also("from outside, routers first", &[3], &[0, 1], &[0, 1, 2]).await;
    assert_eq!(cloud.macs().await, macs);

    // The default router of the proxies does not lead to what is behind the other one.
    for network in ["10.2.0.0/24", "fd02::/64"] {
        cloud.lab.nbctl(&["lr-route-del", "r0", network]).await.unwrap();
    }
    cloud.serves("routers that know nothing of each other", &[0], &[0, 1, 2]).await;

    // A router leaves, while clients have their neighbours.
    cloud.lab.nbctl(&["lsp-del", "sw0-r0"]).await.unwrap();
    cloud.serves_also("a router has left", &[0], &[0], &[0, 2]).await;
    assert_eq!(cloud.macs().await, macs);
    assert!(cloud.tenant.plugin.northbound_transactions().await.unwrap() >= 5.0);
    drop(cloud.nodes);
    cloud.lab.close().unwrap();
}

impl Cloud {
    /// Writes the rows of all load balancers as the releases before answer rows did, while no plugin runs.
    async fn write_earlier_layout(&self) {
        let nbctl = async |arguments: &[&str]| self.lab.nbctl(arguments).await.unwrap();
        let routers = rows(&self.lab, "Logical_Router").await;
        let name_of = |row: &serde_json::Value| row["name"].as_str().unwrap().to_owned();
        let responder = routers.values().map(name_of).find(|name| name.starts_with("fiberlb-")).unwrap();
        for (group, row) in rows(&self.lab, "Load_Balancer_Group").await {
            if name_of(&row).ends_with("#answers") {
                nbctl(&["remove", "Logical_Router", &responder, "load_balancer_group", &group]).await;
                nbctl(&["destroy", "Load_Balancer_Group", &group]).await;
            } else {
                nbctl(&["add", "Logical_Router", &responder, "load_balancer_group", &group]).await;
            }
        }
        for (balancer, row) in rows(&self.lab, "Load_Balancer").await {
            if row["protocol"].as_str().is_some_and(|protocol| !protocol.is_empty()) {
                nbctl(&["remove", "Load_Balancer", &balancer, "options", "neighbor_responder"]).await;
            } else {
                nbctl(&["destroy", "Load_Balancer", &balancer]).await;
            }
        }
        for (port, row) in rows(&self.lab, "Logical_Switch_Port").await {
            if name_of(&row).starts_with("fiberlb-vip-") {
                nbctl(&["set", "Logical_Switch_Port", &port, "type=external", "options={}"]).await;
            }
        }
        for (port, row) in rows(&self.lab, "Logical_Router_Port").await {
            if name_of(&row).starts_with("fiberlb-") {
                let vips = [format!("{}/32", VIPS[0]), format!("\"{}/128\"", VIPS[1])];
                nbctl(&["add", "Logical_Router_Port", &port, "networks", &vips[0], &vips[1]]).await;
            }
        }
    }

    /// Answers of the responder: number of answer rows, and VIPs among its addresses. And the types of the ports that reserve VIPs.
    async fn answers(&self) -> (usize, usize, BTreeSet<String>) {
        let balancers = rows(&self.lab, "Load_Balancer").await;
        let is_answer = |row: &&serde_json::Value| row["vips"].get(VIPS[0]).is_some();
        let ports = rows(&self.lab, "Logical_Router_Port").await;
        let networks = ports.values().flat_map(|row| row["networks"].as_array().into_iter().flatten());
        let hosts = networks.filter(|network| {
            network.as_str().is_some_and(|network| network.ends_with("/32") || network.ends_with("/128"))
        });
        let ports = rows(&self.lab, "Logical_Switch_Port").await;
        let reserving =
            ports.values().filter(|row| row["name"].as_str().unwrap().starts_with("fiberlb-vip-"));
        let types = reserving.map(|row| row["type"].as_str().unwrap().to_owned());
        (balancers.values().filter(is_answer).count(), hosts.count(), types.collect())
    }

    /// Traffic from clients on `sw0`, behind the router and outside to a backend, by both families and protocols.
    fn traffic(&self) -> Vec<(String, Running)> {
        let mut all = Vec::new();
        for client in [&self.clients[0], &self.clients[1], &self.clients[3]] {
            for vip in VIPS {
                let target = SocketAddr::new(vip.parse().unwrap(), 1000);
                for (protocol, requests) in
                    [("TCP", Requests::tcp as fn(&Vm, SocketAddr) -> Requests), ("UDP", Requests::udp)]
                {
                    let running = requests(client, target).pause(Duration::from_millis(20)).start().unwrap();
                    all.push((format!("{} by {protocol} to {vip}", client.name()), running));
                }
            }
        }
        all
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_the_earlier_layout_are_replaced_without_a_failed_connection() {
    if !can_run("rows_of_the_earlier_layout_are_replaced_without_a_failed_connection") {
        return;
    }
    let mut cloud = Cloud::start("layout").await;
    cloud.create().await;
    cloud.lab.add_router("r0").await.unwrap();
    for switch in [0, 1, 3] {
        cloud.attach("r0", switch, 254).await;
    }
    cloud.lab.nbctl(&["lrp-set-gateway-chassis", "r0-sw3", "ch1", "20"]).await.unwrap();
    let (rows, addresses, kind) = if has_answer_rows() { (1, 0, "") } else { (0, 2, "virtual") };
    let expected = (rows, addresses, BTreeSet::from([kind.to_owned()]));
    assert_eq!(cloud.answers().await, expected);

    for round in 0..3 {
        cloud.tenant.plugin.kill().unwrap();
        cloud.write_earlier_layout().await;
        assert_eq!(cloud.answers().await, (0, 2, BTreeSet::from(["external".to_owned()])));
        let phase = format!("the earlier layout, round {round}");
        cloud.serves(&phase, &[0], &[0]).await;
        cloud.serves(&format!("{phase}, outside"), &[3], &[0]).await;
        let macs = cloud.macs().await;
        let traffic = cloud.traffic();
        cloud.tenant.plugin.start_again().await.unwrap();
        until("the layout of this release", async || (cloud.answers().await == expected).then_some(())).await;
        // Neighbours are looked for while and after it changes: who answers is the same.
        for _ in 0..10 {
            for client in [0, 3] {
                // Not those that are being looked for: that would fail the connection that waits for it.
                let flush = "neigh flush all nud reachable nud stale nud delay nud probe";
                let flush: Vec<&str> = flush.split(' ').collect();
                cloud.clients[client].exec("ip", &flush).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        cloud.lab.wait_for_sync().await.unwrap();
        for (what, running) in traffic {
            let report = running.stop().await;
            assert!(report.all_answered(), "round {round}, {what}: {report}");
        }
        assert_eq!(cloud.macs().await, macs);
    }
    cloud.lab.close().unwrap();
}
