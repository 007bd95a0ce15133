//! Load balancers that tenants of both releases have, and what of them is compared between releases. Pure.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::{Result, ensure};
use fiberlb_proto::v1;
use uuid::Uuid;

/// Port that backends listen on.
pub(crate) const BACKEND_PORT: u16 = 8080;
/// Addresses of backends that are there.
pub(crate) const BACKENDS: [&str; 2] = ["10.0.0.11", "10.0.0.12"];
/// Address of a backend that is never there, so that a status has something to say.
pub(crate) const ABSENT: &str = "10.0.0.13";
/// The target's listener that OVN carries, and the one that proxies carry.
pub(crate) const SHOP: [([u8; 4], u16); 2] = [([10, 0, 0, 100], 80), ([10, 0, 0, 100], 81)];
/// VIP that is on one node at a time.
pub(crate) const DIRECT_VIP: &str = "10.0.0.101";

/// The target's addresses: by OVN, by proxies.
#[must_use]
pub(crate) fn shop_targets() -> [SocketAddr; 2] {
    SHOP.map(SocketAddr::from)
}

/// The load balancer that clients connect through, on both datapaths.
#[must_use]
pub(crate) fn target(network: Uuid) -> v1::LoadBalancerTree {
    let [ovn, proxied] = SHOP.map(|(_, port)| listener(port));
    let proxied = v1::Listener { datapath: v1::Datapath::Proxy.into(), ..proxied };
    let mut target = tree("shop", network, "10.0.0.100", vec![ovn, proxied]);
    for pool in &mut target.pools {
        pool.health_check = Some(check(v1::HealthCheckType::Tcp));
        pool.backends.push(backend(ABSENT));
    }
    target
}

