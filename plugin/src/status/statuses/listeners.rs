//! Operating statuses of listeners, by their carriers and pools.

use uuid::Uuid;

use super::{C, HasStatus as _, Obstacle, Operating, Statuses, Why, applied_generation, not_in_force};
use crate::datapath::Carrier;
use crate::resources::{Kind, Listener, Pool, Record};

impl Statuses<'_> {
    pub(super) fn listener_operating(&self, record: &Record<Listener>) -> (Operating, Why) {
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
    pub(super) fn proxies_awaited(&self, record: &Record<Listener>) -> Option<Obstacle> {
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
