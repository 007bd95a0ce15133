//! Caveats of listeners: traits of the network, or of other listeners, that keep OVN from serving all clients.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;

use uuid::Uuid;

use super::{C, Operating, Statuses, Why, alive};
use crate::datapath::{Carrier, unserved_family};
use crate::resources::{Kind, Listener};

impl Statuses<'_> {
    /// Trait of the network that keeps OVN from balancing a listener for all clients.
    pub(super) fn caveat(&self, listener: Uuid, partners: &BTreeMap<Uuid, Uuid>) -> Option<(Operating, Why)> {
        let carrier = self.observation.decision(listener)?.carrier;
        let caveats = self.observation.carried.caveats;
        if carrier == Carrier::Direct {
            return None;
        }
        if caveats.has_stateless_acls {
            let why = "stateless ACLs on its network: OVN does not balance the packets that they match";
            return Some((Operating::Degraded, Why::new(C::StatelessAcls, why)));
        }
        if let Some(why) = self.unserved_family(listener).filter(|_| carrier == Carrier::Ovn) {
            return Some((Operating::Degraded, Why::new(C::UnservedFamily, why)));
        }
        if let Some(why) = self.chained_backend(listener).filter(|_| carrier == Carrier::Ovn) {
            return Some((Operating::Degraded, Why::new(C::BackendIsVip, why)));
        }
        let why = "its network leads to a physical one: OVN serves clients within the network, and those \
                   outside by chance; DIRECT exposure serves them";
        let physical = || (Operating::Online, Why::new(C::PhysicalNetwork, why));
        caveats.is_physical.then(physical).or_else(|| self.shared_sessions(listener, partners))
    }

    /// Backend of a listener to which OVN does not lead, since it is a VIP itself.
    fn chained_backend(&self, listener: Uuid) -> Option<String> {
        let chained = &self.observation.carried.chained;
        let spec = &self.tree.listeners.get(&listener)?.spec;
        let mut backends = chained.iter().filter_map(|id| self.tree.backends.get(id));
        let backend = backends.find(|backend| spec.uses(backend.spec.pool_id))?;
        Some(format!(
            "{} is a VIP of another load balancer: OVN does not balance a second time, and drops what it sends there; \
             with datapath PROXY it is served",
            backend.spec.address.ip()
        ))
    }

    fn unserved_family(&self, listener: Uuid) -> Option<String> {
        unserved_family(self.tree, &self.tree.listeners.get(&listener)?.spec)
    }

    /// Another listener that keeps sessions at one of the backends of this one: in OVN, the two take each other's VIP for the
    /// backend's own connections to it.
    fn shared_sessions(&self, listener: Uuid, partners: &BTreeMap<Uuid, Uuid>) -> Option<(Operating, Why)> {
        let other = self.tree.called(Kind::Listener, *partners.get(&listener)?);
        let why = format!(
            "{other} has session persistence on the same backends: these cannot reach both of the listeners \
             themselves; all other clients can. datapath PROXY, or pools without persistence, serve all"
        );
        Some((Operating::Online, Why::new(C::SharedSessions, why)))
    }

    /// Listeners whose sessions OVN keeps at a backend of another one that does so too, with that one. One pass over the backends,
    /// and none where fewer than two listeners keep sessions.
    pub(super) fn session_partners(&self) -> BTreeMap<Uuid, Uuid> {
        let mut keepers: BTreeMap<Uuid, Vec<Uuid>> = BTreeMap::new();
        for listener in alive::<Listener>(self.tree) {
            let is_by_ovn = self.observation.carrier_in_force(listener.id) == Some(Carrier::Ovn);
            let pools = listener.spec.pools().filter_map(|own| self.tree.pools.get(&own.pool_id));
            for pool in pools.filter(|pool| is_by_ovn && pool.spec.persistence.is_some()) {
                keepers.entry(pool.id).or_default().push(listener.id);
            }
        }
        let mut partners = BTreeMap::new();
        if keepers.values().map(Vec::len).sum::<usize>() < 2 {
            return partners;
        }
        // The pool at which each address was met first.
        let mut first: HashMap<SocketAddr, Uuid> = HashMap::new();
        for backend in self.tree.backends.values().filter(|backend| !backend.deleting) {
            let Some(listeners) = keepers.get(&backend.spec.pool_id) else { continue };
            let other = *first.entry(backend.spec.address).or_insert(backend.spec.pool_id);
            if other == backend.spec.pool_id {
                pair(listeners, listeners, &mut partners);
            } else if let Some(others) = keepers.get(&other) {
                pair(listeners, others, &mut partners);
                pair(others, listeners, &mut partners);
            }
        }
        partners
    }
}

/// Gives each of these listeners another one of `others` as its partner, unless it has one.
fn pair(listeners: &[Uuid], others: &[Uuid], partners: &mut BTreeMap<Uuid, Uuid>) {
    for listener in listeners {
        if !partners.contains_key(listener)
            && let Some(other) = others.iter().find(|other| *other != listener)
        {
            partners.insert(*listener, *other);
        }
    }
}
