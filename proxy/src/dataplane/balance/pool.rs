//! A pool as connections use it: its configuration, shared by all workers, and the state of its algorithm on
//! each of them.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{Ordering::SeqCst, fence},
    },
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::{
    ejection::{FailureEffect, most_ejected},
    key::ClientKeys,
    passive::Decisions,
    persistence::Persistence,
    rotation::{BackendState, Rotation},
    selection::{self, Candidate, EjectedUse, Eligible, Selector},
    weight::FineWeight,
};
use crate::{
    dataplane::{
        account::BackendLoad,
        pause::RetryPause,
        queue::PoolQueue,
        record::SelectedBy,
        spec::{Algorithm, BackendSpec, PassiveHealthSpec, PoolSpec},
    },
    proxy_protocol::Version,
};

/// A pool as it is configured. Only health and numbers of connections change, behind it.
#[derive(Debug)]
pub(in crate::dataplane) struct PoolSnapshot {
    id: Uuid,
    algorithm: Algorithm,
    members: Vec<PoolMember>,
    places: HashMap<Uuid, usize>,
    persistence: Option<Arc<Persistence>>,
    header: Option<Version>,
    drain_timeout: Option<Duration>,
    slow_start: Option<Duration>,
    passive_health: Option<PassiveHealthSpec>,
    decisions: Decisions,
    queue: Option<Arc<PoolQueue>>,
    queue_timeout: Duration,
}

/// A backend of a pool, with its state.
#[derive(Debug)]
pub(in crate::dataplane) struct PoolMember {
    spec: BackendSpec,
    identity: u64,
    state: Arc<BackendState>,
}

impl PoolMember {
    pub(in crate::dataplane) fn id(&self) -> Uuid {
        self.spec.id
    }

    pub(in crate::dataplane) fn address(&self) -> SocketAddr {
        self.spec.address
    }

    /// Number of its connections.
    pub(in crate::dataplane) fn load(&self) -> &Arc<BackendLoad> {
        &self.state.load
    }

    /// Its state, which outlives a change of the pool.
    pub(in crate::dataplane) fn state(&self) -> &Arc<BackendState> {
        &self.state
    }

    /// True if it takes connections, or would if it were not left out.
    fn is_there(&self) -> bool {
        self.spec.takes_connections() && self.state.is_up()
    }

    /// True if it takes connections at some time, as far as its limit goes.
    fn may_have_place(&self) -> bool {
        self.spec.connection_limit != Some(0)
    }

    fn candidate(&self, slow_start: Option<Duration>, may_be_ejected: bool, now: Instant) -> Candidate {
        let (weight, is_up) = (self.spec.weight, self.spec.enabled && self.state.is_up());
        let has_place = self.state.load.has_place();
        Candidate {
            up: is_up && has_place,
            is_full: is_up && !has_place && self.may_have_place(),
            ejected: may_be_ejected && self.state.ejection.is_ejected(now),
            weight: match slow_start {
                None => FineWeight::whole(weight),
                Some(slow_start) => FineWeight::growing(weight, self.state.began(now), slow_start, now),
            },
            backup: self.spec.backup,
            active: self.state.load.active(),
            identity: self.identity,
        }
    }
}

impl PoolSnapshot {
    /// Joins the configuration of a pool with the state of its backends, and the clients that an `older`
    /// snapshot remembers. Backends that took no connections in that one begin to do so `now`; those of a pool that is
    /// new have no others to begin beside.
    pub(in crate::dataplane) fn new(
        pool: &PoolSpec,
        rotation: &Rotation,
        older: Option<&Self>,
        now: Instant,
    ) -> Self {
        let members: Vec<PoolMember> =
            pool.backends.iter().map(|spec| member(pool.id, spec, rotation)).collect();
        if let Some(older) = older {
            let begins =
                |member: &&PoolMember| member.spec.takes_connections() && !older.has_taker(member.id());
            members.iter().filter(begins).for_each(|member| member.state.begin(now));
        }
        let places = members.iter().enumerate().map(|(place, member)| (member.id(), place)).collect();
        let queue = queue(pool, older);
        for member in &members {
            member.load().set_limit(member.spec.connection_limit, queue.as_ref());
        }
        let snapshot = Self {
            id: pool.id,
            algorithm: pool.algorithm,
            members,
            places,
            persistence: persistence(pool, older),
            header: pool.header,
            drain_timeout: pool.drain_timeout,
            slow_start: pool.slow_start,
            passive_health: pool.passive_health,
            decisions: Decisions::new(older.map(|older| &older.decisions)),
            queue,
            queue_timeout: pool.queue.map_or(Duration::ZERO, |queue| queue.timeout),
        };
        snapshot.readmit(now);
        snapshot
    }

