//! The matrix: whatever routers a tenant's network has, and whenever they come and go, each client is served by each backend that it
//! could reach by itself, by OVN, by proxies behind an OVN row and by the one node that has the VIP, and meets one MAC of OVN's VIP for as
//! long as that is there; a backend that nobody can reach is down.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use fiberlb_lab::workload::Requests;
use fiberlb_lab::{Vm, can_run};
use fiberlb_proto::v1;
use futures_util::{StreamExt as _, stream};

use crate::common::until;
use crate::{Cloud, DIRECT_PORTS, DIRECT_VIPS, OVN_PORTS, PROXY_PORTS, VIPS, addresses, has_answer_rows};

/// Requests of a cell, by each protocol.
const REQUESTS: u64 = 3;
/// Cells that are tried at the same time.
const AT_ONCE: usize = 4;
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

/// Carriers of listeners; the first one is there without proxy nodes.
const CARRIERS: [Carrier; 3] = [
    Carrier { name: "OVN", vips: VIPS, first_port: OVN_PORTS, keeps_clients: true },
    Carrier { name: "proxies", vips: VIPS, first_port: PROXY_PORTS, keeps_clients: false },
    Carrier { name: "one node", vips: DIRECT_VIPS, first_port: DIRECT_PORTS, keeps_clients: false },
];

struct Carrier {
    name: &'static str,
    vips: [&'static str; 2],
    first_port: u16,
    /// True if backends see the address of the client.
    keeps_clients: bool,
}

/// Cell of the matrix.
struct Cell<'a> {
    phase: &'a str,
    client: &'a Vm,
    backend: usize,
    carrier: &'a Carrier,
    vip: &'a str,
}

impl Cloud {
    /// Waits until the checked backends on these networks are up, and the others down.
    async fn is_up(&self, phase: &str, backends: &[usize]) {
        if self.nodes.is_empty() {
            return;
        }
        let addresses = |index: &usize| addresses(*index, 1);
        let reachable: BTreeSet<String> = backends.iter().flat_map(addresses).collect();
        until(&format!("{phase}: {reachable:?} up, and no other backend"), async || {
            let mut backends = Vec::new();
            for id in &self.ids {
                let request = v1::GetStatusTreeRequest { load_balancer_id: id.clone() };
                let tree = self.tenant.client.clone().get_status_tree(request).await.ok()?.into_inner();
                let checked = tree.pools.into_iter().filter(|pool| pool.health_check.is_some());
                backends.extend(checked.flat_map(|pool| pool.backends));
            }
            let is_right = |backend: &v1::Backend| {
                let wanted = if reachable.contains(&backend.address) {
                    v1::OperatingStatus::Online
                } else {
                    v1::OperatingStatus::Offline
                };
                backend.state.as_ref().is_some_and(|state| state.operating_status() == wanted)
            };
            backends.iter().all(is_right).then_some(())
        })
        .await;
    }

    /// From each of these networks, clients and the backend there are served by each of these backends, and no others are up.
    pub(crate) async fn serves(&self, phase: &str, places: &[usize], backends: &[usize]) {
        self.serves_also(phase, places, backends, backends).await;
    }

    /// The same where `reachable` backends are up.
    async fn serves_also(&self, phase: &str, places: &[usize], backends: &[usize], reachable: &[usize]) {
        self.is_up(phase, reachable).await;
        self.lab.wait_for_sync().await.unwrap();
        let local = places.iter().filter_map(|place| self.backends.get(*place));
        let from: Vec<&Vm> = places.iter().map(|place| &self.clients[*place]).chain(local).collect();
        let carriers = if self.nodes.is_empty() { &CARRIERS[..1] } else { &CARRIERS[..] };
        let cells = from.into_iter().flat_map(|client| {
            backends.iter().flat_map(move |backend| {
                let carriers = carriers.iter().flat_map(|carrier| carrier.vips.map(|vip| (carrier, vip)));
                carriers.map(move |(carrier, vip)| Cell { phase, client, backend: *backend, carrier, vip })
            })
        });
        stream::iter(cells).for_each_concurrent(AT_ONCE, |cell| self.is_served(cell)).await;
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

    /// A cell is served by TCP and UDP.
    async fn is_served(&self, cell: Cell<'_>) {
        let Cell { phase, client, carrier, .. } = cell;
        let (backend, vip) = (&self.backends[cell.backend], cell.vip.parse::<IpAddr>().unwrap());
        let target = SocketAddr::new(vip, carrier.first_port + u16::try_from(cell.backend).unwrap());
        let like = |vm: &Vm| if vip.is_ipv4() { vm.ipv4().unwrap() } else { vm.ipv6().unwrap() };
        // A backend that calls itself meets the VIP.
        let seen = if client.name() == backend.name() { vip } else { like(client) };
        for (protocol, requests) in
            [("TCP", Requests::tcp as fn(&Vm, SocketAddr) -> Requests), ("UDP", Requests::udp)]
        {
            let (who, whom) = (client.name(), backend.name());
            let what = format!("{phase}: {who} to {whom} by {} {protocol} {target}", carrier.name);
            let report = until(&what, async || {
                let report =
                    requests(client, target).timeout(Duration::from_secs(3)).run(REQUESTS).await.unwrap();
                (report.answered == REQUESTS).then_some(report)
            })
            .await;
            assert_eq!(report.share(whom), REQUESTS, "{what}: {report}");
            if carrier.keeps_clients {
                assert_eq!(report.clients, [seen].into(), "{what}");
            }
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
    for id in &cloud.ids {
        let request = v1::DeleteLoadBalancerRequest { id: id.clone(), cascade: true, ..Default::default() };
        cloud.tenant.client.clone().delete_load_balancer(request).await.unwrap();
        until("the deletion", async || {
            let request = v1::GetLoadBalancerRequest { id: id.clone() };
            cloud.tenant.client.clone().get_load_balancer(request).await.err()
        })
        .await;
    }
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
