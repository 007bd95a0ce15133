//! Admission: which connections a listener takes, and which gives way when there are too many. Pure: no clock, no IO.
//!
//! A connection is *pending* until its first complete request, *busy* while a request is in progress, and *idle* else. Where a
//! limit is reached, a newcomer displaces a pending connection, or an idle one; busy ones are never cut. The victim is one of
//! the source that has the most of them, so that a flood from one address displaces itself.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};

use tokio::time::Instant;

use super::settings::ConnectionSettings;

/// Number of a connection, unique within its listener and rising.
pub(super) type ConnectionId = u64;

/// Origin of connections that share `per_source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Source {
    /// IPv4 address, also where IPv6 carries it.
    V4(Ipv4Addr),
    /// Upper 64 bits of an IPv6 address.
    V6([u16; 4]),
    /// Socket file: its mode decides which users may connect, and all share one origin.
    Unix,
}

impl Source {
    /// Origin of a client's address.
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self::V6([a, b, c, d])
            }
        }
    }
}

/// Phase of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No complete request has come yet.
    Pending,
    /// Requests are in progress, so many.
    Busy(usize),
    /// None is in progress, since this time.
    Idle(Instant),
}

/// Reason why a newcomer is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The source has `per_source` connections, all busy.
    Source,
    /// The listener has `total` connections, all busy.
    Total,
}

/// Connections of a listener, each with a value of its owner's: it is returned when the connection gives way.
#[derive(Debug)]
pub(super) struct Admission<T> {
    total: usize,
    per_source: usize,
    most_pending: usize,
    next: ConnectionId,
    connections: HashMap<ConnectionId, Connection<T>>,
    sources: HashMap<Source, SourceConnections>,
    pending: Ranking,
    idle: Ranking,
}

#[derive(Debug)]
struct Connection<T> {
    source: Source,
    phase: Phase,
    value: T,
}

/// Connections of a source; the oldest first.
#[derive(Debug, Default)]
struct SourceConnections {
    count: usize,
    pending: BTreeSet<ConnectionId>,
    idle: BTreeSet<(Instant, ConnectionId)>,
}

/// Sources by their number of connections in a phase.
#[derive(Debug, Default)]
struct Ranking {
    sources: BTreeSet<(usize, Source)>,
    count: usize,
}

impl Ranking {
    fn update(&mut self, source: Source, before: usize, after: usize) {
        self.sources.remove(&(before, source));
        if after > 0 {
            self.sources.insert((after, source));
        }
        self.count = self.count + after - before;
    }

    fn first(&self) -> Option<Source> {
        self.sources.last().map(|(_, source)| *source)
    }
}

impl<T> Admission<T> {
    /// Admission without connections.
    pub(super) fn new(settings: &ConnectionSettings) -> Self {
        Self {
            total: settings.total,
            per_source: settings.per_source,
            most_pending: settings.pending,
            next: 0,
            connections: HashMap::new(),
            sources: HashMap::new(),
            pending: Ranking::default(),
            idle: Ranking::default(),
        }
    }

    /// Takes a connection, and returns the values of those that give way to it. `is_shared`: the source stands for many clients,
    /// and may have any number.
    ///
    /// # Errors
    /// [`Refusal`]: nobody can give way.
    pub(super) fn admit(
        &mut self,
        source: Source,
        is_shared: bool,
        value: T,
    ) -> Result<(ConnectionId, Vec<T>), Refusal> {
        let mut displaced = Vec::new();
        let of_source = self.sources.get(&source).map_or(0, |connections| connections.count);
        if !is_shared && of_source >= self.per_source {
            let victim = self.oldest_pending(source).or_else(|| self.longest_idle(source));
            displaced.extend(self.remove(victim.ok_or(Refusal::Source)?));
        } else if self.connections.len() >= self.total {
            displaced.push(self.shed().ok_or(Refusal::Total)?);
        }
        if self.pending.count >= self.most_pending {
            let victim = self.pending.first().and_then(|source| self.oldest_pending(source));
            displaced.extend(victim.and_then(|id| self.remove(id)));
        }
        let id = self.next;
        self.next += 1;
        self.connections.insert(id, Connection { source, phase: Phase::Pending, value });
        self.sources.entry(source).or_default().count += 1;
        self.enter(id, source, Phase::Pending);
        Ok((id, displaced))
    }

