//! The probes in flight, and the sockets of each network.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use uuid::Uuid;

use super::attempt::{Attempt, Scratch};
use super::outcome::Outcome;
use super::pool::Pool;
use super::report::Key;
use super::schedule::Id;
use crate::sockets::SocketFactory;

/// Carries probes out. Does not know when they are due, nor what their outcomes mean.
pub(super) struct Prober {
    networks: HashMap<Uuid, Pool>,
    flying: HashMap<Id, Flying>,
    looks: BTreeSet<(Instant, Id)>,
    scratch: Scratch,
}

struct Flying {
    attempt: Attempt,
    network: Uuid,
    next_look: Instant,
}

/// A probe that has ended.
pub(super) struct Ended {
    pub(super) id: Id,
    pub(super) started: Instant,
    pub(super) outcome: Outcome,
}

impl Prober {
    pub(super) fn new() -> Self {
        Self {
            networks: HashMap::new(),
            flying: HashMap::new(),
            looks: BTreeSet::new(),
            scratch: Scratch::new(),
        }
    }

    /// Makes the networks exactly these. Probes in flight in a network that is gone or became another end without an
    /// outcome: they are returned.
    pub(super) fn set_networks(&mut self, networks: &HashMap<Uuid, Arc<dyn SocketFactory>>) -> Vec<Id> {
        self.networks.retain(|id, pool| networks.get(id).is_some_and(|factory| pool.is_of(factory)));
        let stray = |flying: &Flying| !self.networks.contains_key(&flying.network);
        let strays: Vec<Id> =
            self.flying.iter().filter(|(_, flying)| stray(flying)).map(|(id, _)| *id).collect();
        strays.iter().for_each(|id| self.abort(*id));
        for (id, factory) in networks {
            self.networks.entry(*id).or_insert_with(|| Pool::new(Arc::clone(factory)));
        }
        strays
    }

    /// Starts a probe.
    ///
    /// # Errors
    /// The outcome, if there is one at once.
    pub(super) fn start(&mut self, id: Id, key: &Key, now: Instant) -> Result<(), Outcome> {
        let Some(pool) = self.networks.get_mut(&key.network) else {
            return Err(Outcome::Inconclusive("the network is not on this node".to_owned()));
        };
        let socket = pool.take(key.address).map_err(|error| Outcome::of_socket(&error))?;
        match Attempt::start(socket, key.address, Arc::clone(&key.check), now) {
            Ok(attempt) => {
                let next_look = attempt.next_look(now);
                self.looks.insert((next_look, id));
                self.flying.insert(id, Flying { attempt, network: key.network, next_look });
                Ok(())
            }
            Err((socket, outcome)) => {
                pool.give_back(key.address, socket);
                Err(outcome)
            }
        }
    }

    /// Ends a probe without an outcome, if it is in flight.
    pub(super) fn abort(&mut self, id: Id) {
        if let Some(flying) = self.flying.remove(&id) {
            self.looks.remove(&(flying.next_look, id));
            self.recycle(flying);
        }
    }

    /// Looks at the probes whose time it is. Those that ended go into `ended`.
    pub(super) fn look(&mut self, now: Instant, ended: &mut Vec<Ended>) {
        while let Some((_, id)) = self.looks.first().copied().filter(|(at, _)| *at <= now) {
            self.looks.pop_first();
            let Some(flying) = self.flying.get_mut(&id) else { continue };
            match flying.attempt.look(now, &mut self.scratch) {
                Poll::Pending => {
                    flying.next_look = flying.attempt.next_look(now);
                    self.looks.insert((flying.next_look, id));
                }
                Poll::Ready(outcome) => {
                    ended.push(Ended { id, started: flying.attempt.started(), outcome });
                    self.abort(id);
                }
            }
        }
    }

    /// When the next look is due.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.looks.first().map(|(at, _)| *at)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.flying.len()
    }

    /// Closes the sockets that were idle ever since the last call.
    pub(super) fn trim(&mut self) {
        self.networks.values_mut().for_each(Pool::trim);
    }

    /// Whether to log a complaint about a network now, and how many were not logged before it.
    pub(super) fn may_complain(&mut self, network: Uuid, now: Instant) -> Option<u64> {
        // A network that is not there was logged when it was not made.
        self.networks.get_mut(&network)?.may_complain(now)
    }

    fn recycle(&mut self, flying: Flying) {
        let (address, socket) = flying.attempt.into_socket();
        if let Some(pool) = self.networks.get_mut(&flying.network) {
            pool.give_back(address, socket);
        }
    }
}
