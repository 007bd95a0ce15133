//! Selection of the backend for a new connection. Pure: nothing here does IO or reads a clock.
//!
//! The rules that all algorithms share are in [`collect_eligible`]: backends that are switched off, down, of
//! weight 0 or already tried are out, backups are in only while nothing else is, and ejected ones, which fail
//! connections, only while nothing else is but these ([`EjectedUse`]). An algorithm then selects among what is left, so that
//! selecting again with what was tried yields the candidates in turn.

mod least_connections;
mod random;
pub(super) mod rendezvous;
mod round_robin;

use std::cmp::Ordering;

use uuid::Uuid;

use self::{least_connections::LeastConnections, random::Draws, round_robin::RoundRobin};
use super::{hash, key::AffinityKey, weight::FineWeight};
use crate::dataplane::spec::Algorithm;

/// State of a backend at the moment of a selection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// Enabled and in rotation, with a place for one more connection.
    pub(super) up: bool,
    /// The same, but for a place, which there will be.
    pub(super) is_full: bool,
    /// Left out by the passive health check: used only while no other is left, backups included.
    pub(super) ejected: bool,
    /// Its share; nothing takes no new connections.
    pub(super) weight: FineWeight,
    /// Used only while no other is left.
    pub(super) backup: bool,
    /// Number of its connections.
    pub(super) active: u32,
    /// The same for a backend on every node; see [`identity`].
    pub(super) identity: u64,
}

/// A backend that may be selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Eligible {
    /// Its place in the pool.
    pub(super) index: usize,
    /// In parts of [`FineWeight`]; never 0.
    pub(super) weight: u32,
    /// Number of its connections.
    pub(super) active: u32,
    /// See [`Candidate::identity`].
    pub(super) identity: u64,
}

impl Eligible {
    /// Compares the loads of two backends: their connections, with the new one, for their weights. Fractions are
    /// compared without dividing.
    fn cmp_load(&self, other: &Self) -> Ordering {
        let load = |one: &Self, other: &Self| (u64::from(one.active) + 1) * u64::from(other.weight);
        load(self, other).cmp(&load(other, self))
    }
}

/// Use of backends that passive health checks leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::dataplane) enum EjectedUse {
    /// They are not selected.
    Never,
    /// They are where no other one is there. One that is at its limit is: clients wait for a place.
    WithoutOthers,
    /// They are where no other one has a place.
    WithoutPlaces,
}

/// Collects the eligible backends into `eligible`, whose memory is reused. Empty when all are down, tried or
/// of weight 0.
pub(super) fn collect_eligible(
    candidates: impl Iterator<Item = Candidate>,
    tried: &[usize],
    ejected_use: EjectedUse,
    eligible: &mut Vec<Eligible>,
) {
    eligible.clear();
    // The best rank yet: what comes behind it is out.
    let mut best = (ejected_use != EjectedUse::Never, true);
    for (index, candidate) in candidates.enumerate() {
        let Candidate { up, is_full, ejected, weight, backup, active, identity } = candidate;
        let rank = (ejected, backup);
        if !(up || is_full) || weight.parts() == 0 || rank > best || tried.contains(&index) {
            continue;
        }
        if !up {
            if ejected_use == EjectedUse::WithoutOthers && !ejected && best.0 {
                eligible.clear();
                best = (false, true);
            }
            continue;
        }
        if rank < best {
            eligible.clear();
            best = rank;
        }
        eligible.push(Eligible { index, weight: weight.parts(), active, identity });
    }
}

/// An algorithm, with the state that it has on one worker.
#[derive(Debug)]
pub(super) enum Selector {
    RoundRobin(RoundRobin),
    LeastConnections(LeastConnections),
    /// By a hash of the client's key.
    Rendezvous,
    /// Drawn by weight.
    Random(Draws),
    /// The one with less load of two that are drawn by weight.
    PowerOfTwoChoices(Draws),
}

impl Selector {
    /// A selector for a pool of `backends`. `start`: place of its first turn; workers that start apart do not
    /// all send their first client to the same backend. `random`: what an algorithm that draws takes its numbers from.
    pub(super) fn new(algorithm: Algorithm, backends: usize, start: usize, random: fastrand::Rng) -> Self {
        match algorithm {
            Algorithm::RoundRobin => Self::RoundRobin(RoundRobin::new(backends, start)),
            Algorithm::LeastConnections => Self::LeastConnections(LeastConnections::new(backends, start)),
            Algorithm::SourceIp | Algorithm::SourceIpPort => Self::Rendezvous,
            Algorithm::Random => Self::Random(Draws::new(random)),
            Algorithm::PowerOfTwoChoices => Self::PowerOfTwoChoices(Draws::new(random)),
        }
    }

    /// Takes over the state of an older selector of the same pool; `old_index` maps a backend's place to the
    /// one that it had.
    pub(super) fn inherit(&mut self, old: &Self, old_index: impl Fn(usize) -> Option<usize>) {
        match (self, old) {
            (Self::RoundRobin(new), Self::RoundRobin(old)) => new.inherit(old, old_index),
            (Self::LeastConnections(new), Self::LeastConnections(old)) => new.inherit(old, old_index),
            _ => {}
        }
    }

    /// The place of the backend for a client with this key; None if none is eligible.
    pub(super) fn select(&mut self, key: Option<AffinityKey>, eligible: &[Eligible]) -> Option<usize> {
        match self {
            Self::RoundRobin(state) => state.select(eligible),
            Self::LeastConnections(state) => state.select(eligible),
            Self::Rendezvous => rendezvous::select(key.map_or(0, AffinityKey::hash), eligible),
            Self::Random(draws) => draws.select(eligible),
            Self::PowerOfTwoChoices(draws) => draws.select_of_two(eligible),
        }
    }
}

/// The place of the backend for a client that should meet the same one on every node; None if none is eligible.
pub(super) fn of_key(key: AffinityKey, eligible: &[Eligible]) -> Option<usize> {
    rendezvous::select(key.hash(), eligible)
}

/// The part of a backend's id that hashing needs: the same on every node and after every restart.
pub(super) fn identity(backend: Uuid) -> u64 {
    let (high, low) = backend.as_u64_pair();
    hash::of_halves(high, low)
}

#[cfg(test)]
mod tests;
