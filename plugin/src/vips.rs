//! Size of the northbound rows that a tree asks for. Pure.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use fiberlb_northbound::plan::{Capabilities, PoolBytes, Target};
use uuid::Uuid;

use crate::datapath::{Carrier, decide, is_direct};
use crate::resources::Tree;

/// Most bytes of keys and values that the `vips` of a tree's rows take, whatever its backends' health and administrative state.
/// The rows of proxied listeners name some nodes instead of the backends: only their keys count. What is being deleted does
/// not count.
pub(crate) fn vips_bytes(tree: &Tree) -> u64 {
    if tree.load_balancer.deleting {
        return 0;
    }
    let (targets, mut known) = (pool_targets(tree), HashMap::new());
    // The row by which the responder answers for them has the VIPs alone.
    let answered = tree.load_balancer.spec.vips.iter().filter(|_| !is_direct(tree));
    let mut bytes: u64 = answered.map(|vip| vip.to_string().len() as u64).sum();
    for listener in tree.listeners.values().filter(|listener| !listener.deleting) {
        let is_in_row = decide(tree, &listener.spec, &Capabilities::ALL)
            .is_ok_and(|decision| decision.carrier == Carrier::Ovn);
        // A port further on has no fewer digits.
        let (ports, last) = (listener.spec.port_count(), *listener.spec.ports().end());
        let pools = listener.spec.pools().filter(|_| is_in_row).filter_map(|pool| {
            let (id, targets) = (pool.pool_id, targets.get(&pool.pool_id)?);
            let bytes = known.entry((id, ports)).or_insert_with(|| FamilyBytes::of(targets, ports - 1));
            Some((pool.weight, *bytes))
        });
        let pools: Vec<(u16, FamilyBytes)> = pools.collect();
        for vip in &tree.load_balancer.spec.vips {
            let key = SocketAddr::new(*vip, last).to_string();
            let list = PoolBytes::most(pools.iter().map(|(weight, bytes)| (*weight, bytes.of_family(*vip))));
            bytes += (key.len() as u64 + list) * u64::from(ports);
        }
    }
    bytes
}

/// Bytes of a pool in backend lists, by address family.
#[derive(Clone, Copy)]
struct FamilyBytes {
    v4: PoolBytes,
    v6: PoolBytes,
}

impl FamilyBytes {
    /// Bytes of targets, each so many ports above its own.
    fn of((v4, v6): &FamilyTargets, offset: u16) -> Self {
        let above = |target: &Target| {
            let port = target.address.port().saturating_add(offset);
            Target { address: SocketAddr::new(target.address.ip(), port), ..*target }
        };
        let bytes = |targets: &[Target]| PoolBytes::of(&targets.iter().map(above).collect::<Vec<_>>());
        Self { v4: bytes(v4), v6: bytes(v6) }
    }

    fn of_family(&self, vip: IpAddr) -> PoolBytes {
        if vip.is_ipv4() { self.v4 } else { self.v6 }
    }
}

/// Targets of IPv4, and of IPv6.
type FamilyTargets = (Vec<Target>, Vec<Target>);

fn pool_targets(tree: &Tree) -> HashMap<Uuid, FamilyTargets> {
    let mut targets: HashMap<Uuid, FamilyTargets> = HashMap::new();
    for backend in tree.backends.values().filter(|backend| !backend.deleting) {
        let (v4, v6) = targets.entry(backend.spec.pool_id).or_default();
        let (address, weight) = (backend.spec.address, backend.spec.weight);
        let family = if address.is_ipv4() { v4 } else { v6 };
        family.push(Target { address, weight, backup: false, enabled: true });
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::examples::{
        BACKENDS, LISTENER, LOAD_BALANCER, POOL, change, deleted, pool, put, tree,
    };
    use crate::resources::{Backend, Datapath, Listener, LoadBalancer, WeightedPool};

    #[test]
    fn keys_and_backends_of_each_vip_count() {
        let one = "10.0.0.100".len() + "10.0.0.100:80".len() + 3 * "10.0.0.11:8080,".len();
        assert_eq!(vips_bytes(&tree()), one as u64);
        let one = one + "fd00::100".len();
        let mut both = tree();
        let v6 = "fd00::100".parse().unwrap();
        change::<LoadBalancer>(&mut both, LOAD_BALANCER, |root| root.vips.push(v6));
        assert_eq!(vips_bytes(&both), (one + "[fd00::100]:80".len()) as u64, "no backend of its family");
        change::<Backend>(&mut both, BACKENDS[0], |backend| backend.weight = 2);
        assert_eq!(vips_bytes(&both), (one + "[fd00::100]:80".len() + "10.0.0.11:8080,".len()) as u64);
    }

    #[test]
    fn several_pools_may_fill_a_list() {
        const OTHER: Uuid = Uuid::from_u128(33);
        let mut tree = tree();
        put(&mut tree, OTHER, pool());
        change::<Backend>(&mut tree, BACKENDS[0], |backend| backend.pool_id = OTHER);
        let divide = |tree: &mut Tree, weights: [u16; 2]| {
            let pools = [POOL, OTHER].into_iter().zip(weights);
            let pools = pools.map(|(pool_id, weight)| WeightedPool { pool_id, weight }).collect();
            change::<Listener>(tree, LISTENER, |listener| {
                (listener.default_pool_id, listener.weighted_pools) = (None, pools);
            });
        };
        let keys = "10.0.0.100".len() + "10.0.0.100:80".len();
        divide(&mut tree, [99, 1]);
        assert_eq!(vips_bytes(&tree), (keys + 512 * "10.0.0.11:8080,".len()) as u64);
        divide(&mut tree, [1, 0]);
        assert_eq!(vips_bytes(&tree), (keys + 2 * "10.0.0.11:8080,".len()) as u64, "one has entries");
    }

    #[test]
    fn each_port_of_a_range_counts_as_the_last_one_does() {
        let mut tree = tree();
        change::<Listener>(&mut tree, LISTENER, |listener| listener.port_end = Some(100));
        change::<Backend>(&mut tree, BACKENDS[0], |backend| backend.address.set_port(9_990));
        let one = "10.0.0.100:100".len() + "10.0.0.11:10010,".len() + 2 * "10.0.0.11:8080,".len();
        assert_eq!(vips_bytes(&tree), ("10.0.0.100".len() + 21 * one) as u64);
    }

    #[test]
    fn what_is_switched_off_counts_and_what_is_deleted_or_proxied_does_not() {
        let all = vips_bytes(&tree());
        let mut off = tree();
        change::<Backend>(&mut off, BACKENDS[0], |backend| backend.admin_state_up = false);
        change::<Listener>(&mut off, LISTENER, |listener| listener.admin_state_up = false);
        assert_eq!(vips_bytes(&off), all);
        let mut proxied = tree();
        change::<Listener>(&mut proxied, LISTENER, |listener| listener.datapath = Datapath::Proxy);
        assert_eq!(vips_bytes(&proxied), "10.0.0.10010.0.0.100:80".len() as u64);
        assert_eq!(vips_bytes(&deleted(&tree())), 0);
    }
}
