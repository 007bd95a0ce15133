//! The plugin's half of one stream: a state machine that takes messages and the time, and reads no clock.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use fiberlb_proto::agent::v1;
use uuid::Uuid;
use v1::node_message::Message as FromNode;
use v1::plugin_message::Message as FromPlugin;

use super::input::{
    self, AccessLogReport, Acknowledgement, Hello, NodeTrouble, ReportedDoubt, ReportedEjection,
    TrafficReport, Verdict,
};

/// The protocol version of this plugin.
pub const VERSION: u32 = 1;
/// Most verdicts in a node's snapshot.
const MOST_IN_SNAPSHOT: usize = 100_000;
/// Most listeners whose access log is read at a time.
pub(crate) const MOST_READ: usize = 1_000;
/// Heartbeats of silence that end a stream.
const SILENT_HEARTBEATS: u32 = 4;

/// ProtocolViolation of the protocol by a node; it ends the stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolViolation {
    /// No version in common.
    #[error(
        "the node speaks versions {oldest} to {newest}, the plugin speaks {VERSION}: update the older one"
    )]
    Version {
        /// Its oldest.
        oldest: u32,
        /// Its newest.
        newest: u32,
    },
    /// The claimed id is not the certificate's.
    #[error("the node calls itself {claimed:?}, its certificate is for {certified:?}")]
    Identity {
        /// In its Hello.
        claimed: String,
        /// In its certificate.
        certified: String,
    },
    /// A message of another stream's epoch.
    #[error("a message has epoch {got}, this stream has {expected}")]
    Epoch {
        /// The message's.
        got: u64,
        /// The stream's.
        expected: u64,
    },
    /// A message that is not allowed in this state.
    #[error("{what} {place}")]
    Unexpected {
        /// The message.
        what: &'static str,
        /// The state, as part of the error text.
        place: &'static str,
    },
    /// An acknowledgement of an update that was not sent, or that goes back.
    #[error("revision {revision} is acknowledged; {acknowledged} to {sent} can be")]
    Revision {
        /// The acknowledged one.
        revision: u64,
        /// The last one that was acknowledged.
        acknowledged: u64,
        /// The last one that was sent.
        sent: u64,
    },
    /// A field that cannot be read.
    #[error("{field} is {value:?}: {why}")]
    Malformed {
        /// Its path.
        field: &'static str,
        /// Its value, cut.
        value: String,
        /// Reason.
        why: &'static str,
    },
    /// More than a message or a snapshot can have.
    #[error("{field} has {count} entries; at most {most} can be")]
    TooMany {
        /// Path of the field.
        field: &'static str,
        /// Number of entries.
        count: usize,
        /// Limit of entries.
        most: usize,
    },
    /// A longer text than there can be.
    #[error("{field} has {bytes} bytes; at most {most} can be")]
    TooLong {
        /// Path of the field.
        field: &'static str,
        /// Its length.
        bytes: usize,
        /// Limit of bytes.
        most: usize,
    },
    /// A larger number than there can be.
    #[error("{field} is {value}; at most {most} can be")]
    TooLarge {
        /// Path of the field.
        field: &'static str,
        /// Its value.
        value: u64,
        /// Largest value.
        most: u64,
    },
    /// No message for too long.
    #[error("no message for {} ms", .0.as_millis())]
    Silent(Duration),
}

/// Meaning of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The node presents itself; [`Protocol::welcome`] answers.
    Hello(Hello),
    /// It acknowledges all updates up to a revision, and reports results.
    Acknowledged {
        /// The revision.
        revision: u64,
        /// New results.
        results: Vec<Acknowledgement>,
    },
    /// Verdicts of its health checker.
    Verdicts {
        /// Full snapshot: earlier verdicts are void.
        complete: bool,
        /// The verdicts.
        verdicts: Vec<Verdict>,
        /// Checks whose probes say nothing, or say something again.
        inconclusive: Vec<ReportedDoubt>,
    },
    /// Counters of its listeners and backends.
    Counters {
        /// Counters of listeners.
        listeners: Vec<TrafficReport>,
        /// Counters of backends.
        backends: Vec<TrafficReport>,
        /// Passive health of these backends.
        ejections: Vec<ReportedEjection>,
        /// Its troubles at this moment; `None`: nothing is said of them.
        troubles: Option<Vec<NodeTrouble>>,
    },
    /// Connections that somebody reads.
    AccessLog(AccessLogReport),
    /// It is alive; there is nothing else to know yet.
    Alive,
}

/// The verdicts' snapshot of an epoch.
#[derive(Debug)]
enum SnapshotState {
    Awaited,
    Growing(Vec<Verdict>, Vec<ReportedDoubt>),
    Whole,
}

/// State of a stream.
#[derive(Debug)]
enum Phase {
    /// No message yet.
    Silent,
    /// Hello came; admission is pending.
    Presented,
    Open {
        epoch: u64,
        sent: u64,
        acknowledged: u64,
        snapshot: SnapshotState,
    },
}

