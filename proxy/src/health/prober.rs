//! The probes in flight, and the sockets of each network.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use tracing::Span;
use uuid::Uuid;

use super::attempt::{Attempt, Scratch};
use super::outcome::{NodeFailure, ProbeOutcome};
use super::report::TargetKey;
use super::schedule::Id;
use super::socket_pool::SocketPool;
use crate::sockets::SocketFactory;

/// Runs probes. Knows neither their schedule nor the meaning of their outcomes.
pub(super) struct Prober {
    networks: HashMap<Uuid, SocketPool>,
    in_flight: HashMap<Id, ProbeInFlight>,
    polls: BTreeSet<(Instant, Id)>,
    scratch: Scratch,
}

struct ProbeInFlight {
    attempt: Attempt,
    network: Uuid,
    next_poll: Instant,
    span: Span,
}

/// A probe that has ended.
pub(super) struct EndedProbe {
    pub(super) id: Id,
    pub(super) started: Instant,
    pub(super) outcome: ProbeOutcome,
    pub(super) span: Span,
}

impl Prober {
    pub(super) fn new() -> Self {
        Self {
            networks: HashMap::new(),
            in_flight: HashMap::new(),
            polls: BTreeSet::new(),
            scratch: Scratch::new(),
        }
    }

    /// Replaces the networks. Probes in flight in a network that is removed or replaced end without an
    /// outcome: they are returned.
    pub(super) fn set_networks(&mut self, networks: &HashMap<Uuid, Arc<dyn SocketFactory>>) -> Vec<Id> {
        self.networks.retain(|id, pool| networks.get(id).is_some_and(|factory| pool.is_of(factory)));
        let is_stray = |probe: &ProbeInFlight| !self.networks.contains_key(&probe.network);
        let strays: Vec<Id> =
            self.in_flight.iter().filter(|(_, probe)| is_stray(probe)).map(|(id, _)| *id).collect();
        strays.iter().for_each(|id| self.abort(*id));
        for (id, factory) in networks {
            self.networks.entry(*id).or_insert_with(|| SocketPool::new(Arc::clone(factory)));
        }
        strays
    }

    /// Starts a probe. `has_route`: as of [`Target`](super::Target).
    ///
    /// # Errors
    /// The outcome, if there is one at once, with the span.
    pub(super) fn start(
        &mut self,
        id: Id,
        key: &TargetKey,
        has_route: bool,
        span: Span,
        now: Instant,
    ) -> Result<(), (ProbeOutcome, Span)> {
        let Some(pool) = self.networks.get_mut(&key.network) else {
            let text = "the network is not on this node".to_owned();
            return Err((ProbeOutcome::Inconclusive(NodeFailure { text, resource: None }), span));
        };
        let socket = match pool.take(key.address) {
            Ok(socket) => socket,
            Err(error) => return Err((ProbeOutcome::of_socket(&error), span)),
        };
        match Attempt::start(socket, key.address, Arc::clone(&key.check), has_route, now) {
            Ok(attempt) => {
                let next_poll = attempt.next_poll(now);
                self.polls.insert((next_poll, id));
                self.in_flight.insert(id, ProbeInFlight { attempt, network: key.network, next_poll, span });
                Ok(())
            }
            Err((socket, outcome)) => {
                pool.return_socket(key.address, socket);
                Err((outcome, span))
            }
        }
    }

    /// Ends a probe without an outcome, if it is in flight.
    pub(super) fn abort(&mut self, id: Id) {
        if let Some(probe) = self.in_flight.remove(&id) {
            self.polls.remove(&(probe.next_poll, id));
            self.recycle(probe);
        }
    }

    /// Polls the probes that are due. Those that ended go into `ended`.
    pub(super) fn poll(&mut self, now: Instant, ended: &mut Vec<EndedProbe>) {
        while let Some((_, id)) = self.polls.first().copied().filter(|(at, _)| *at <= now) {
            self.polls.pop_first();
            let Some(probe) = self.in_flight.get_mut(&id) else { continue };
            match probe.attempt.poll(now, &mut self.scratch) {
                Poll::Pending => {
                    probe.next_poll = probe.attempt.next_poll(now);
                    self.polls.insert((probe.next_poll, id));
                }
                Poll::Ready(outcome) => {
                    let (started, span) = (probe.attempt.started(), probe.span.clone());
                    ended.push(EndedProbe { id, started, outcome, span });
                    self.abort(id);
                }
            }
        }
    }

    /// Time of the next poll.
    pub(super) fn next_poll(&self) -> Option<Instant> {
        self.polls.first().map(|(at, _)| *at)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Closes the sockets that were idle ever since the last call.
    pub(super) fn trim(&mut self) {
        self.networks.values_mut().for_each(SocketPool::trim);
    }

    /// Admits a line of the log about a network: the number of lines that were suppressed before it.
    pub(super) fn admit_log(&mut self, network: Uuid, now: Instant) -> Option<u64> {
        // A network that is not there was logged when it could not be made.
        self.networks.get_mut(&network)?.admit_log(now)
    }

    fn recycle(&mut self, probe: ProbeInFlight) {
        let (address, socket) = probe.attempt.into_socket();
        if let Some(pool) = self.networks.get_mut(&probe.network) {
            pool.return_socket(address, socket);
        }
    }
}
