//! Schedule of probes. No IO and no clock: `now` is a parameter.
//!
//! There is a lane for each network. Lanes with a probe due take turns, and a lane has at most as many probes
//! in flight as there are slots free: one network full of silent backends uses half of the slots, two a third
//! each, and a network whose backends answer always finds one free.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Instant;

use uuid::Uuid;

/// A target, numbered by the order of arrival.
pub(super) type Id = u64;

/// Targets that wait for their next probe, and the count of those in flight.
#[derive(Debug)]
pub(super) struct Schedule {
    phases: HashMap<Id, ProbePhase>,
    lanes: BTreeMap<Uuid, Lane>,
    /// The earliest probe of each lane that has one waiting.
    heads: BTreeSet<(Instant, Uuid)>,
    free: usize,
}

/// Phase of a target, with its network.
#[derive(Clone, Copy, Debug)]
enum ProbePhase {
    Waiting(Uuid, Instant),
    InFlight(Uuid),
}

#[derive(Debug, Default)]
struct Lane {
    waiting: BTreeSet<(Instant, Id)>,
    in_flight: usize,
}

impl Schedule {
    /// An empty schedule with this many slots.
    pub(super) fn new(slots: usize) -> Self {
        Self { phases: HashMap::new(), lanes: BTreeMap::new(), heads: BTreeSet::new(), free: slots.max(1) }
    }

    /// Adds a target, whose first probe is due at `due`.
    pub(super) fn add(&mut self, id: Id, network: Uuid, due: Instant) {
        self.remove(id);
        self.phases.insert(id, ProbePhase::Waiting(network, due));
        self.change(network, |lane| {
            lane.waiting.insert((due, id));
        });
    }

    /// Removes a target, and its probe with it.
    pub(super) fn remove(&mut self, id: Id) {
        match self.phases.remove(&id) {
            None => {}
            Some(ProbePhase::Waiting(network, due)) => self.change(network, |lane| {
                lane.waiting.remove(&(due, id));
            }),
            Some(ProbePhase::InFlight(network)) => {
                self.free += 1;
                self.change(network, |lane| lane.in_flight = lane.in_flight.saturating_sub(1));
            }
        }
    }

    /// Records that the probe of a target has ended. The next one is due at `due`.
    pub(super) fn ended(&mut self, id: Id, due: Instant) {
        if let Some(ProbePhase::InFlight(network)) = self.phases.get(&id).copied() {
            self.add(id, network, due);
        }
    }

    /// Starts probes that are due and have a slot, at most `most`: into `started`, each with the time at
    /// which it was due.
    pub(super) fn admit(&mut self, now: Instant, most: usize, started: &mut Vec<(Id, Instant)>) {
        let due = self.heads.range(..=(now, Uuid::max()));
        let mut turns: VecDeque<Uuid> = due.map(|(_, network)| *network).collect();
        while started.len() < most {
            let Some(network) = turns.pop_front() else { return };
            if let Some(probe) = self.admit_one(network, now) {
                started.push(probe);
                turns.push_back(network);
            }
        }
    }

    fn admit_one(&mut self, network: Uuid, now: Instant) -> Option<(Id, Instant)> {
        let lane = self.lanes.get(&network).filter(|lane| lane.in_flight < self.free)?;
        let (due, id) = lane.waiting.first().copied().filter(|(due, _)| *due <= now)?;
        self.free = self.free.saturating_sub(1);
        self.phases.insert(id, ProbePhase::InFlight(network));
        self.change(network, |lane| {
            lane.waiting.remove(&(due, id));
            lane.in_flight += 1;
        });
        Some((id, due))
    }

    /// Time of the next probe; in the past if it waits for a slot.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.heads.first().map(|(due, _)| *due)
    }

    /// Changes a lane, and keeps `heads` and the set of lanes in step.
    fn change(&mut self, network: Uuid, change: impl FnOnce(&mut Lane)) {
        let lane = self.lanes.entry(network).or_default();
        let before = lane.head();
        change(lane);
        let after = lane.head();
        let empty = lane.waiting.is_empty() && lane.in_flight == 0;
        if before != after {
            before.map(|due| self.heads.remove(&(due, network)));
            after.map(|due| self.heads.insert((due, network)));
        }
        if empty {
            self.lanes.remove(&network);
        }
    }
}

impl Lane {
    fn head(&self) -> Option<Instant> {
        self.waiting.first().map(|(due, _)| *due)
    }
}

#[cfg(test)]
mod tests;