/// The plugin's half of one stream.
#[derive(Debug)]
pub struct Protocol {
    certified: Option<String>,
    heartbeat: Duration,
    phase: Phase,
    heard_at: Instant,
    spoke_at: Instant,
    looked_at: Instant,
}

impl Protocol {
    /// For a node whose certificate has this id, or that needs none.
    pub fn new(certified: Option<String>, heartbeat: Duration, now: Instant) -> Self {
        let (heard_at, spoke_at, looked_at) = (now, now, now);
        Self { certified, heartbeat, phase: Phase::Silent, heard_at, spoke_at, looked_at }
    }

    /// Processes a message.
    ///
    /// # Errors
    /// The violation. The stream has to end; later messages have no meaning.
    pub fn receive(&mut self, wire: v1::NodeMessage, now: Instant) -> Result<Event, ProtocolViolation> {
        self.heard_at = now;
        let Some(message) = wire.message else {
            return Err(ProtocolViolation::Unexpected {
                what: "a message of no known kind",
                place: "cannot be",
            });
        };
        match (&mut self.phase, message) {
            (Phase::Silent, FromNode::Hello(hello)) => self.hello(wire.epoch, hello),
            (Phase::Silent, other) => Err(unexpected(&other, "came before Hello")),
            (Phase::Presented, other) => Err(unexpected(&other, "came before Welcome")),
            (Phase::Open { .. }, other @ FromNode::Hello(_)) => Err(unexpected(&other, "came twice")),
            (Phase::Open { epoch, .. }, _) if wire.epoch != *epoch => {
                Err(ProtocolViolation::Epoch { got: wire.epoch, expected: *epoch })
            }
            (Phase::Open { sent, acknowledged, .. }, FromNode::Ack(ack)) => {
                acknowledge(*sent, acknowledged, ack)
            }
            (Phase::Open { snapshot, .. }, FromNode::Verdicts(wire)) => verdicts(snapshot, wire),
            (Phase::Open { .. }, FromNode::Counters(wire)) => {
                let listeners = input::all("Counters.listeners", wire.listeners)?;
                let ejections = input::all("Counters.backends", wire.backends.iter().collect())?;
                let backends = input::all("Counters.backends", wire.backends)?;
                let troubles = input::troubles(wire.troubles)?;
                Ok(Event::Counters { listeners, backends, ejections, troubles })
            }
            (Phase::Open { .. }, FromNode::AccessLog(wire)) => {
                AccessLogReport::try_from(wire).map(Event::AccessLog)
            }
            (Phase::Open { .. }, FromNode::Heartbeat(_)) => Ok(Event::Alive),
        }
    }

    fn hello(&mut self, epoch: u64, wire: v1::Hello) -> Result<Event, ProtocolViolation> {
        if epoch != 0 {
            return Err(ProtocolViolation::Epoch { got: epoch, expected: 0 });
        }
        let (oldest, newest) = (wire.oldest_version, wire.newest_version);
        if !(oldest..=newest).contains(&VERSION) {
            return Err(ProtocolViolation::Version { oldest, newest });
        }
        let hello = Hello::try_from(wire)?;
        if let Some(certified) = &self.certified
            && *certified != hello.node_id
        {
            return Err(ProtocolViolation::Identity { claimed: hello.node_id, certified: certified.clone() });
        }
        self.phase = Phase::Presented;
        Ok(Event::Hello(hello))
    }

    /// Opens the stream's epoch, after a Hello; the node's silence counts from here.
    /// `renew_after`: age at which the node opens another one.
    pub fn welcome(
        &mut self,
        epoch: u64,
        installation: Uuid,
        renew_after: Duration,
        now: Instant,
    ) -> v1::PluginMessage {
        self.phase = Phase::Open { epoch, sent: 0, acknowledged: 0, snapshot: SnapshotState::Awaited };
        (self.heard_at, self.looked_at) = (now, now);
        let heartbeat_ms = u32::try_from(self.heartbeat.as_millis()).unwrap_or(u32::MAX);
        let installation = installation.to_string();
        let renew_after_ms = u64::try_from(renew_after.as_millis()).unwrap_or(u64::MAX);
        let welcome = v1::Welcome { version: VERSION, heartbeat_ms, installation, renew_after_ms };
        self.say(FromPlugin::Welcome(welcome), now)
    }

    /// Assigns the next revision to an update.
    pub fn update(&mut self, mut update: v1::Update, now: Instant) -> v1::PluginMessage {
        if let Phase::Open { sent, .. } = &mut self.phase {
            *sent += 1;
            update.revision = *sent;
        }
        self.say(FromPlugin::Update(update), now)
    }

