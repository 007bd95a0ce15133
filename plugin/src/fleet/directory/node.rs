//! State of one node.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use fiberlb_daemon::throttle::Throttle;
use uuid::Uuid;

use crate::agents::{Hello, TrafficReport};
use crate::datapath::NodeFeatures;
use crate::fleet::directory::records::{Duty, NodeRecord};
use crate::status::{Liveness, NodeContact};
use fiberlb_store::Revision;

/// Period of log lines about what a node cannot carry out.
const REFUSALS: Duration = Duration::from_secs(1);

/// A proxy node that has connected once.
#[derive(Debug)]
pub struct Node {
    /// Stored record; `None` until it is written.
    pub record: Option<NodeRecord>,
    /// Revision that put the record last.
    pub(in crate::fleet) revision: Revision,
    /// First message of its stream; `None` if it has not connected since the plugin started.
    pub hello: Option<Hello>,
    /// Last contact.
    pub contact: NodeContact,
    /// Time at which its stream opened or closed, or it died.
    pub since: Instant,
    /// Time at which it came back after its last death, or first connected; before that the start of the plugin.
    pub(in crate::fleet) alive_since: Instant,
    /// Epoch of the current stream; messages of other streams are stale.
    pub epoch: u64,
    /// Last result of each configured resource: the generation that it serves, or an error.
    pub results: HashMap<Uuid, Result<u64, String>>,
    /// Latest counters, by listener.
    pub counters: BTreeMap<Uuid, TrafficReport>,
    /// Time of the latest counters, by listener.
    pub(in crate::fleet) counted_at: BTreeMap<Uuid, Instant>,
    /// Its own troubles, for people.
    pub(in crate::fleet) troubles: Vec<String>,
    /// Throttle of log lines about what it cannot carry out.
    pub(in crate::fleet) refusals: Throttle,
    /// Its troubles with listeners, for people.
    pub(in crate::fleet) listener_troubles: BTreeMap<Uuid, String>,
    /// True once it has acknowledged its configuration snapshot, in the current stream.
    pub(in crate::fleet) is_settled: bool,
    /// Revoked resources that it may still have. A node reports only changes, so the previous result is kept
    /// until the revocation is acknowledged.
    pub(in crate::fleet) revoked: BTreeSet<Uuid>,
    /// True if it was dead when last judged.
    pub(in crate::fleet) dead: bool,
    /// True if it was then dead for so long that its networks move to others.
    pub(in crate::fleet) gone: bool,
}

impl Node {
    /// A node that has not connected since the plugin started.
    pub(in crate::fleet) fn disconnected(record: Option<NodeRecord>, started: Instant) -> Self {
        Self {
            record,
            revision: Revision::ZERO,
            hello: None,
            contact: NodeContact { connected: false, last: None, started },
            since: started,
            alive_since: started,
            epoch: 0,
            results: HashMap::new(),
            counters: BTreeMap::new(),
            counted_at: BTreeMap::new(),
            troubles: Vec::new(),
            refusals: Throttle::new(REFUSALS),
            listener_troubles: BTreeMap::new(),
            is_settled: false,
            revoked: BTreeSet::new(),
            dead: false,
            gone: false,
        }
    }
    /// True if it is connected, or was until a moment ago.
    pub fn is_there(&self, now: Instant) -> bool {
        self.contact.liveness(now) != Liveness::Dead
    }

    /// Capabilities of its data plane: as its stream states them, else as they were stored; `None`: not known.
    pub(in crate::fleet) fn capabilities(&self) -> Option<&NodeFeatures> {
        let heard = self.hello.as_ref().map(|hello| &hello.capabilities);
        heard.or_else(|| self.record.as_ref().map(|record| &record.capabilities))
    }

    /// True if it can serve a listener that needs these capabilities.
    pub(in crate::fleet) fn can_serve(&self, needs: &NodeFeatures) -> bool {
        self.capabilities().is_some_and(|capabilities| capabilities.cover(needs))
    }

    /// Duty set by an operator; active by default.
    pub fn duty(&self) -> Duty {
        self.record.as_ref().map(|record| record.duty).unwrap_or_default()
    }

    /// Failure domain; empty if it has none.
    pub fn zone(&self) -> &str {
        self.record.as_ref().map_or("", |record| &record.zone)
    }

    /// Connections that its listeners carry at this moment.
    pub fn connections(&self) -> u64 {
        self.counters.values().fold(0, |sum, listener| sum.saturating_add(listener.connections_active))
    }

    /// Drops results and counters of a revoked resource.
    pub(in crate::fleet) fn forget(&mut self, id: Uuid) {
        self.results.remove(&id);
        self.counters.remove(&id);
        self.counted_at.remove(&id);
        self.listener_troubles.remove(&id);
    }

    /// Stores counters of its listeners. Those of resources without a result are dropped.
    pub(in crate::fleet) fn count(&mut self, counters: Vec<TrafficReport>, now: Instant) {
        self.counted_at.extend(counters.iter().map(|counters| (counters.subject, now)));
        self.counters.extend(counters.into_iter().map(|counters| (counters.subject, counters)));
        let results = &self.results;
        self.counters.retain(|listener, _| results.contains_key(listener));
        self.counted_at.retain(|listener, _| results.contains_key(listener));
    }
}
