//! Topologies: a tenant's network with routers that come and go, clients and backends at each place of it, and a load balancer of
//! each carrier.

#![cfg(test)] // for clippy: helpers of tests are tests too

#[path = "../common/mod.rs"]
mod common;
mod layout;
mod matrix;
#[path = "../common/rows.rs"]
mod rows;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use fiberlb_lab::proxy::ProxyNode;
use fiberlb_lab::workload::Server;
use fiberlb_lab::{Lab, Release, Version, Vm, VmSpec};
use fiberlb_proto::v1;
use uuid::Uuid;

use common::{Tenant, add_network, tree};

const VIPS: [&str; 2] = ["10.0.0.100", "fd00::100"];
/// VIPs that one node at a time carries.
const DIRECT_VIPS: [&str; 2] = ["10.0.0.101", "fd00::101"];
/// First ports of listeners that OVN, a node alone, and proxies behind an OVN row carry.
const OVN_PORTS: u16 = 1000;
const DIRECT_PORTS: u16 = 1000;
const PROXY_PORTS: u16 = 2000;
/// Responders answer by rows from here on, and by addresses of theirs before.
const ANSWER_ROWS: Version = Version::new(24, 9, 0);
/// True if the OVN under test has responders answer by rows.
fn has_answer_rows() -> bool {
    Release::chosen().is_ok_and(|release| release.ovn() >= ANSWER_ROWS)
}

/// The cloud: `sw0` with the VIPs, `sw1` and `sw3` (outside) behind the router `r0`, `sw2` behind `r2`. With its VMs, and the tenant's load balancers: a listener on TCP and UDP for the backend on `swN`, on the `N`th port of each carrier.
struct Cloud {
    /// Empty: there are no proxies, and no health checks.
    nodes: Vec<ProxyNode>,
    network: Uuid,
    /// Ids of the load balancers.
    ids: Vec<String>,
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
        Self {
            nodes: Vec::new(),
            network,
            ids: Vec::new(),
            clients,
            backends: vms,
            tenant,
            _servers: servers,
            lab,
        }
    }

    /// Adds a proxy node on each chassis.
    async fn add_nodes(&mut self) {
        let plugin = self.tenant.plugin.agents_endpoint();
        for chassis in ["ch1", "ch2"] {
            self.nodes.push(ProxyNode::start(&self.lab, chassis, &plugin).await.unwrap());
        }
    }

    /// Creates the load balancers.
    async fn create(&mut self) {
        let mut wanted = vec![("balanced", VIPS, vec![(OVN_PORTS, v1::Listener::default())])];
        if !self.nodes.is_empty() {
            let proxied = v1::Listener { datapath: v1::Datapath::Proxy.into(), ..Default::default() };
            let direct = v1::Listener { exposure: v1::Exposure::Direct.into(), ..Default::default() };
            wanted[0].2.push((PROXY_PORTS, proxied));
            wanted.push(("direct", DIRECT_VIPS, vec![(DIRECT_PORTS, direct)]));
        }
        self.ids.clear();
        for (name, vips, listeners) in wanted {
            let made = self.tenant.apply(self.balancer(name, vips, &listeners)).await;
            self.ids.push(made.load_balancer.unwrap().id);
        }
        self.lab.wait_for_sync().await.unwrap();
    }

    /// A load balancer with listeners from these ports on.
    fn balancer(
        &self,
        name: &str,
        vips: [&str; 2],
        listeners: &[(u16, v1::Listener)],
    ) -> v1::LoadBalancerTree {
        let mut wanted = tree(name, self.network, vips[0], &[]);
        let vip = v1::AdditionalVip { address: vips[1].to_owned(), ..Default::default() };
        wanted.load_balancer.as_mut().unwrap().additional_vips.push(vip);
        (wanted.listeners, wanted.pools) = (Vec::new(), Vec::new());
        for (number, vm) in (0..).zip(&self.backends) {
            for (listener, pool) in [
                (v1::ListenerProtocol::Tcp, v1::PoolProtocol::Tcp),
                (v1::ListenerProtocol::Udp, v1::PoolProtocol::Udp),
            ] {
                let name = format!("{}-{}", vm.name(), pool.as_str_name());
                wanted.listeners.extend(listeners.iter().map(|(first, carried)| v1::Listener {
                    protocol: listener.into(),
                    port: (first + number).into(),
                    default_pool_id: name.clone(),
                    ..carried.clone()
                }));
                let backend =
                    |ip: IpAddr| v1::Backend { address: ip.to_string(), port: 8080, ..Default::default() };
                let is_checked = pool == v1::PoolProtocol::Tcp && !self.nodes.is_empty();
                wanted.pools.push(v1::PoolTree {
                    pool: Some(v1::Pool { name, protocol: pool.into(), ..Default::default() }),
                    backends: [vm.ipv4(), vm.ipv6()].map(|ip| backend(ip.unwrap())).into(),
                    health_check: is_checked.then(check),
                });
            }
        }
        wanted
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
}