    /// Names the listeners whose log is read from now on.
    pub fn demand(&mut self, listeners: &BTreeSet<Uuid>, now: Instant) -> v1::PluginMessage {
        let listener_ids = listeners.iter().map(ToString::to_string).collect();
        self.say(FromPlugin::AccessLogDemand(v1::AccessLogDemand { listener_ids }), now)
    }

    /// The last revision that was sent; 0: none.
    pub fn sent(&self) -> u64 {
        if let Phase::Open { sent, .. } = self.phase { sent } else { 0 }
    }

    /// A heartbeat, if nothing was sent lately. When called twice per heartbeat, no pause is longer than a
    /// whole one.
    pub fn heartbeat(&mut self, now: Instant) -> Option<v1::PluginMessage> {
        let due = now.saturating_duration_since(self.spoke_at) >= self.heartbeat / 2;
        due.then(|| self.say(FromPlugin::Heartbeat(v1::Heartbeat {}), now))
    }

    fn say(&mut self, message: FromPlugin, now: Instant) -> v1::PluginMessage {
        self.spoke_at = now;
        let epoch = if let Phase::Open { epoch, .. } = self.phase { epoch } else { 0 };
        v1::PluginMessage { epoch, message: Some(message) }
    }

    /// Checks that the node is not silent; called twice per heartbeat. After a longer gap (the machine was
    /// suspended, the process stopped or starved), the node is not blamed for messages that this plugin did
    /// not read.
    ///
    /// # Errors
    /// [`ProtocolViolation::Silent`].
    pub fn check_silence(&mut self, now: Instant) -> Result<(), ProtocolViolation> {
        let away = now.saturating_duration_since(self.looked_at);
        self.looked_at = now;
        if away > self.heartbeat {
            self.heard_at = now.min(self.heard_at + away);
        }
        let silence = now.saturating_duration_since(self.heard_at);
        if silence >= silence_limit(self.heartbeat) {
            Err(ProtocolViolation::Silent(silence))
        } else {
            Ok(())
        }
    }
}

/// Silence that ends a stream.
pub(crate) fn silence_limit(heartbeat: Duration) -> Duration {
    heartbeat * SILENT_HEARTBEATS
}

fn acknowledge(sent: u64, acknowledged: &mut u64, ack: v1::Ack) -> Result<Event, ProtocolViolation> {
    let revision = ack.revision;
    if !(*acknowledged..=sent).contains(&revision) {
        return Err(ProtocolViolation::Revision { revision, acknowledged: *acknowledged, sent });
    }
    *acknowledged = revision;
    Ok(Event::Acknowledged { revision, results: input::all("Ack.results", ack.results)? })
}

fn verdicts(snapshot: &mut SnapshotState, wire: v1::Verdicts) -> Result<Event, ProtocolViolation> {
    let wrong = |place| Err(ProtocolViolation::Unexpected { what: "Verdicts", place });
    let news: Vec<Verdict> = input::all("Verdicts.verdicts", wire.verdicts)?;
    let doubts: Vec<ReportedDoubt> = input::all("Verdicts.inconclusive", wire.inconclusive)?;
    let (mut known, mut inconclusive) = match std::mem::replace(snapshot, SnapshotState::Whole) {
        SnapshotState::Awaited if !wire.first => return wrong("came before the first"),
        SnapshotState::Growing(..) | SnapshotState::Whole if wire.first => {
            return wrong("came as the first twice");
        }
        SnapshotState::Whole if wire.more => return wrong("continue a snapshot that has ended"),
        SnapshotState::Whole => {
            return Ok(Event::Verdicts { complete: false, verdicts: news, inconclusive: doubts });
        }
        SnapshotState::Awaited => (Vec::new(), Vec::new()),
        SnapshotState::Growing(known, inconclusive) => (known, inconclusive),
    };
    let count = (known.len() + news.len()).max(inconclusive.len() + doubts.len());
    if count > MOST_IN_SNAPSHOT {
        return Err(ProtocolViolation::TooMany {
            field: "the verdicts' snapshot",
            count,
            most: MOST_IN_SNAPSHOT,
        });
    }
    known.extend(news);
    inconclusive.extend(doubts);
    if wire.more {
        *snapshot = SnapshotState::Growing(known, inconclusive);
        return Ok(Event::Alive);
    }
    Ok(Event::Verdicts { complete: true, verdicts: known, inconclusive })
}

fn unexpected(message: &FromNode, place: &'static str) -> ProtocolViolation {
    let what = match message {
        FromNode::Hello(_) => "Hello",
        FromNode::Ack(_) => "Ack",
        FromNode::Verdicts(_) => "Verdicts",
        FromNode::Counters(_) => "Counters",
        FromNode::AccessLog(_) => "AccessLog",
        FromNode::Heartbeat(_) => "Heartbeat",
    };
    ProtocolViolation::Unexpected { what, place }
}

#[cfg(test)]
mod tests;
