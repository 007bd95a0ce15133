//! The load balancer that clients connect through: one port by OVN, one by proxies, a health check for both.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result};
use fiberlb_lab::Vm;
use fiberlb_proto::v1;

use crate::objects::Services;

/// Port of the backends.
pub(crate) const BACKEND_PORT: u16 = 8080;
/// The port that OVN balances, and the one that proxies serve.
const PORTS: [u16; 2] = [80, 81];

/// Proxy nodes that serve each network.
const NODES: usize = 2;
/// Longest wait for the first good probes of all backends.
const PATIENCE: Duration = Duration::from_secs(30);

/// Addresses of the load balancer's two paths.
#[derive(Debug, Clone, Copy)]
pub struct TrafficTarget {
    /// Balanced by OVN.
    pub ovn: SocketAddr,
    /// Served by proxies.
    pub proxied: SocketAddr,
}

impl TrafficTarget {
    /// Makes it.
    ///
    /// # Errors
    /// The plugin refuses.
    pub async fn open(services: &Services, backends: &[Vm]) -> Result<Self> {
        let request = v1::ApplyLoadBalancerRequest { tree: Some(tree(backends)?), ..Default::default() };
        let made = services.load_balancers().apply_load_balancer(request).await?.into_inner();
        let root =
            made.tree.and_then(|tree| tree.load_balancer).context("the answer has no load balancer")?;
        let vip: IpAddr = root.vip_address.parse().context("the VIP")?;
        let online = async { while !is_online(services, &root.id).await {} };
        tokio::time::timeout(PATIENCE, online).await.context("the target does not come online")?;
        let [ovn, proxied] = PORTS.map(|port| SocketAddr::new(vip, port));
        Ok(Self { ovn, proxied })
    }
}

/// True if each backend takes connections, on both paths.
async fn is_online(services: &Services, id: &str) -> bool {
    tokio::time::sleep(Duration::from_millis(50)).await;
    let request = v1::GetStatusTreeRequest { load_balancer_id: id.to_owned() };
    let Ok(tree) = services.load_balancers().get_status_tree(request).await else { return false };
    let tree = tree.into_inner();
    let online = |state: &Option<v1::ResourceState>| {
        state.as_ref().is_some_and(|state| state.operating_status() == v1::OperatingStatus::Online)
    };
    let backends = tree.pools.iter().flat_map(|pool| &pool.backends).all(|backend| online(&backend.state));
    let listeners = tree.listeners.iter().all(|listener| online(&listener.state));
    let nodes = tree.listeners.iter().map(|listener| listener.proxy_node_ids.len()).max();
    backends && listeners && nodes == Some(NODES)
}

fn tree(backends: &[Vm]) -> Result<v1::LoadBalancerTree> {
    let load_balancer =
        v1::LoadBalancer { name: "shop".to_owned(), network: "sw0".to_owned(), ..Default::default() };
    let backend = |vm: &Vm| -> Result<v1::Backend> {
        let (name, address) = (vm.name().to_owned(), vm.ipv4()?.to_string());
        Ok(v1::Backend { name, address, port: BACKEND_PORT.into(), ..Default::default() })
    };
    let second = || Some(prost_types::Duration { seconds: 1, nanos: 0 });
    let check = v1::HealthCheck {
        r#type: v1::HealthCheckType::Tcp.into(),
        delay: second(),
        timeout: second(),
        rise: 2,
        fall: 3,
        ..Default::default()
    };
    let pool =
        v1::Pool { name: "servers".to_owned(), protocol: v1::PoolProtocol::Tcp.into(), ..Default::default() };
    let backends = backends.iter().map(backend).collect::<Result<_>>()?;
    let pool = v1::PoolTree { pool: Some(pool), backends, health_check: Some(check) };
    let listeners = [v1::Datapath::Ovn, v1::Datapath::Proxy].into_iter().zip(PORTS).map(listener);
    let (listeners, pools) = (listeners.collect(), vec![pool]);
    Ok(v1::LoadBalancerTree { load_balancer: Some(load_balancer), listeners, pools, ..Default::default() })
}

fn listener((datapath, port): (v1::Datapath, u16)) -> v1::Listener {
    v1::Listener {
        protocol: v1::ListenerProtocol::Tcp.into(),
        port: port.into(),
        default_pool_id: "servers".to_owned(),
        datapath: datapath.into(),
        ..Default::default()
    }
}