    /// Ends the ejections of backends that may not be left out any more: all of a pool without a passive health check,
    /// and those above the share that may be, the next to end first. From now on this snapshot decides.
    fn readmit(&self, now: Instant) {
        let _deciding = self.decisions.take_over();
        let Some(rules) = &self.passive_health else {
            return self.members.iter().for_each(|member| member.state.ejection.forget());
        };
        let mut ejected: Vec<_> = self.ejected(now).map(|member| &member.state.ejection).collect();
        let surplus = ejected.len().saturating_sub(self.most_ejected(rules));
        ejected.sort_by_key(|ejection| ejection.until());
        ejected.iter().take(surplus).for_each(|ejection| ejection.readmit(now));
    }

    /// Members that are left out, and would take connections otherwise: those that would not are in nobody's way.
    fn ejected(&self, now: Instant) -> impl Iterator<Item = &PoolMember> {
        self.members.iter().filter(move |member| member.is_there() && member.state.ejection.is_ejected(now))
    }

    /// Most backends that may be left out at a time: a share of those that would take connections.
    fn most_ejected(&self, rules: &PassiveHealthSpec) -> usize {
        let there = self.members.iter().filter(|member| member.is_there()).count();
        most_ejected(there, rules.max_ejected_percent)
    }

    /// Counts a connection that a backend has failed, which would take others.
    fn record_failure(&self, backend: Uuid, error: &io::Error, now: Instant) -> FailureEffect {
        let member = self.places.get(&backend).and_then(|place| self.members.get(*place));
        let (Some(rules), Some(member)) = (&self.passive_health, member.filter(|member| member.is_there()))
        else {
            return FailureEffect::Counted;
        };
        // A connection may outlive the configuration that it was begun under.
        let Some(_deciding) = self.decisions.decide() else { return FailureEffect::Counted };
        let may_eject = || self.ejected(now).count() < self.most_ejected(rules);
        member.state.ejection.fail(rules, error, may_eject, now)
    }

    /// True if a backend is among those that take connections, as far as its health goes.
    fn has_taker(&self, backend: Uuid) -> bool {
        let member = self.places.get(&backend).and_then(|place| self.members.get(*place));
        member.is_some_and(|member| member.spec.takes_connections())
    }

    pub(in crate::dataplane) fn id(&self) -> Uuid {
        self.id
    }
}

fn member(pool: Uuid, spec: &BackendSpec, rotation: &Rotation) -> PoolMember {
    let state = rotation.state(pool, spec.id, spec.starts_in_rotation);
    state.set_takes_connections(spec.takes_connections());
    PoolMember { identity: selection::identity(spec.id), state, spec: spec.clone() }
}

fn persistence(pool: &PoolSpec, older: Option<&PoolSnapshot>) -> Option<Arc<Persistence>> {
    let timeout = pool.persistence?.timeout;
    let kept = older.and_then(|older| older.persistence.as_ref()).filter(|table| table.timeout() == timeout);
    Some(kept.map_or_else(|| Arc::new(Persistence::new(timeout)), Arc::clone))
}

/// The reason why an algorithm's choice is what it is.
fn selected_by(algorithm: Algorithm) -> SelectedBy {
    match algorithm {
        Algorithm::RoundRobin => SelectedBy::RoundRobin,
        Algorithm::LeastConnections => SelectedBy::LeastConnections,
        Algorithm::SourceIp => SelectedBy::SourceIp,
        Algorithm::SourceIpPort => SelectedBy::SourceIpPort,
        Algorithm::Random => SelectedBy::Random,
        Algorithm::PowerOfTwoChoices => SelectedBy::PowerOfTwoChoices,
    }
}

