//! What is known of one node.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use uuid::Uuid;

use crate::agents::{Hello, ListenerCounters};
use crate::fleet::directory::records::{Duty, NodeRecord};
use crate::status::{Heard, Liveness};
use crate::store::Revision;

/// A node that has said hello once.
#[derive(Debug)]
pub struct Node {
    /// What is stored of it; `None` until that is so.
    pub record: Option<NodeRecord>,
    /// The transaction that put the record last.
    pub(in crate::fleet) revision: Revision,
    /// What it said of itself since the plugin started.
    pub hello: Option<Hello>,
    /// What was heard of it.
    pub heard: Heard,
    /// When its stream came or went.
    pub since: Instant,
    /// The stream that counts; messages of others come too late.
    pub epoch: u64,
    /// What it said last of each resource that it was told: done, or why not.
    pub results: HashMap<Uuid, Result<u64, String>>,
    /// What its listeners have done, by listener.
    pub counters: BTreeMap<Uuid, ListenerCounters>,
    /// When it said that, by listener.
    pub(in crate::fleet) counted_at: BTreeMap<Uuid, Instant>,
    /// Whether it has answered all that it was told, once in its stream's life.
    pub(in crate::fleet) is_settled: bool,
    /// What it was told to give up and may not have yet. A node says only what is new: what it said before is kept until it
    /// has surely forgotten that too.
    pub(in crate::fleet) taken_back: BTreeSet<Uuid>,
    /// Whether all that it says of backends was heard since the plugin started.
    pub(in crate::fleet) has_reported: bool,
    /// Whether it was counted as dead when that was last looked at.
    pub(in crate::fleet) dead: bool,
    /// Whether it was then dead for so long that its networks move to others.
    pub(in crate::fleet) gone: bool,
}

impl Node {
    /// A node that nothing was heard of since the plugin started.
    pub(in crate::fleet) fn unheard(record: Option<NodeRecord>, started: Instant) -> Self {
        Self {
            record,
            revision: Revision::ZERO,
            hello: None,
            heard: Heard { connected: false, last: None, started },
            since: started,
            epoch: 0,
            results: HashMap::new(),
            counters: BTreeMap::new(),
            counted_at: BTreeMap::new(),
            is_settled: false,
            taken_back: BTreeSet::new(),
            has_reported: false,
            dead: false,
            gone: false,
        }
    }
    /// Whether it is connected, or was a moment ago.
    pub fn is_there(&self, now: Instant) -> bool {
        self.heard.liveness(now) != Liveness::Dead
    }

    /// What an operator wants of it.
    pub fn duty(&self) -> Duty {
        self.record.as_ref().map(|record| record.duty).unwrap_or_default()
    }

    /// The failure domain that it is in; empty: it does not say.
    pub fn zone(&self) -> &str {
        self.record.as_ref().map_or("", |record| &record.zone)
    }

    /// Connections that its listeners carry at this moment.
    pub fn connections(&self) -> u64 {
        self.counters.values().map(|listener| listener.connections_active).sum()
    }

    /// Forgets what it said of something that it has given up.
    pub(in crate::fleet) fn forget(&mut self, id: Uuid) {
        self.results.remove(&id);
        self.counters.remove(&id);
        self.counted_at.remove(&id);
    }

    /// Takes over what its listeners have done. What it was never told to serve is left out.
    pub(in crate::fleet) fn count(&mut self, counters: Vec<ListenerCounters>, now: Instant) {
        self.counted_at.extend(counters.iter().map(|counters| (counters.listener, now)));
        self.counters.extend(counters.into_iter().map(|counters| (counters.listener, counters)));
        let results = &self.results;
        self.counters.retain(|listener, _| results.contains_key(listener));
        self.counted_at.retain(|listener, _| results.contains_key(listener));
    }
}
