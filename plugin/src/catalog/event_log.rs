//! Recent changes of statuses, in memory: bounded in number for each load balancer, and in bytes over all. Pure.

use std::collections::{BTreeMap, HashMap, VecDeque};

use uuid::Uuid;

use crate::resources::{Kind, Tree, truncated};
use crate::status::{Operating, Provisioning, StatusChange, StatusCode};

/// Most events of one load balancer; the oldest give way.
const MOST: usize = 100;
/// Most bytes of all events; the oldest of all load balancers give way.
const BYTES: usize = 16 << 20;
/// Most bytes of a name or a reason that are kept.
const TEXT_BYTES: usize = 256;

/// Change of a resource's status, at its time.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusEvent {
    /// Time of the observation, in milliseconds since 1970.
    pub at: u64,
    /// Kind of the resource.
    pub kind: Kind,
    /// The resource.
    pub id: Uuid,
    /// Name that the resource had, or what tells it apart.
    pub name: Box<str>,
    /// Statuses before.
    pub before: (Provisioning, Operating),
    /// Statuses since then.
    pub after: (Provisioning, Operating),
    /// Reason, for programs.
    pub code: StatusCode,
    /// Reason, for people.
    pub reason: Box<str>,
}

impl StatusEvent {
    /// Event of a change in `tree`.
    pub(super) fn new(tree: &Tree, change: StatusChange, at: u64) -> Self {
        let StatusChange { kind, id, before, after } = change;
        let name = tree.own_name(kind, id).unwrap_or_default();
        Self {
            at,
            kind,
            id,
            name: truncated(&name, TEXT_BYTES).into(),
            before,
            after: (after.provisioning, after.operating),
            code: after.code,
            reason: truncated(&after.reason, TEXT_BYTES).into(),
        }
    }

    /// Bytes that it takes here, about.
    fn bytes(&self) -> usize {
        // With its entry in the order of all, and what the collections have in reserve.
        2 * (size_of::<(u64, Self)>() + size_of::<(u64, Uuid)>()) + self.name.len() + self.reason.len()
    }
}

/// Events of all load balancers that have any.
#[derive(Default)]
pub(super) struct EventLog {
    /// By load balancer, each with its number, the oldest first.
    events: HashMap<Uuid, VecDeque<(u64, StatusEvent)>>,
    /// Load balancers by the numbers of their events.
    order: BTreeMap<u64, Uuid>,
    next: u64,
    bytes: usize,
}

impl EventLog {
    /// Adds an event of a load balancer.
    pub(super) fn add(&mut self, load_balancer: Uuid, event: StatusEvent) {
        self.bytes += event.bytes();
        self.order.insert(self.next, load_balancer);
        let own = self.events.entry(load_balancer).or_default();
        own.push_back((self.next, event));
        self.next += 1;
        if own.len() > MOST {
            self.drop_oldest_of(load_balancer);
        }
        while self.bytes > BYTES {
            let Some((_, oldest)) = self.order.first_key_value() else { return };
            self.drop_oldest_of(*oldest);
        }
    }

    /// Events of a load balancer, the oldest first.
    pub(super) fn of(&self, load_balancer: Uuid) -> Vec<StatusEvent> {
        let events = self.events.get(&load_balancer).into_iter().flatten();
        events.map(|(_, event)| event.clone()).collect()
    }

    /// Drops the events of a load balancer that is gone.
    pub(super) fn forget(&mut self, load_balancer: Uuid) {
        while self.events.contains_key(&load_balancer) {
            self.drop_oldest_of(load_balancer);
        }
    }

    fn drop_oldest_of(&mut self, load_balancer: Uuid) {
        let Some(own) = self.events.get_mut(&load_balancer) else { return };
        if let Some((number, event)) = own.pop_front() {
            self.order.remove(&number);
            self.bytes -= event.bytes();
        }
        if own.is_empty() {
            self.events.remove(&load_balancer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at: u64, reason: &str) -> StatusEvent {
        StatusEvent {
            at,
            kind: Kind::Backend,
            id: Uuid::nil(),
            name: "b".into(),
            before: (Provisioning::Active, Operating::Online),
            after: (Provisioning::Active, Operating::Offline),
            code: StatusCode::Down,
            reason: reason.into(),
        }
    }

    fn times(log: &EventLog, load_balancer: u128) -> Vec<u64> {
        log.of(Uuid::from_u128(load_balancer)).iter().map(|event| event.at).collect()
    }

    #[test]
    fn the_oldest_of_one_load_balancer_give_way() {
        let mut log = EventLog::default();
        log.add(Uuid::from_u128(2), event(0, ""));
        for at in 0..250 {
            log.add(Uuid::from_u128(1), event(at, ""));
        }
        assert_eq!(times(&log, 1), (150..250).collect::<Vec<u64>>());
        assert_eq!((times(&log, 2), times(&log, 3)), (vec![0], vec![]));
        assert_eq!(log.order.len(), 101);
    }

    #[test]
    fn all_together_take_no_more_than_their_bytes() {
        let mut log = EventLog::default();
        let reason = "x".repeat(TEXT_BYTES);
        for load_balancer in 0..100_000 {
            log.add(Uuid::from_u128(load_balancer), event(7, &reason));
        }
        assert!(log.bytes <= BYTES && log.bytes > BYTES - 1000, "{}", log.bytes);
        assert_eq!(log.bytes, log.events.values().flatten().map(|(_, event)| event.bytes()).sum::<usize>());
        assert_eq!((times(&log, 0), times(&log, 99_999)), (vec![], vec![7]));
        for load_balancer in 0..100_000 {
            log.forget(Uuid::from_u128(load_balancer));
        }
        assert_eq!((log.bytes, log.order.len(), log.events.len()), (0, 0, 0));
    }
}