/// The queue of a pool, with those who wait in it already.
fn queue(pool: &PoolSpec, older: Option<&PoolSnapshot>) -> Option<Arc<PoolQueue>> {
    let limit = pool.queue?.limit;
    let older = older.and_then(|older| older.queue.as_ref());
    let queue = older.map_or_else(|| PoolQueue::new(limit), Arc::clone);
    queue.set_limit(limit);
    Some(queue)
}

/// A pool on one worker.
#[derive(Debug)]
pub(in crate::dataplane) struct WorkerPool {
    snapshot: Arc<PoolSnapshot>,
    selection: RefCell<Selection>,
    /// After a search among the backends in which none had a route.
    pub(in crate::dataplane) unreachable: RetryPause,
}

/// State of the selection on one worker.
#[derive(Debug)]
struct Selection {
    selector: Selector,
    /// Buffer that selections reuse.
    eligible: Vec<Eligible>,
}

impl WorkerPool {
    /// The pool on worker number `worker`, with the state that the algorithm had in an `older` one.
    pub(in crate::dataplane) fn new(
        snapshot: Arc<PoolSnapshot>,
        worker: usize,
        older: Option<&Self>,
    ) -> Self {
        let random = fastrand::Rng::new();
        let mut selector = Selector::new(snapshot.algorithm, snapshot.members.len(), worker, random);
        if let Some(older) = older {
            selector.inherit(&older.selection.borrow().selector, |place| {
                snapshot
                    .members
                    .get(place)
                    .and_then(|member| older.snapshot.places.get(&member.id()).copied())
            });
        }
        let selection = RefCell::new(Selection { selector, eligible: Vec::new() });
        let pool = Self { snapshot, selection, unreachable: RetryPause::default() };
        // There may be places in the new one, or none for ever.
        older.into_iter().chain([&pool]).for_each(Self::wake);
        pool
    }

    /// FiberLB's id.
    pub(in crate::dataplane) fn id(&self) -> Uuid {
        self.snapshot.id
    }

    /// True if connections of one address are to meet one backend, whichever ports they come from.
    pub(in crate::dataplane) fn knows_clients_by_address(&self) -> bool {
        self.snapshot.persistence.is_some() || self.snapshot.algorithm == Algorithm::SourceIp
    }

    /// Header that each connection to a backend begins with.
    pub(in crate::dataplane) fn header(&self) -> Option<Version> {
        self.snapshot.header
    }

    /// Time for which connections of a removed backend may go on; None: without a deadline.
    pub(in crate::dataplane) fn drain_timeout(&self) -> Option<Duration> {
        self.snapshot.drain_timeout
    }

    /// True if a backend is in the pool, enabled, of some weight, and in rotation by its health; a backup that is not
    /// needed is there, too.
    pub(in crate::dataplane) fn is_there(&self, backend: Uuid) -> bool {
        let member = self.place(backend).and_then(|place| self.snapshot.members.get(place));
        member.is_some_and(PoolMember::is_there)
    }

    /// Queue of the clients that wait for a place at a backend.
    pub(in crate::dataplane) fn queue(&self) -> Option<&Arc<PoolQueue>> {
        self.snapshot.queue.as_ref()
    }

    /// Time for which a client may wait.
    pub(in crate::dataplane) fn queue_timeout(&self) -> Duration {
        self.snapshot.queue_timeout
    }

    /// Wakes the first client that waits.
    pub(in crate::dataplane) fn wake(&self) {
        if let Some(queue) = self.queue() {
            queue.wake();
        }
    }

    /// Makes whatever may give a place from now on wake the first client that waits; what has done so before is seen by who
    /// looks afterwards.
    pub(in crate::dataplane) fn await_places(&self) {
        self.snapshot.members.iter().for_each(|member| member.load().await_place());
        // Who has not seen by now that a place is awaited has left one that is seen from now on.
        fence(SeqCst);
    }

    /// True if a backend that was not tried takes connections, as far as there are places.
    pub(in crate::dataplane) fn has_backends(&self, tried: &[usize]) -> bool {
        let mut members = self.snapshot.members.iter().enumerate();
        members.any(|(place, member)| member.is_there() && !tried.contains(&place))
    }

