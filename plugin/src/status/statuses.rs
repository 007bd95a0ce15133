//! Statuses that users see: a pure function of the stored tree and its observation.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use uuid::Uuid;

use super::reason::{StatusCode as C, Why};
use super::values::{Operating, Provisioning, Status};
use super::{ApplyFailure, FailureScope, Health, Observation, PlacedNode};
use crate::datapath::{Carrier, Decision, unserved_family};
use crate::resources::{Backend, HealthCheck, Kind, Listener, LoadBalancer, Pool, Record, Resource, Tree};

/// Progress of applying a resource.
struct Progress<'a> {
    observed_generation: u64,
    in_force: bool,
    /// Last failure that concerns it.
    failure: Option<&'a ApplyFailure>,
    provisioning: Provisioning,
}

/// The statuses of a tree.
#[derive(Clone, Copy)]
pub struct Statuses<'a> {
    tree: &'a Tree,
    observation: &'a Observation,
    waiting_for: Option<&'a str>,
}

impl<'a> Statuses<'a> {
    /// Statuses of `tree` by its observation; `waiting_for`: reason why the reconciler cannot proceed.
    pub fn new(tree: &'a Tree, observation: &'a Observation, waiting_for: Option<&'a str>) -> Self {
        Self { tree, observation, waiting_for }
    }

    /// The load balancer's.
    pub fn load_balancer(&self) -> Status {
        let record = &self.tree.load_balancer;
        let operating = if !record.spec.admin_state_up {
            (Operating::Offline, Why::new(C::SwitchedOff, "switched off"))
        } else if self.is_in_force::<LoadBalancer>(record.id) {
            self.roll_up()
        } else {
            not_in_force()
        };
        self.status(record, None, operating)
    }

    /// A listener's.
    pub fn listener(&self, record: &Record<Listener>) -> Status {
        let refused = self.observation.carried.refused.get(&record.id);
        let (operating, obstacle) = match refused {
            Some(reason) => {
                let why = Why::new(C::Refused, reason.clone());
                // What it was before goes on to serve.
                let stands = self.observation.carried.standing.contains_key(&record.id);
                let operating =
                    if stands { self.listener_operating(record) } else { (Operating::Error, why.clone()) };
                (operating, Some(Obstacle::Refusal(why)))
            }
            None => (self.listener_operating(record), self.proxies_awaited(record)),
        };
        self.status(record, obstacle, operating)
    }

    /// A pool's.
    pub fn pool(&self, record: &Record<Pool>) -> Status {
        self.status(record, None, self.pool_operating(record))
    }

    /// A backend's.
    pub fn backend(&self, record: &Record<Backend>) -> Status {
        self.status(record, None, self.backend_operating(record))
    }

    /// A health check's.
    pub fn health_check(&self, record: &Record<HealthCheck>) -> Status {
        self.status(record, None, self.health_check_operating(record))
    }

    fn is_in_force<T: Resource>(&self, id: Uuid) -> bool {
        applied_generation::<T>(self.observation, id) > 0
    }

    fn status<T: HasStatus>(
        &self,
        record: &Record<T>,
        obstacle: Option<Obstacle>,
        (operating, why): (Operating, Why),
    ) -> Status {
        let Progress { observed_generation, in_force, failure, provisioning } = self.progress(record);
        let deleting = record.deleting;
        let operating = match failure.map(|failure| failure.scope) {
            Some(FailureScope::NetworkGone) if why.code != C::SwitchedOff => Operating::Error,
            _ => operating,
        };
        let waiting = self.waiting_for.filter(|_| !in_force);
        let why = match (waiting, failure, obstacle) {
            (Some(waiting), ..) => Why::new(C::Waiting, waiting),
            (_, Some(failure), _) if failure.scope == FailureScope::NetworkGone => {
                Why::new(C::NetworkGone, failure.reason.clone())
            }
            (_, Some(failure), _) => Why::new(C::ApplyFailed, failure.reason.clone()),
            _ if in_force || deleting => why,
            (.., Some(Obstacle::Refusal(why) | Obstacle::Proxies(why))) => why,
            (.., None) if observed_generation == 0 => not_in_force().1,
            (.., None) => Why::new(C::NotInForce, "not in force yet; an earlier generation is"),
        };
        Status {
            provisioning,
            operating,
            code: why.code,
            reason: why.text,
            next_attempt_at: failure.map(|failure| failure.next_attempt_at),
            observed_generation,
        }
    }

