//! A pool as connections use it: its configuration, shared by all workers, and the state of its algorithm on
//! each of them.

use std::{
    cell::RefCell,
    collections::HashMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::{
    key::ClientKeys,
    persistence::Persistence,
    rotation::{BackendState, Rotation},
    selection::{self, Candidate, Eligible, Selector},
    weight::FineWeight,
};
use crate::{
    dataplane::{
        account::BackendLoad,
        record::SelectedBy,
        spec::{Algorithm, BackendSpec, PoolSpec},
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

    fn candidate(&self, slow_start: Option<Duration>, now: Instant) -> Candidate {
        let weight = self.spec.weight;
        Candidate {
            up: self.spec.enabled && self.state.is_up(),
            weight: match slow_start {
                None => FineWeight::whole(weight),
                Some(slow_start) => FineWeight::growing(weight, self.state.began(), slow_start, now),
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
        let members: Vec<PoolMember> = pool.backends.iter().map(|spec| member(spec, rotation)).collect();
        if let Some(older) = older {
            let begins =
                |member: &&PoolMember| member.spec.takes_connections() && !older.has_taker(member.id());
            members.iter().filter(begins).for_each(|member| member.state.begin(now));
        }
        let places = members.iter().enumerate().map(|(place, member)| (member.id(), place)).collect();
        Self {
            id: pool.id,
            algorithm: pool.algorithm,
            members,
            places,
            persistence: persistence(pool, older),
            header: pool.header,
            drain_timeout: pool.drain_timeout,
            slow_start: pool.slow_start,
        }
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

fn member(spec: &BackendSpec, rotation: &Rotation) -> PoolMember {
    PoolMember {
        identity: selection::identity(spec.id),
        state: rotation.state(spec.id, spec.starts_in_rotation),
        spec: spec.clone(),
    }
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

/// A pool on one worker.
#[derive(Debug)]
pub(in crate::dataplane) struct WorkerPool {
    snapshot: Arc<PoolSnapshot>,
    selection: RefCell<Selection>,
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
        Self { snapshot, selection: RefCell::new(Selection { selector, eligible: Vec::new() }) }
    }

    /// FiberLB's id.
    pub(in crate::dataplane) fn id(&self) -> Uuid {
        self.snapshot.id
    }

    /// Header that each connection to a backend begins with.
    pub(in crate::dataplane) fn header(&self) -> Option<Version> {
        self.snapshot.header
    }

    /// How long connections of a backend that is gone may go on; None: for as long as they last.
    pub(in crate::dataplane) fn drain_timeout(&self) -> Option<Duration> {
        self.snapshot.drain_timeout
    }

    /// True if a backend is in the pool, enabled, of some weight, and in rotation by its health; a backup that is not
    /// needed is there, too.
    pub(in crate::dataplane) fn is_there(&self, backend: Uuid) -> bool {
        let member = self.place(backend).and_then(|place| self.snapshot.members.get(place));
        member.is_some_and(|member| member.spec.takes_connections() && member.state.is_up())
    }

    /// True if it is of this very snapshot.
    pub(in crate::dataplane) fn is_of(&self, snapshot: &Arc<PoolSnapshot>) -> bool {
        Arc::ptr_eq(&self.snapshot, snapshot)
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
        now: Instant,
    ) -> Option<(usize, &PoolMember, SelectedBy)> {
        let members = &self.snapshot.members;
        let mut selection = self.selection.borrow_mut();
        let Selection { selector, eligible } = &mut *selection;
        let slow_start = self.snapshot.slow_start;
        let candidates = members.iter().map(|member| member.candidate(slow_start, now));
        selection::collect_eligible(candidates, tried, eligible);
        let remembered = self.remembered(client, eligible, now).map(|place| (place, SelectedBy::Persistence));
        let selected =
            || Some((selector.select(client.hashed, eligible)?, selected_by(self.snapshot.algorithm)));
        let (place, by) = remembered.or_else(selected)?;
        members.get(place).map(|member| (place, member, by))
    }

    /// The place of the backend that the client had, while it is eligible.
    fn remembered(&self, client: &ClientKeys, eligible: &[Eligible], now: Instant) -> Option<usize> {
        let had = self.snapshot.persistence.as_ref()?.find(client.remembered?, now)?;
        let place = *self.snapshot.places.get(&had)?;
        eligible.iter().any(|candidate| candidate.index == place).then_some(place)
    }

    /// Records that the client has reached a backend.
    pub(in crate::dataplane) fn remember(&self, client: &ClientKeys, backend: Uuid, now: Instant) {
        if let (Some(table), Some(key)) = (&self.snapshot.persistence, client.remembered) {
            table.remember(key, backend, now);
        }
    }
}