    /// True if a backend that was not tried will have a place: none is awaited of those that have no part of their limit on
    /// this node.
    pub(in crate::dataplane) fn awaits_places(&self, tried: &[usize]) -> bool {
        let mut members = self.snapshot.members.iter().enumerate();
        members.any(|(place, member)| member.is_there() && member.may_have_place() && !tried.contains(&place))
    }

    /// Places here of the backends that have these ones in an older pool.
    pub(in crate::dataplane) fn places_of(&self, older: &Self, places: &[usize]) -> Vec<usize> {
        let ids = places.iter().filter_map(|place| older.snapshot.members.get(*place)).map(PoolMember::id);
        ids.filter_map(|id| self.place(id)).collect()
    }

    /// True if it has a passive health check.
    pub(in crate::dataplane) fn checks_passively(&self) -> bool {
        self.snapshot.passive_health.is_some()
    }

    /// True if it is of this very snapshot.
    pub(in crate::dataplane) fn is_of(&self, snapshot: &Arc<PoolSnapshot>) -> bool {
        Arc::ptr_eq(&self.snapshot, snapshot)
    }

    /// Connections of a backend.
    pub(in crate::dataplane) fn load(&self, backend: Uuid) -> Option<&Arc<BackendLoad>> {
        self.snapshot.members.get(self.place(backend)?).map(PoolMember::load)
    }

    /// The place of a backend.
    pub(in crate::dataplane) fn place(&self, backend: Uuid) -> Option<usize> {
        self.snapshot.places.get(&backend).copied()
    }

    /// True if a backend is in the pool at this address, and enabled. One that drains or is down is.
    pub(in crate::dataplane) fn keeps(&self, backend: Uuid, address: SocketAddr) -> bool {
        let member = self.place(backend).and_then(|place| self.snapshot.members.get(place));
        member.is_some_and(|member| member.spec.enabled && member.spec.address == address)
    }

    /// Keys of a client of which no more is known than its address: its own, or the one that its proxy has stated.
    pub(in crate::dataplane) fn keys_of_peer(&self, client: SocketAddr) -> ClientKeys {
        ClientKeys::of_peer(client, self.snapshot.algorithm, self.snapshot.persistence.is_some())
    }

    /// The next backend to try for a client, with its place, which belongs into `tried` if it fails, and why it is this
    /// one. None: none is left.
    pub(in crate::dataplane) fn next(
        &self,
        client: &ClientKeys,
        tried: &[usize],
        ejected: EjectedUse,
        now: Instant,
    ) -> Option<(usize, &PoolMember, SelectedBy)> {
        let members = &self.snapshot.members;
        let mut selection = self.selection.borrow_mut();
        let Selection { selector, eligible } = &mut *selection;
        let (slow_start, may_be_ejected) = (self.snapshot.slow_start, self.snapshot.passive_health.is_some());
        let candidates = members.iter().map(|member| member.candidate(slow_start, may_be_ejected, now));
        selection::collect_eligible(candidates, tried, ejected, eligible);
        let remembered = self.remembered(client, eligible, now).map(|place| (place, SelectedBy::Persistence));
        let selected = || match client.remembered {
            Some(key) => Some((selection::of_key(key, eligible)?, SelectedBy::SourceIp)),
            None => Some((selector.select(client.hashed, eligible)?, selected_by(self.snapshot.algorithm))),
        };
        let (place, by) = remembered.or_else(selected)?;
        members.get(place).map(|member| (place, member, by))
    }

    /// The place of the backend that the client had, while it is eligible.
    fn remembered(&self, client: &ClientKeys, eligible: &[Eligible], now: Instant) -> Option<usize> {
        let had = self.snapshot.persistence.as_ref()?.find(client.remembered?, now)?;
        let place = *self.snapshot.places.get(&had)?;
        eligible.iter().any(|candidate| candidate.index == place).then_some(place)
    }

    /// Counts a connection that a backend has failed, for the passive health check, if there is one.
    pub(in crate::dataplane) fn record_failure(
        &self,
        backend: Uuid,
        error: &io::Error,
        now: Instant,
    ) -> FailureEffect {
        self.snapshot.record_failure(backend, error, now)
    }