/// One with a VIP of its own on a node, and settings that only proxies have.
#[must_use]
pub(crate) fn direct(network: Uuid) -> v1::LoadBalancerTree {
    let listener = v1::Listener { exposure: v1::Exposure::Direct.into(), ..listener(80) };
    let mut direct = tree("direct", network, DIRECT_VIP, vec![listener]);
    for pool in direct.pools.iter_mut().filter_map(|pool| pool.pool.as_mut()) {
        let kind = v1::SessionPersistenceType::SourceIp.into();
        pool.session_persistence = Some(v1::SessionPersistence { r#type: kind, ..Default::default() });
    }
    direct
}

/// One with names, tags, weights, UDP, what is switched off, and a VIP that FiberLB chooses.
#[must_use]
pub(crate) fn varied(network: Uuid) -> v1::LoadBalancerTree {
    let udp = v1::Listener { protocol: v1::ListenerProtocol::Udp.into(), ..listener(53) };
    let off = v1::Listener { admin_state_up: Some(false), name: "off".to_owned(), ..listener(8443) };
    let mut varied = tree("varied", network, "", vec![listener(80), off]);
    if let Some(root) = varied.load_balancer.as_mut() {
        root.description = "written by another release".to_owned();
        root.tags = vec!["a".to_owned(), "b".to_owned()];
    }
    for pool in &mut varied.pools {
        for (backend, weight) in pool.backends.iter_mut().zip(2..) {
            backend.weight = Some(weight);
        }
    }
    let pool =
        v1::Pool { name: "names".to_owned(), protocol: v1::PoolProtocol::Udp.into(), ..Default::default() };
    let backends = BACKENDS.map(|address| v1::Backend { port: 53, ..backend(address) });
    varied.pools.push(v1::PoolTree { pool: Some(pool), backends: backends.into(), health_check: None });
    varied.listeners.push(v1::Listener { default_pool_id: "names".to_owned(), ..udp });
    varied
}

/// A small one, to be made and deleted.
#[must_use]
pub(crate) fn small(name: &str, network: Uuid) -> v1::LoadBalancerTree {
    tree(name, network, "", vec![listener(80)])
}

fn tree(name: &str, network: Uuid, vip: &str, listeners: Vec<v1::Listener>) -> v1::LoadBalancerTree {
    let load_balancer = v1::LoadBalancer {
        name: name.to_owned(),
        network: network.to_string(),
        vip_address: vip.to_owned(),
        ..Default::default()
    };
    let pool =
        v1::Pool { name: "web".to_owned(), protocol: v1::PoolProtocol::Tcp.into(), ..Default::default() };
    let backends = BACKENDS.map(backend).into();
    let pools = vec![v1::PoolTree { pool: Some(pool), backends, health_check: None }];
    v1::LoadBalancerTree { load_balancer: Some(load_balancer), listeners, pools, ..Default::default() }
}

fn listener(port: u16) -> v1::Listener {
    v1::Listener {
        protocol: v1::ListenerProtocol::Tcp.into(),
        port: port.into(),
        default_pool_id: "web".to_owned(),
        ..Default::default()
    }
}

fn backend(address: &str) -> v1::Backend {
    v1::Backend { address: address.to_owned(), port: BACKEND_PORT.into(), ..Default::default() }
}

fn check(kind: v1::HealthCheckType) -> v1::HealthCheck {
    let second = || Some(prost_types::Duration { seconds: 1, nanos: 0 });
    v1::HealthCheck {
        r#type: kind.into(),
        delay: second(),
        timeout: second(),
        rise: 2,
        fall: 2,
        ..Default::default()
    }
}

/// Lines of what users of any release see of a tree, one for each resource. Texts, which releases may word differently, and
/// fields that only one of them knows are left out.
#[must_use]
pub(crate) fn shown(tree: &v1::LoadBalancerTree) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    let mut note = |kind: &str, id: &str, state: Option<&v1::ResourceState>, what: String| {
        lines.insert(format!("{kind} {id} {} {what}", state.map(status).unwrap_or_default()));
    };
    if let Some(it) = &tree.load_balancer {
        let what = format!("{} {} {} {:?}", it.name, it.vip_address, it.description, it.tags);
        note("load balancer", &it.id, it.state.as_ref(), what);
    }
    for it in &tree.listeners {
        let (path, nodes) = (it.datapath_in_force(), &it.proxy_node_ids);
        let what = format!("{:?} {} {path:?} {nodes:?} {:?}", it.protocol(), it.port, it.admin_state_up);
        note("listener", &it.id, it.state.as_ref(), what);
    }
    for pool in &tree.pools {
        if let Some(it) = &pool.pool {
            note("pool", &it.id, it.state.as_ref(), format!("{} {:?}", it.name, it.protocol()));
        }
        for it in &pool.backends {
            let what = format!("{}:{} {:?}", it.address, it.port, it.weight);
            note("backend", &it.id, it.state.as_ref(), what);
        }
        if let Some(it) = &pool.health_check {
            note("health check", &it.id, it.state.as_ref(), format!("{:?} {:?}", it.r#type(), it.delay));
        }
    }
    lines
}

fn status(state: &v1::ResourceState) -> String {
    let (provisioning, operating) = (state.provisioning_status(), state.operating_status());
    let generations = format!("{}/{}", state.observed_generation, state.generation);
    format!("{} {generations} {provisioning:?} {operating:?}", state.etag)
}

/// True if all of a tree is in force.
#[must_use]
pub(crate) fn is_active(tree: &v1::LoadBalancerTree) -> bool {
    let states = tree.load_balancer.iter().map(|it| it.state.as_ref());
    let states = states.chain(tree.listeners.iter().map(|it| it.state.as_ref()));
    let mut states = states.chain(backends(tree).map(|it| it.state.as_ref()));
    states.all(|it| it.is_some_and(|it| it.provisioning_status() == v1::ProvisioningStatus::Active))
}

/// All backends of a tree.
pub(crate) fn backends(tree: &v1::LoadBalancerTree) -> impl Iterator<Item = &v1::Backend> {
    tree.pools.iter().flat_map(|pool| &pool.backends)
}

/// Operating status of the backend with an address.
#[must_use]
pub(crate) fn fares(tree: &v1::LoadBalancerTree, address: &str) -> v1::OperatingStatus {
    let found = backends(tree).find(|it| it.address == address);
    found.and_then(|it| it.state.as_ref()).map(v1::ResourceState::operating_status).unwrap_or_default()
}

/// Fails if two sets of lines are not the same; says how many differ, and the first of each.
///
/// # Errors
/// They differ.
pub(crate) fn same(before: &BTreeSet<String>, after: &BTreeSet<String>) -> Result<()> {
    let gone: Vec<&String> = before.difference(after).collect();
    let come: Vec<&String> = after.difference(before).collect();
    let first = |lines: &[&String]| lines.first().map_or("nothing".to_owned(), |line| (*line).clone());
    let (was, is) = (first(&gone), first(&come));
    ensure!(
        was == is,
        "{} lines are gone and {} have come, such as {is} instead of {was}",
        gone.len(),
        come.len()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_that_changes_is_a_difference_and_its_reason_is_none() {
        let mut tree = target(Uuid::nil());
        let before = shown(&tree);
        let state = |reason: &str, operating: v1::OperatingStatus| {
            let reason = reason.to_owned();
            Some(v1::ResourceState { reason, operating_status: operating.into(), ..Default::default() })
        };
        tree.pools[0].backends[0].state = state("found down", v1::OperatingStatus::Offline);
        let down = shown(&tree);
        let differs = same(&before, &down).unwrap_err().to_string();
        assert!(differs.starts_with("1 lines are gone and 1 have come"), "{differs}");
        tree.pools[0].backends[0].state = state("is down", v1::OperatingStatus::Offline);
        same(&down, &shown(&tree)).unwrap();
    }
}