    /// Provisioning status of a resource, which costs far less than all of its status.
    pub fn provisioning<T: HasStatus>(&self, record: &Record<T>) -> Provisioning {
        self.progress(record).provisioning
    }

    fn progress<T: HasStatus>(&self, record: &Record<T>) -> Progress<'a> {
        // A resource that was deleted and made anew under its id has fewer generations than the one before.
        let observed_generation = self.observation.observed::<T>(record.id).min(record.generation);
        let is_refused = self.observation.carried.refused.contains_key(&record.id);
        let in_force = observed_generation == record.generation && !record.deleting && !is_refused;
        let failure = self.observation.failure.as_ref();
        let failure = failure.filter(|failure| !in_force || failure.scope != FailureScope::Changes);
        let provisioning = match (record.deleting, in_force) {
            (true, _) => Provisioning::PendingDelete,
            _ if is_refused || failure.is_some() => Provisioning::Error,
            (_, true) => Provisioning::Active,
            _ if observed_generation == 0 => Provisioning::PendingCreate,
            _ => Provisioning::PendingUpdate,
        };
        Progress { observed_generation, in_force, failure, provisioning }
    }

    fn roll_up(&self) -> (Operating, Why) {
        let listeners: Vec<(Uuid, Operating)> = alive::<Listener>(self.tree)
            .map(|listener| (listener.id, self.listener(listener).operating))
            .collect();
        if listeners.is_empty() {
            return (Operating::Online, Why::new(C::NoListener, "it has no listener"));
        }
        let count =
            |wanted: Operating| listeners.iter().filter(|(_, operating)| *operating == wanted).count();
        let (total, errors, degraded, off) =
            (listeners.len(), count(Operating::Error), count(Operating::Degraded), count(Operating::Offline));
        match () {
            () if errors == total => {
                (Operating::Error, Why::new(C::AllListenersFailed, "no listener serves"))
            }
            () if errors + degraded > 0 => (
                Operating::Degraded,
                Why::new(
                    C::SomeListenersFailed,
                    format!("{} of {total} listeners have trouble", errors + degraded),
                ),
            ),
            () if off == total => {
                (Operating::Offline, Why::new(C::AllListenersOffline, "all listeners are offline"))
            }
            () => (Operating::Online, self.first_reason(&listeners)),
        }
    }

    /// Reason of the first listener that serves and has something to explain.
    fn first_reason(&self, listeners: &[(Uuid, Operating)]) -> Why {
        let partners = self.session_partners();
        let serving = listeners.iter().filter(|(_, operating)| *operating == Operating::Online);
        let caveats = serving.filter_map(|(id, _)| self.caveat(*id, &partners));
        caveats.map(|(_, why)| why).next().unwrap_or(Why::NONE)
    }

    /// Trait of the network that keeps OVN from balancing a listener for all clients.
    fn caveat(&self, listener: Uuid, partners: &BTreeMap<Uuid, Uuid>) -> Option<(Operating, Why)> {
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
    fn session_partners(&self) -> BTreeMap<Uuid, Uuid> {
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

    fn listener_operating(&self, record: &Record<Listener>) -> (Operating, Why) {
        match self.own_operating(record) {
            (Operating::Online, why) if why.code == C::None => {
                self.caveat(record.id, &self.session_partners()).unwrap_or((Operating::Online, why))
            }
            other => other,
        }
    }

    /// Operating status of a listener, its network aside.
    fn own_operating(&self, record: &Record<Listener>) -> (Operating, Why) {
        if !record.spec.admin_state_up || !self.tree.load_balancer.spec.admin_state_up {
            return (Operating::Offline, Why::new(C::SwitchedOff, "switched off: connections are refused"));
        }
        if !self.is_in_force::<Listener>(record.id) {
            return not_in_force();
        }
        let own = self.proxies_operating(record);
        let pools = record.spec.pools().filter(|own| own.weight > 0);
        let pools: Vec<&Record<Pool>> =
            pools.filter_map(|own| self.tree.pools.get(&own.pool_id)).map(AsRef::as_ref).collect();
        if pools.is_empty() {
            return (Operating::Offline, Why::new(C::NoDefaultPool, "no pool: connections are refused"));
        }
        if pools.iter().any(|pool| !self.is_in_force::<Pool>(pool.id)) {
            let why = "its new pool is not in force yet: it serves as before";
            return (Operating::Online, Why::new(C::PoolNotInForce, why));
        }
        match (own, self.roll_up_pools(&pools)) {
            (Some(own @ (Operating::Error, _)), _) => own,
            (Some(own), (Operating::NoMonitor | Operating::Online, _)) => own,
            (_, (Operating::NoMonitor, _)) => (Operating::Online, Why::NONE),
            (_, other) => other,
        }
    }

    /// Operating status of pools that share the connections of a listener: that of the only one, and of several what becomes of
    /// the shares.
    fn roll_up_pools(&self, pools: &[&Record<Pool>]) -> (Operating, Why) {
        if let [pool] = pools {
            return self.pool_operating(pool);
        }
        let of_pools = pools.iter().map(|pool| (pool.id, self.pool_operating(pool)));
        let (serving, failed): (Vec<_>, Vec<_>) = of_pools
            .partition(|(_, (operating, _))| !matches!(operating, Operating::Error | Operating::Offline));
        let named = |(id, (_, why)): &(Uuid, (Operating, Why))| {
            // That of one pool is not that of the listener.
            let text = why.text.replace(": connections are refused", "");
            format!("{}: {text}", self.tree.called(Kind::Pool, *id))
        };
        let (total, first) = (pools.len(), failed.first().map(named).unwrap_or_default());
        if serving.is_empty() {
            let is_error = failed.iter().any(|(_, (operating, _))| *operating == Operating::Error);
            let operating = if is_error { Operating::Error } else { Operating::Offline };
            let why = format!("none of {total} pools serves: connections are refused; {first}");
            return (operating, Why::new(C::SomePoolsFailed, why));
        }
        // One that is switched off is not in trouble.
        let mut troubled = failed.iter().filter(|(_, (_, why))| why.code != C::SwitchedOff);
        if let Some(troubled_pool) = troubled.next() {
            let (failed, first) = (failed.len(), named(troubled_pool));
            let why =
                format!("{failed} of {total} pools do not serve, and the others have their shares; {first}");
            return (Operating::Degraded, Why::new(C::SomePoolsFailed, why));
        }
        let degraded = serving.iter().find(|(_, (operating, _))| *operating == Operating::Degraded);
        degraded.map_or((Operating::Online, Why::NONE), |pool| {
            (Operating::Degraded, Why::new(pool.1.1.code, named(pool)))
        })
    }

    /// Trouble of a listener's proxies; `None`: there is none, or OVN carries it.
    fn proxies_operating(&self, record: &Record<Listener>) -> Option<(Operating, Why)> {
        // A refused listener may stand on proxies, which go on to serve what it was before.
        let standing = self.observation.carried.standing.get(&record.id);
        let decided = self.observation.decision(record.id).map(|decision| decision.carrier);
        standing.copied().or(decided).filter(|carrier| carrier.is_proxy())?;
        let view = &self.observation.carried.view;
        let trouble = view.trouble_of(record.id);
        if view.serving(record.id).next().is_none() {
            let why = trouble.unwrap_or_else(|| "no proxy node has said that it serves it".to_owned());
            return Some((Operating::Error, Why::new(C::NoProxy, format!("no proxy serves it: {why}"))));
        }
        trouble.map(|why| (Operating::Degraded, Why::new(C::SomeProxiesFailed, why)))
    }

    fn pool_operating(&self, record: &Record<Pool>) -> (Operating, Why) {
        if !record.spec.admin_state_up {
            return (
                Operating::Offline,
                Why::new(C::SwitchedOff, "the pool is switched off: connections are refused"),
            );
        }
        if !self.is_in_force::<Pool>(record.id) {
            return not_in_force();
        }
        let alive = || self.tree.backends_of(record.id).filter(|backend| !backend.deleting);
        if alive().next().is_none() {
            return (
                Operating::Offline,
                Why::new(C::NoBackend, "the pool has no backend: connections are refused"),
            );
        }
        let backends: Vec<_> = alive().filter(|backend| self.counts(backend)).collect();
        if backends.is_empty() {
            let why = "no backend is in force yet: connections are refused";
            return (Operating::Offline, Why::new(C::NoBackendInForce, why));
        }
        let serving =
            |backend: &&&Arc<Record<Backend>>| backend.spec.admin_state_up && backend.spec.weight > 0;
        let serving: Vec<&Record<Backend>> =
            backends.iter().filter(serving).map(|backend| &***backend).collect();
        if serving.is_empty() {
            let why = "every backend is switched off or draining: connections are refused";
            return (Operating::Offline, Why::new(C::NoBackendEnabled, why));
        }
        self.roll_up_backends(&serving)
    }

    /// Decides whether a backend counts for its pool. One that is not applied yet counts only while it
    /// replaces one that is being deleted, which serves until then.
    fn counts(&self, backend: &Record<Backend>) -> bool {
        let replaces = || self.tree.backends_of(backend.spec.pool_id).any(|other| other.deleting);
        self.is_in_force::<Backend>(backend.id) || replaces()
    }

    /// Operating status of a pool by the health of its backends.
    fn roll_up_backends(&self, backends: &[&Record<Backend>]) -> (Operating, Why) {
        let total = backends.len();
        let health = |backend: &Record<Backend>| self.observation.carried.view.health(backend.id);
        let waiting = backends.iter().filter(|backend| self.waits(backend)).count();
        let down = backends.iter().filter(|backend| matches!(health(backend), Health::Down(_))).count();
        let in_doubt =
            backends.iter().filter(|backend| matches!(health(backend), Health::Degraded(_))).count();
        let of_health = backends.iter().filter_map(|backend| trouble(backend, health(backend)));
        let stuck = backends.iter().filter_map(|backend| self.stuck(backend));
        let first = of_health.chain(stuck).next();
        let because = || first.as_ref().map(|first| format!("; {first}")).unwrap_or_default();
        let waits = if waiting == 1 { "1 waits".to_owned() } else { format!("{waiting} wait") };
        match (down, waiting, &first) {
            (0, waiting, _) if waiting == total => {
                let why =
                    format!("no backend has had a good probe yet: connections are refused{}", because());
                (Operating::Offline, Why::new(C::AwaitingProbe, why))
            }
            (down, _, _) if down == total => {
                let why = format!("all {total} backends are down: connections are refused{}", because());
                (Operating::Error, Why::new(C::AllBackendsDown, why))
            }
            (down, waiting, _) if down + waiting == total => {
                let why = format!(
                    "{down} of {total} backends are down and {waits} for a first good probe: connections are refused{}",
                    because()
                );
                (Operating::Error, Why::new(C::AllBackendsDown, why))
            }
            (_, _, None) => (Operating::Online, Why::NONE),
            (0, _, Some(first)) if in_doubt > 0 => {
                let why = format!("{in_doubt} of {total} backends are in doubt: {first}");
                (Operating::Degraded, Why::new(C::NodesDisagree, why))
            }
            (0, _, Some(first)) => {
                let why = format!("{waiting} of {total} backends have had no good probe yet: {first}");
                (Operating::Degraded, Why::new(C::AwaitingProbe, why))
            }
            (down, 0, Some(first)) => {
                let why = format!("{down} of {total} backends are down: {first}");
                (Operating::Degraded, Why::new(C::SomeBackendsDown, why))
            }
            (down, _, Some(first)) => {
                let why = format!(
                    "{down} of {total} backends are down and {waits} for a first good probe: {first}"
                );
                (Operating::Degraded, Why::new(C::SomeBackendsDown, why))
            }
        }
    }

    /// Trouble of a backend that waits for a first good probe, where its probes say nothing.
    fn stuck(&self, backend: &Record<Backend>) -> Option<String> {
        let doubts = self.doubts(backend.id).filter(|_| self.waits(backend))?;
        Some(format!("{} {doubts}", backend.spec.address))
    }

    /// Probes of a backend that say nothing: each reason once, with the nodes and the addresses that they come from.
    fn doubts(&self, backend: Uuid) -> Option<String> {
        let mut by_reason: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (node, check) in self.observation.carried.view.doubts(backend) {
            by_reason.entry(&check.reason).or_default().push(node.place());
        }
        let one = |(reason, nodes): (&str, Vec<String>)| {
            format!("probes from {} say nothing: {reason}", nodes.join(", "))
        };
        let all: Vec<String> = by_reason.into_iter().map(one).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// True for a backend that takes no connections because its health is unknown.
    fn waits(&self, backend: &Record<Backend>) -> bool {
        let carried = &self.observation.carried;
        *carried.view.health(backend.id) == Health::Unknown && !carried.unjudged.contains(&backend.id)
    }

    fn backend_operating(&self, record: &Record<Backend>) -> (Operating, Why) {
        if !record.spec.admin_state_up {
            return (Operating::Offline, Why::new(C::SwitchedOff, "switched off"));
        }
        if !self.is_in_force::<Backend>(record.id) {
            return not_in_force();
        }
        let health = self.observation.carried.view.health(record.id);
        if let Health::Down(why) = health {
            return (Operating::Offline, Why::new(C::Down, format!("checked and found down: {why}")));
        }
        if record.spec.weight == 0 {
            return (Operating::Draining, Why::new(C::WeightZero, "weight 0: no new connections"));
        }
        let doubts = self.doubts(record.id);
        let with_doubts = |text: &str| match &doubts {
            Some(doubts) => format!("{text}; {doubts}"),
            None => text.to_owned(),
        };
        match health {
            Health::Unknown if self.waits(record) => (
                Operating::Offline,
                Why::new(C::AwaitingProbe, with_doubts("waiting for its first good probe")),
            ),
            Health::Unknown => (
                Operating::NoMonitor,
                Why::new(C::NotCheckedYet, with_doubts("in rotation; nobody has checked it yet")),
            ),
            Health::Up if doubts.is_some() => {
                (Operating::Online, Why::new(C::ProbesInconclusive, with_doubts("up by its last verdict")))
            }
            Health::Up => (Operating::Online, Why::NONE),
            Health::Degraded(why) => {
                (Operating::Degraded, Why::new(C::NodesDisagree, format!("the proxy nodes disagree: {why}")))
            }
            Health::NotChecked => (
                Operating::NoMonitor,
                Why::new(C::NotChecked, "NOT_CHECKED: in rotation, and no proxy node can check it"),
            ),
            Health::Unchecked | Health::Down(_) => (Operating::NoMonitor, Why::NONE),
        }
    }

    fn health_check_operating(&self, record: &Record<HealthCheck>) -> (Operating, Why) {
        if !record.spec.admin_state_up {
            return (Operating::Offline, Why::new(C::SwitchedOff, "switched off: nothing is checked"));
        }
        if !self.is_in_force::<HealthCheck>(record.id) {
            return not_in_force();
        }
        let view = &self.observation.carried.view;
        let checkers: Vec<String> =
            view.nodes.iter().filter(|node| node.can_check()).map(PlacedNode::place).collect();
        if checkers.is_empty() {
            let why = view.trouble.clone().unwrap_or_else(|| "no proxy node is there to check".to_owned());
            return (Operating::Error, Why::new(C::NoChecker, why));
        }
        (Operating::Online, Why::new(C::Checked, format!("checked from {}", checkers.join(", "))))
    }

    /// Reason why the carrier before goes on to serve a listener.
    fn carrier_awaited(&self, record: &Record<Listener>) -> Option<Why> {
        let carried = &self.observation.carried;
        let text = match carried.standing.get(&record.id)? {
            Carrier::Ovn => {
                let trouble = carried.view.trouble_of(record.id);
                let why = trouble.map(|trouble| format!(": {trouble}")).unwrap_or_default();
                format!("no proxy serves it yet; OVN serves it as before until one does{why}")
            }
            Carrier::Proxy | Carrier::Direct if self.is_to_be_direct(record.id) => {
                "no node serves it by its VIP yet; proxies behind OVN serve it as before until one does"
                    .to_owned()
            }
            Carrier::Proxy | Carrier::Direct => {
                "no backend has had a good probe yet; proxies serve it as before until one has".to_owned()
            }
        };
        Some(Why::new(C::CarrierAwaited, text))
    }

    fn is_to_be_direct(&self, listener: Uuid) -> bool {
        self.observation.decision(listener).is_some_and(|decision| decision.carrier == Carrier::Direct)
    }

    /// Reason why proxies do not serve the present generation of a listener that is theirs.
    fn proxies_awaited(&self, record: &Record<Listener>) -> Option<Obstacle> {
        if applied_generation::<Listener>(self.observation, record.id) < record.generation
            || Listener::in_force(self.observation, record.id) == record.generation
        {
            return None;
        }
        if let Some(why) = self.carrier_awaited(record) {
            return Some(Obstacle::Proxies(why));
        }
        let why = match self.proxies_operating(record) {
            Some((_, why)) => why,
            None => Why::new(C::NotInForce, "not in force yet: the proxies serve an earlier generation"),
        };
        Some(Obstacle::Proxies(why))
    }
}

/// What keeps a resource from being in force.
enum Obstacle {
    /// It cannot be carried as it is.
    Refusal(Why),
    /// Proxies do not serve it yet.
    Proxies(Why),
}

/// Applied generation of a resource; 0: none.
fn applied_generation<T: Resource>(observation: &Observation, id: Uuid) -> u64 {
    let applied = observation.applied.as_ref();
    applied.and_then(|tree| T::find(tree, id)).map_or(0, |record| record.generation)
}

/// Operating status of a resource that has not been applied yet.
fn not_in_force() -> (Operating, Why) {
    (Operating::Offline, Why::new(C::NotInForce, "not in force yet"))
}

/// Trouble of a backend, for the status of its pool.
fn trouble(backend: &Record<Backend>, health: &Health) -> Option<String> {
    match health {
        Health::Down(why) | Health::Degraded(why) => Some(format!("{} {why}", backend.spec.address)),
        _ => None,
    }
}

fn alive<T: Resource>(tree: &Tree) -> impl Iterator<Item = &Record<T>> {
    T::records(tree).map(AsRef::as_ref).filter(|record| !record.deleting)
}

/// Kind of resource that users see with a status.
pub trait HasStatus: Resource {
    /// State that users see beside the status.
    type Detail: Clone + fmt::Debug + PartialEq + Send + Sync + 'static;

    /// Status of one.
    fn status(statuses: &Statuses<'_>, record: &Record<Self>) -> Status;

    /// State of one beside its status. `network`: the name that its tree's network has now, empty where it has none.
    fn detail(observation: &Observation, network: &str, record: &Record<Self>) -> Self::Detail;

    /// Generation of a resource that is in force; 0: none.
    fn in_force(observation: &Observation, id: Uuid) -> u64 {
        applied_generation::<Self>(observation, id)
    }
}

/// Declares the kinds whose status says all.
macro_rules! plain {
    ($($kind:ident => $status:ident),*) => {$(
        impl HasStatus for $kind {
            type Detail = ();
            fn status(statuses: &Statuses<'_>, record: &Record<Self>) -> Status {
                statuses.$status(record)
            }
            fn detail(_: &Observation, _: &str, _: &Record<Self>) {}
        }
    )*};
}

plain!(Pool => pool, Backend => backend, HealthCheck => health_check);

/// Load balancer's surroundings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadBalancerDetail {
    /// Name of its network now; empty where it has none.
    pub network_name: String,
}

impl HasStatus for LoadBalancer {
    type Detail = LoadBalancerDetail;

    fn status(statuses: &Statuses<'_>, _: &Record<Self>) -> Status {
        statuses.load_balancer()
    }

    fn detail(_: &Observation, network: &str, _: &Record<Self>) -> LoadBalancerDetail {
        LoadBalancerDetail { network_name: network.to_owned() }
    }
}

/// Carrier of a listener, as far as it is in force.
#[derive(Clone, Debug, PartialEq)]
pub struct ListenerDetail {
    /// Carrier, with the reason; `None`: nothing is in force.
    pub decision: Option<Decision>,
    /// Proxy nodes that receive new connections for it.
    pub proxies: Vec<String>,
}

impl HasStatus for Listener {
    type Detail = ListenerDetail;

    fn status(statuses: &Statuses<'_>, record: &Record<Self>) -> Status {
        statuses.listener(record)
    }

    /// Where proxies carry it, the newest generation that they serve.
    fn in_force(observation: &Observation, id: Uuid) -> u64 {
        let applied = applied_generation::<Self>(observation, id);
        match observation.decision(id) {
            None => 0,
            Some(_) if observation.carried.standing.contains_key(&id) => 0,
            Some(decision) if decision.carrier.is_proxy() => {
                applied.min(observation.carried.view.served_generation(id))
            }
            Some(_) => applied,
        }
    }

    fn detail(observation: &Observation, _: &str, record: &Record<Self>) -> ListenerDetail {
        let decision = match observation.carried.standing.get(&record.id) {
            Some(carrier) => {
                Some(Decision { carrier: *carrier, reason: "as before, until the change is in force".into() })
            }
            None => {
                let is_in_force = Self::in_force(observation, record.id) > 0;
                observation.decision(record.id).filter(|_| is_in_force).cloned()
            }
        };
        ListenerDetail { decision, proxies: observation.proxies_of(record.id).map(str::to_owned).collect() }
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

#[cfg(test)]
mod tests;
