//! Topologies: whatever routers a tenant's network has, and whenever they come and go, each client is served by each backend that
//! it could reach by itself, and meets one MAC of the VIP for as long as that is there.

#![cfg(test)] // for clippy: helpers of tests are tests too

mod common;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use fiberlb_lab::workload::{Requests, Server};
use fiberlb_lab::{Lab, Vm, VmSpec, can_run};
use fiberlb_proto::v1;
use uuid::Uuid;

use common::{Tenant, add_network, tree, until};

const VIPS: [&str; 2] = ["10.0.0.100", "fd00::100"];
/// Requests of a cell of the matrix.
const REQUESTS: u64 = 3;

/// The cloud: `sw0` with the VIPs, `sw1` and `sw3` (outside) behind the router `r0`, `sw2` behind `r2`. With its VMs, and the tenant's load balancer: a listener on TCP and UDP port `1000 + N` for the backend on `swN`.
struct Cloud {
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

impl Cloud {
    async fn start(name: &str) -> Self {
        let lab = Lab::start(name).await.unwrap();
        lab.add_all_chassis(&["ch1", "ch2"]).await.unwrap();
        let network = add_network(&lab, "sw0", &[]).await;
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
        let cloud = Self { network, clients, backends: vms, tenant, _servers: servers, lab };
        cloud.create().await;
        cloud
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
                let backend =
                    |ip: IpAddr| v1::Backend { address: ip.to_string(), port: 8080, ..Default::default() };
                wanted.pools.push(v1::PoolTree {
                    pool: Some(v1::Pool { name, protocol: pool.into(), ..Default::default() }),
                    backends: [vm.ipv4(), vm.ipv6()].map(|ip| backend(ip.unwrap())).into(),
                    health_check: None,
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

    /// From each of these networks, clients and the backend there are served by each of these backends.
    async fn serves(&self, phase: &str, places: &[usize], backends: &[usize]) {
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

    async fn is_served(&self, phase: &str, client: &Vm, backend: &Vm, vip: IpAddr) {
        let port = 1000 + u16::from(backend.name().as_bytes()[1] - b'0');
        let target = SocketAddr::new(vip, port);
        let like = |vm: &Vm| if vip.is_ipv4() { vm.ipv4().unwrap() } else { vm.ipv6().unwrap() };
        // A backend that calls itself meets the VIP.
        let seen = if client.name() == backend.name() { vip } else { like(client) };
        for (protocol, requests) in
            [("TCP", Requests::tcp as fn(&Vm, SocketAddr) -> Requests), ("UDP", Requests::udp)]
        {
            let cell = format!("{phase}: {} to {} by {protocol} {target}", client.name(), backend.name());
            let report = until(&cell, async || {
                let report =
                    requests(client, target).timeout(Duration::from_secs(3)).run(REQUESTS).await.unwrap();
                (report.answered == REQUESTS).then_some(report)
            })
            .await;
            assert_eq!((report.share(backend.name()), &report.clients), (REQUESTS, &[seen].into()), "{cell}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_client_reaches_each_backend_whatever_routers_there_are() {
    if !can_run("each_client_reaches_each_backend_whatever_routers_there_are") {
        return;
    }
    let cloud = Cloud::start("topologies").await;
    cloud.serves("no router", &[0], &[0]).await;
    let macs = cloud.macs().await;
    assert_eq!(macs.len(), VIPS.len(), "{macs:?}");

    cloud.lab.add_router("r0").await.unwrap();
    cloud.attach("r0", 0, 254).await;
    cloud.attach("r0", 1, 254).await;
    cloud.serves("a router that came later", &[0, 1], &[0, 1]).await;
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
    cloud.serves("from outside", &[3], &[0, 1]).await;
    assert_eq!(cloud.macs().await, macs);

    // All of it once more, with the routers there first.
    let request = v1::ListLoadBalancersRequest::default();
    let all = cloud.tenant.client.clone().list_load_balancers(request).await.unwrap().into_inner();
    let id = all.load_balancers[0].id.clone();
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
    cloud.serves("from outside, routers first", &[3], &[0, 1]).await;
    assert_eq!(cloud.macs().await, macs);

    // A router leaves, while clients have their neighbours.
    cloud.lab.nbctl(&["lsp-del", "sw0-r0"]).await.unwrap();
    cloud.serves("a router has left", &[0], &[0]).await;
    assert_eq!(cloud.macs().await, macs);
    assert!(cloud.tenant.plugin.northbound_transactions().await.unwrap() >= 5.0);
    cloud.lab.close().unwrap();
}
