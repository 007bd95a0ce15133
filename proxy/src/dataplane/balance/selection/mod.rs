//! Which backend a new connection goes to. Pure: nothing here does IO or reads a clock.
//!
//! The rules that all algorithms share are in [`eligible`]: switched off, down, weight 0 and already tried ones are out, and
//! backups are in only while nothing else is. An algorithm then chooses among what is left, so that asking again with what was
//! tried yields the candidates in turn.

mod least_connections;
mod persistence;
mod round_robin;
mod source_hash;

use std::net::SocketAddr;

use uuid::Uuid;

pub(super) use self::persistence::Persistence;
use self::{least_connections::LeastConnections, round_robin::RoundRobin};
use super::configuration::Algorithm;

/// What selection must know of a backend at the moment of the choice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    /// Enabled and in rotation.
    pub(super) up: bool,
    /// Its share; 0 takes no new connections.
    pub(super) weight: u16,
    /// Used only while no other is left.
    pub(super) backup: bool,
    /// Connections that it has.
    pub(super) active: u32,
    /// Says the same backend on every node; see [`identity`].
    pub(super) identity: u64,
}

/// A backend that may be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Eligible {
    /// Its place in the pool.
    pub(super) index: usize,
    /// Never 0.
    pub(super) weight: u16,
    /// Connections that it has.
    pub(super) active: u32,
    /// See [`Standing::identity`].
    pub(super) identity: u64,
}

/// Puts those that may be chosen into `chosen`, whose memory is used again. Empty when all are down, tried or of weight 0.
pub(super) fn eligible(
    standings: impl Iterator<Item = Standing> + Clone,
    tried: &[usize],
    chosen: &mut Vec<Eligible>,
) {
    collect(standings.clone(), false, tried, chosen);
    if chosen.is_empty() {
        collect(standings, true, tried, chosen);
    }
}

fn collect(
    standings: impl Iterator<Item = Standing>,
    backup: bool,
    tried: &[usize],
    chosen: &mut Vec<Eligible>,
) {
    chosen.clear();
    let wanted = standings
        .enumerate()
        .filter(|(index, standing)| {
            standing.up && standing.weight > 0 && standing.backup == backup && !tried.contains(index)
        })
        .map(|(index, Standing { weight, active, identity, .. })| Eligible {
            index,
            weight,
            active,
            identity,
        });
    chosen.extend(wanted);
}

/// An algorithm, with what one worker remembers of its earlier choices.
#[derive(Debug)]
pub(super) enum Chooser {
    RoundRobin(RoundRobin),
    LeastConnections(LeastConnections),
    SourceIp,
    SourceIpPort,
}

impl Chooser {
    /// A chooser for a pool of `backends`. `start` says where its turns begin: workers that start apart do not all send their
    /// first client to the same backend.
    pub(super) fn new(algorithm: Algorithm, backends: usize, start: usize) -> Self {
        match algorithm {
            Algorithm::RoundRobin => Self::RoundRobin(RoundRobin::new(backends, start)),
            Algorithm::LeastConnections => Self::LeastConnections(LeastConnections::new(backends, start)),
            Algorithm::SourceIp => Self::SourceIp,
            Algorithm::SourceIpPort => Self::SourceIpPort,
        }
    }

    /// Takes over the turns of an older chooser of the same pool; `old_index` says where a backend was.
    pub(super) fn inherit(&mut self, old: &Self, old_index: impl Fn(usize) -> Option<usize>) {
        match (self, old) {
            (Self::RoundRobin(new), Self::RoundRobin(old)) => new.inherit(old, old_index),
            (Self::LeastConnections(new), Self::LeastConnections(old)) => new.inherit(old, old_index),
            _ => {}
        }
    }

    /// The place of the backend for a client; None if none is eligible.
    pub(super) fn choose(&mut self, client: SocketAddr, eligible: &[Eligible]) -> Option<usize> {
        match self {
            Self::RoundRobin(turns) => turns.choose(eligible),
            Self::LeastConnections(turns) => turns.choose(eligible),
            Self::SourceIp => source_hash::choose(source_hash::of_address(client.ip()), eligible),
            Self::SourceIpPort => source_hash::choose(source_hash::of_socket(client), eligible),
        }
    }
}

/// The part of a backend's id that hashing needs: the same on every node and after every restart.
pub(super) fn identity(backend: Uuid) -> u64 {
    let (high, low) = backend.as_u64_pair();
    source_hash::mix(high ^ source_hash::mix(low))
}

#[cfg(test)]
mod tests;