    /// Records that the client has reached a backend.
    pub(in crate::dataplane) fn remember(&self, client: &ClientKeys, backend: Uuid, now: Instant) {
        if let (Some(table), Some(key)) = (&self.snapshot.persistence, client.remembered) {
            table.remember(key, backend, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: PassiveHealthSpec = PassiveHealthSpec {
        consecutive_failures: 2,
        ejection: Duration::from_secs(10),
        max_ejection: Duration::from_secs(60),
        max_ejected_percent: 40,
    };

    /// A pool of backends with these weights.
    fn spec(weights: &[u16], percent: u8) -> PoolSpec {
        let backend = |(weight, number): (&u16, u128)| BackendSpec {
            id: Uuid::from_u128(number),
            address: ([10, 0, 0, 1], 80).into(),
            weight: *weight,
            backup: false,
            enabled: true,
            connection_limit: None,
            starts_in_rotation: true,
        };
        PoolSpec {
            id: Uuid::nil(),
            algorithm: Algorithm::RoundRobin,
            persistence: None,
            header: None,
            drain_timeout: None,
            slow_start: None,
            passive_health: Some(PassiveHealthSpec { max_ejected_percent: percent, ..RULES }),
            queue: None,
            backends: weights.iter().zip(1..).map(backend).collect(),
        }
    }

    fn refused() -> io::Error {
        io::ErrorKind::ConnectionRefused.into()
    }

    #[test]
    fn a_backend_that_was_left_out_begins_anew_when_it_is_back() {
        let (rotation, now) = (Rotation::default(), Instant::now());
        let snapshot = PoolSnapshot::new(&spec(&[1, 1], 50), &rotation, None, now);
        let id = Uuid::from_u128(1);
        assert_eq!(snapshot.record_failure(id, &refused(), now), FailureEffect::Counted);
        let effect = snapshot.record_failure(id, &refused(), now);
        assert_eq!(effect, FailureEffect::Ejected { number: 1, duration: RULES.ejection });
        let state = snapshot.members[0].state();
        assert_eq!(state.began(now + RULES.ejection / 2), None);
        let back = state.began(now + RULES.ejection).unwrap();
        assert!(now + RULES.ejection - back < Duration::from_millis(2), "to the millisecond");
        // Also when the record of the ejection is dropped, since the backend has served for as long.
        let served = now + RULES.ejection * 2;
        assert!(state.succeed(now + RULES.ejection) && !state.succeed(served) && !state.is_watched());
        assert_eq!(state.began(served), Some(back));
        let without = PoolSpec { passive_health: None, ..spec(&[1, 1], 50) };
        let snapshot = PoolSnapshot::new(&without, &rotation, Some(&snapshot), served);
        assert_eq!(snapshot.members[0].state().began(served), None);
    }

    #[test]
    fn one_that_takes_no_connections_is_not_of_those_left_out_and_begins_anew_when_it_is_back() {
        let (rotation, now) = (Rotation::default(), Instant::now());
        let snapshot = PoolSnapshot::new(&spec(&[1, 1, 1, 0], 50), &rotation, None, now);
        let fail = |number: u128| {
            let _first = snapshot.record_failure(Uuid::from_u128(number), &refused(), now);
            snapshot.record_failure(Uuid::from_u128(number), &refused(), now)
        };
        let out = FailureEffect::Ejected { number: 1, duration: RULES.ejection };
        assert_eq!([fail(4), fail(1), fail(2)], [FailureEffect::Counted, out, FailureEffect::Withheld]);
        rotation.set_health(Uuid::from_u128(1), false);
        assert_eq!([fail(1), fail(2)], [FailureEffect::Counted, out], "one that is down leaves its place");
        assert_eq!(fail(3), FailureEffect::Withheld, "half of two");
        rotation.set_health(Uuid::from_u128(1), true);
        let now = now + Duration::from_secs(1);
        let ids = |snapshot: &PoolSnapshot| {
            snapshot.ejected(now).map(|member| member.id().as_u128()).collect::<Vec<_>>()
        };
        assert_eq!(ids(&snapshot), [2], "and takes none when it is back");
        // Nor does one that a configuration switches off, until another switches it on.
        let mut off = spec(&[1, 1, 1, 0], 50);
        off.backends[1].enabled = false;
        let next = PoolSnapshot::new(&off, &rotation, Some(&snapshot), now);
        assert!(ids(&next).is_empty());
        for _ in 0..2 {
            next.record_failure(Uuid::from_u128(3), &refused(), now);
        }
        assert_eq!(ids(&next), [3]);
        let last = PoolSnapshot::new(&spec(&[1, 1, 1, 0], 50), &rotation, Some(&next), now);
        assert_eq!(ids(&last).len(), 1);
    }

    #[test]
    fn a_configuration_that_was_replaced_decides_nothing() {
        let (rotation, now) = (Rotation::default(), Instant::now());
        let (with, id) = (spec(&[1, 1], 50), Uuid::from_u128(1));
        let without = PoolSpec { passive_health: None, ..with.clone() };
        let first = PoolSnapshot::new(&with, &rotation, None, now);
        let fail = |snapshot: &PoolSnapshot| {
            for _ in 0..4 {
                snapshot.record_failure(id, &refused(), now);
            }
            let state = rotation.state(Uuid::nil(), id, true);
            (state.ejection.until().is_some(), state.is_watched())
        };
        let second = PoolSnapshot::new(&without, &rotation, Some(&first), now);
        assert_eq!([fail(&first), fail(&second)], [(false, false); 2]);
        let third = PoolSnapshot::new(&with, &rotation, Some(&second), now);
        assert_eq!([fail(&first), fail(&second)], [(false, false); 2]);
        assert_eq!(fail(&third), (true, true));
    }

    proptest! {
        #[test]
        fn never_are_more_left_out_than_may_be(
            steps in prop::collection::vec((0_u8..14, 0_usize..12, any::<u8>(), 0_u64..8_000), 1..300),
        ) {
            // A health is set at the time of the machine, which stays behind that of the steps.
            let (rotation, mut now) = (Rotation::default(), Instant::now() + Duration::from_secs(3_600));
            let mut pool = spec(&[1; 10], RULES.max_ejected_percent);
            let mut snapshot = PoolSnapshot::new(&pool, &rotation, None, now);
            // Connections of these are still in flight.
            let mut replaced: Vec<PoolSnapshot> = Vec::new();
            for (action, index, number, millis) in steps {
                now += Duration::from_millis(millis);
                let id = Uuid::from_u128(index as u128 + 1);
                let (before, out_before) = (pool.clone(), snapshot.ejected(now).count());
                match action {
                    0 => pool = spec(&vec![1; usize::from(number % 12)], 1 + number % 100),
                    1 => {
                        for backend in pool.backends.iter_mut().skip(index).take(1) {
                            (backend.weight, backend.enabled) = (u16::from(number % 2), number % 5 > 0);
                        }
                    }
                    2 if number % 4 == 0 => pool.passive_health = None,
                    3 => rotation.set_health(id, number % 2 == 0),
                    4 => {
                        rotation.state(Uuid::nil(), id, true).succeed(now);
                    }
                    5..8 => {
                        let old = replaced.get(usize::from(number).checked_rem(replaced.len()).unwrap_or(0));
                        let until = || rotation.state(Uuid::nil(), id, true).ejection.until();
                        let before = until();
                        let effect = old.map(|old| old.record_failure(id, &refused(), now));
                        prop_assert!(until() == before);
                        prop_assert!(effect.is_none_or(|effect| effect == FailureEffect::Counted));
                    }
                    _ => {
                        snapshot.record_failure(id, &refused(), now);
                    }
                }
                if pool != before {
                    let next = PoolSnapshot::new(&pool, &rotation, Some(&snapshot), now);
                    replaced.push(std::mem::replace(&mut snapshot, next));
                }
                let there = snapshot.members.iter().filter(|member| member.is_there()).count();
                let most = pool.passive_health.map_or(0, |rules| most_ejected(there, rules.max_ejected_percent));
                let out = snapshot.ejected(now).count();
                // One that goes down may leave too many out, which then become no more.
                prop_assert!(out <= most || out <= out_before && pool == before);
                if pool.passive_health.is_none() {
                    prop_assert!(pool.backends.iter().all(|it| rotation.state(Uuid::nil(), it.id, true).ejection.until().is_none()));
                }
            }
        }
    }
}