    /// Removes a connection that gives way: the oldest pending one of the source with the most of them, or else the one that
    /// is idle for the longest of the source with the most of those. Returns its value; `None`: all are busy.
    pub(super) fn shed(&mut self) -> Option<T> {
        let pending = self.pending.first().and_then(|source| self.oldest_pending(source));
        let victim = pending.or_else(|| self.idle.first().and_then(|source| self.longest_idle(source)))?;
        self.remove(victim)
    }

    /// Returns true if the next connection that gives way leaves its source another one in the same phase.
    pub(super) fn is_crowded(&self) -> bool {
        let ranking = if self.pending.count > 0 { &self.pending } else { &self.idle };
        ranking.sources.last().is_some_and(|(count, _)| *count > 1)
    }

    /// Begins a request.
    pub(super) fn begin(&mut self, id: ConnectionId) {
        let requests = match self.phase(id) {
            Some(Phase::Busy(requests)) => requests,
            Some(Phase::Pending | Phase::Idle(_)) => 0,
            None => return,
        };
        self.change(id, Phase::Busy(requests + 1));
    }

    /// Ends a request.
    pub(super) fn end(&mut self, id: ConnectionId, now: Instant) {
        match self.phase(id) {
            Some(Phase::Busy(requests)) if requests > 1 => self.change(id, Phase::Busy(requests - 1)),
            Some(Phase::Busy(_)) => self.change(id, Phase::Idle(now)),
            _ => {}
        }
    }

    /// Phase of a connection; `None`: it had to give way.
    pub(super) fn phase(&self, id: ConnectionId) -> Option<Phase> {
        self.connections.get(&id).map(|connection| connection.phase)
    }

    /// Removes a connection that has ended; one that had to give way is gone already.
    pub(super) fn remove(&mut self, id: ConnectionId) -> Option<T> {
        let Connection { source, phase, value } = self.connections.remove(&id)?;
        self.leave(id, source, phase);
        if let Some(connections) = self.sources.get_mut(&source) {
            connections.count -= 1;
            if connections.count == 0 {
                self.sources.remove(&source);
            }
        }
        Some(value)
    }

    /// Number of connections.
    pub(super) fn len(&self) -> usize {
        self.connections.len()
    }

    fn oldest_pending(&self, source: Source) -> Option<ConnectionId> {
        self.sources.get(&source)?.pending.first().copied()
    }

    fn longest_idle(&self, source: Source) -> Option<ConnectionId> {
        self.sources.get(&source)?.idle.first().map(|(_, id)| *id)
    }

    fn change(&mut self, id: ConnectionId, after: Phase) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let (source, before) = (connection.source, std::mem::replace(&mut connection.phase, after));
        self.leave(id, source, before);
        self.enter(id, source, after);
    }

    fn enter(&mut self, id: ConnectionId, source: Source, phase: Phase) {
        let connections = self.sources.entry(source).or_default();
        let (pending, idle) = (connections.pending.len(), connections.idle.len());
        match phase {
            Phase::Pending => drop(connections.pending.insert(id)),
            Phase::Idle(since) => drop(connections.idle.insert((since, id))),
            Phase::Busy(_) => return,
        }
        self.pending.update(source, pending, connections.pending.len());
        self.idle.update(source, idle, connections.idle.len());
    }

    fn leave(&mut self, id: ConnectionId, source: Source, phase: Phase) {
        let Some(connections) = self.sources.get_mut(&source) else { return };
        let (pending, idle) = (connections.pending.len(), connections.idle.len());
        match phase {
            Phase::Pending => drop(connections.pending.remove(&id)),
            Phase::Idle(since) => drop(connections.idle.remove(&(since, id))),
            Phase::Busy(_) => return,
        }
        self.pending.update(source, pending, connections.pending.len());
        self.idle.update(source, idle, connections.idle.len());
    }
}

#[cfg(test)]
mod tests;
