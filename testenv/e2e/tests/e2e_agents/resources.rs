//! Resources that tenants create in these tests.

use std::net::SocketAddr;

use fiberlb_proto::v1;
use prost_types::Duration;
use uuid::Uuid;

use crate::common::tree;
use crate::site::BACKEND_PORT;

/// VIPs of load balancers that OVN rows carry.
pub(crate) const VIPS: [&str; 2] = ["10.0.0.100", "fd00::100"];
/// VIPs of load balancers that one node at a time carries.
pub(crate) const DIRECT_VIPS: [&str; 2] = ["10.0.0.101", "fd00::101"];
/// Port that OVN balances.
pub(crate) const OVN_PORT: u16 = 80;
/// Port that proxies serve behind an OVN row.
pub(crate) const PROXY_PORT: u16 = 81;

/// Probes in a row that take a backend out, and bring it back.
pub(crate) const FALL: u32 = 2;
pub(crate) const RISE: u32 = 2;
/// Time between probes, and for one, in seconds.
pub(crate) const DELAY_S: u32 = 1;
pub(crate) const TIMEOUT_S: u32 = 1;

/// A load balancer on a VIP of each family, with one pool `web` of backends by IPv4 and IPv6 address alike, checked by
/// TCP, and no listener.
pub(crate) fn load_balancer(
    name: &str,
    network: Uuid,
    vips: [&str; 2],
    backends: &[u8],
) -> v1::LoadBalancerTree {
    let mut tree = load_balancer_v4(name, network, vips[0], backends);
    let vip = v1::AdditionalVip { address: vips[1].to_owned(), ..Default::default() };
    tree.load_balancer.as_mut().unwrap().additional_vips.push(vip);
    let sixes = backends.iter().map(|number| backend(&format!("fd00::{number}")));
    tree.pools[0].backends.extend(sixes);
    tree
}

/// The same on one IPv4 VIP, with IPv4 backends alone.
pub(crate) fn load_balancer_v4(
    name: &str,
    network: Uuid,
    vip: &str,
    backends: &[u8],
) -> v1::LoadBalancerTree {
    let backends: Vec<String> = backends.iter().map(|number| entry(*number)).collect();
    let mut tree = tree(name, network, vip, &backends.iter().map(String::as_str).collect::<Vec<_>>());
    tree.listeners.clear();
    tree.pools[0].health_check = Some(check());
    tree
}

/// The same with a listener that OVN carries and one that proxies carry behind an OVN row.
pub(crate) fn on_both(tree: v1::LoadBalancerTree) -> v1::LoadBalancerTree {
    let proxied = v1::Listener { datapath: v1::Datapath::Proxy.into(), ..listener(PROXY_PORT) };
    v1::LoadBalancerTree { listeners: vec![listener(OVN_PORT), proxied], ..tree }
}

/// The same with a listener whose VIP is on one node at a time.
pub(crate) fn on_one_node(tree: v1::LoadBalancerTree) -> v1::LoadBalancerTree {
    let direct = v1::Listener { exposure: v1::Exposure::Direct.into(), ..listener(OVN_PORT) };
    v1::LoadBalancerTree { listeners: vec![direct], ..tree }
}

/// A TCP listener with the pool `web`.
pub(crate) fn listener(port: u16) -> v1::Listener {
    v1::Listener {
        protocol: v1::ListenerProtocol::Tcp.into(),
        port: port.into(),
        default_pool_id: "web".to_owned(),
        ..Default::default()
    }
}

/// A backend on [`BACKEND_PORT`].
pub(crate) fn backend(address: &str) -> v1::Backend {
    v1::Backend { address: address.to_owned(), port: BACKEND_PORT.into(), ..Default::default() }
}

/// A TCP check.
pub(crate) fn check() -> v1::HealthCheck {
    v1::HealthCheck {
        r#type: v1::HealthCheckType::Tcp.into(),
        delay: Some(seconds(DELAY_S)),
        timeout: Some(seconds(TIMEOUT_S)),
        rise: RISE,
        fall: FALL,
        ..Default::default()
    }
}

fn seconds(seconds: u32) -> Duration {
    Duration { seconds: seconds.into(), nanos: 0 }
}

/// Longest time for which connections may still go to a failed backend, given the check of [`check`].
pub(crate) fn limit() -> std::time::Duration {
    let probes = f64::from(FALL) * f64::from(DELAY_S) * 1.1 + f64::from(TIMEOUT_S);
    std::time::Duration::from_secs_f64(probes + 1.0)
}

/// `VIP:PORT` as a socket address.
pub(crate) fn at(vip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(vip.parse().unwrap(), port)
}

/// The two IPv4 targets of a load balancer of [`on_both`]: by OVN, by proxies.
pub(crate) fn both_targets() -> [SocketAddr; 2] {
    [at(VIPS[0], OVN_PORT), at(VIPS[0], PROXY_PORT)]
}

/// `ADDRESS:PORT` of a backend by number, as OVN lists it.
pub(crate) fn entry(number: u8) -> String {
    format!("10.0.0.{number}:{BACKEND_PORT}")
}
