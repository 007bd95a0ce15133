//! The node's half of one stream: a state machine that takes messages and the time, and reads no clock.

use std::time::{Duration, Instant};

use fiberlb_proto::agent::v1;
use uuid::Uuid;
use v1::node_message::Message as FromNode;
use v1::plugin_message::Message as FromPlugin;

use crate::configuration::{Change, IdError};

/// Version of the protocol that this agent speaks.
pub const VERSION: u32 = 1;
/// Heartbeats without a message after which a stream ends.
const SILENT_HEARTBEATS: u32 = 4;
/// Longest wait for a Welcome, and for any message until one sets the heartbeat.
const WELCOME: Duration = Duration::from_secs(5);
/// Range of the plugin's heartbeat, in milliseconds.
const HEARTBEATS_MS: std::ops::RangeInclusive<u32> = 10..=600_000;

/// Most listeners whose log is read at a time.
const MOST_READ: usize = 1_000;

/// Least age of a stream at which it is renewed.
const LEAST_AGE: Duration = Duration::from_millis(500);

/// Violation of the protocol by the plugin; it ends the stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A version that this agent does not speak.
    #[error("the plugin chose version {0} of the protocol, the agent speaks {VERSION}: update the older one")]
    Version(u32),
    /// An invalid Welcome.
    #[error("Welcome.{field} is {value:?}: {why}")]
    Welcome {
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
        /// Expected form.
        why: &'static str,
    },
    /// A message of another stream's epoch.
    #[error("a message has epoch {got}, this stream has {expected}")]
    Epoch {
        /// Epoch of the message.
        got: u64,
        /// Epoch of the stream.
        expected: u64,
    },
    /// A gap or a repetition.
    #[error("an update has revision {got}, {expected} was due")]
    Revision {
        /// Revision of the update.
        got: u64,
        /// Revision that was due.
        expected: u64,
    },
    /// An unexpected message.
    #[error("{0}")]
    Unexpected(&'static str),
    /// An unreadable id.
    #[error("an update cannot be read: {0}")]
    Id(#[from] IdError),
    /// No message for too long.
    #[error("no message for {} ms", .0.as_millis())]
    Silent(Duration),
}

/// Meaning of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum StreamEvent {
    /// The plugin has accepted the node: [`StreamProtocol::epoch`] is known from here on.
    Welcome {
        /// Id of the installation.
        installation: Uuid,
        /// Age of the stream at which another one is to be opened in its place; `None`: never.
        renew_after: Option<Duration>,
    },
    /// The full configuration is complete.
    Snapshot {
        /// Id of the installation.
        installation: Uuid,
        /// Revision of the last update.
        revision: u64,
        /// Changes that it consists of.
        parts: Vec<Change>,
    },
    /// The configuration changed.
    Changed {
        /// Revision of the update.
        revision: u64,
        /// The change.
        change: Change,
    },
    /// Listeners whose log is read from now on.
    Read(Vec<Uuid>),
    /// Nothing to do.
    Alive,
}

#[derive(Debug)]
enum StreamPhase {
    /// Hello is sent.
    Greeted,
    /// The snapshot is being received. Nothing of it is applied before its end, so that a node goes from one
    /// full configuration to another, and half a snapshot removes and adds nothing.
    Loading { epoch: u64, installation: Uuid, revision: u64, parts: Vec<Change> },
    /// The snapshot is complete.
    Following { epoch: u64, revision: u64 },
}

/// The node's half of one stream.
#[derive(Debug)]
pub struct StreamProtocol {
    phase: StreamPhase,
    heartbeat: Duration,
    received_at: Instant,
    sent_at: Instant,
    checked_at: Instant,
}

impl StreamProtocol {
    /// Protocol of a stream whose Hello is about to be sent.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let heartbeat = WELCOME / SILENT_HEARTBEATS;
        Self { phase: StreamPhase::Greeted, heartbeat, received_at: now, sent_at: now, checked_at: now }
    }

    /// Receives a message.
    ///
    /// # Errors
    /// [`Violation`]. The stream has to end; later messages have no meaning.
    pub fn receive(&mut self, wire: v1::PluginMessage, now: Instant) -> Result<StreamEvent, Violation> {
        self.received_at = now;
        let message = wire.message.ok_or(Violation::Unexpected("a message of no known kind came"))?;
        if let (StreamPhase::Greeted, FromPlugin::Welcome(welcome)) = (&self.phase, &message) {
            return self.welcome(wire.epoch, welcome);
        }
        let expected = self.epoch().ok_or(Violation::Unexpected("a message came before Welcome"))?;
        if wire.epoch != expected {
            return Err(Violation::Epoch { got: wire.epoch, expected });
        }
        match message {
            FromPlugin::Welcome(_) => Err(Violation::Unexpected("Welcome came twice")),
            FromPlugin::Heartbeat(_) => Ok(StreamEvent::Alive),
            FromPlugin::Update(update) => self.update(update),
            FromPlugin::AccessLogDemand(demand) => Ok(StreamEvent::Read(read_listeners(&demand)?)),
        }
    }

    fn welcome(&mut self, epoch: u64, welcome: &v1::Welcome) -> Result<StreamEvent, Violation> {
        let wrong = |field, value: String, why| Err(Violation::Welcome { field, value, why });
        if welcome.version != VERSION {
            return Err(Violation::Version(welcome.version));
        }
        if !HEARTBEATS_MS.contains(&welcome.heartbeat_ms) {
            return wrong("heartbeat_ms", welcome.heartbeat_ms.to_string(), "must be 10 to 600000");
        }
        let Ok(installation) = welcome.installation.parse() else {
            return wrong("installation", welcome.installation.chars().take(80).collect(), "not a UUID");
        };
        self.heartbeat = Duration::from_millis(u64::from(welcome.heartbeat_ms));
        self.phase = StreamPhase::Loading { epoch, installation, revision: 0, parts: Vec::new() };
        let renew_after = Duration::from_millis(welcome.renew_after_ms).max(LEAST_AGE);
        let renew_after = (welcome.renew_after_ms > 0).then_some(renew_after);
        Ok(StreamEvent::Welcome { installation, renew_after })
    }

    fn update(&mut self, update: v1::Update) -> Result<StreamEvent, Violation> {
        let (got, ends) = (update.revision, update.snapshot_end);
        let change = Change::try_from(update)?;
        match &mut self.phase {
            StreamPhase::Greeted => Err(Violation::Unexpected("an update came before Welcome")),
            StreamPhase::Loading { epoch, installation, revision, parts } => {
                *revision = next(*revision, got)?;
                parts.push(change);
                if !ends {
                    return Ok(StreamEvent::Alive);
                }
                let (parts, installation) = (std::mem::take(parts), *installation);
                self.phase = StreamPhase::Following { epoch: *epoch, revision: got };
                Ok(StreamEvent::Snapshot { installation, revision: got, parts })
            }
            StreamPhase::Following { .. } if ends => Err(Violation::Unexpected("a snapshot ended twice")),
            StreamPhase::Following { revision, .. } => {
                *revision = next(*revision, got)?;
                Ok(StreamEvent::Changed { revision: got, change })
            }
        }
    }

    /// The stream's epoch; None before Welcome.
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        match self.phase {
            StreamPhase::Greeted => None,
            StreamPhase::Loading { epoch, .. } | StreamPhase::Following { epoch, .. } => Some(epoch),
        }
    }

    /// Wraps a message into the stream's envelope.
    pub fn wrap(&mut self, message: FromNode, now: Instant) -> v1::NodeMessage {
        self.sent_at = now;
        v1::NodeMessage { epoch: self.epoch().unwrap_or_default(), message: Some(message) }
    }

    /// Interval at which [`StreamProtocol::tick`] is to be called.
    #[must_use]
    pub fn tick_interval(&self) -> Duration {
        self.heartbeat / 2
    }

    /// Checks that the plugin is alive, and makes a heartbeat if no message was sent lately. Time in which
    /// this was not called (the machine was suspended, the process stopped or starved) does not count as the
    /// plugin's silence.
    ///
    /// # Errors
    /// [`Violation::Silent`].
    pub fn tick(&mut self, now: Instant) -> Result<Option<v1::NodeMessage>, Violation> {
        let away = now.saturating_duration_since(self.checked_at);
        self.checked_at = now;
        if away > self.heartbeat {
            self.received_at = now.min(self.received_at + away);
        }
        let silence = now.saturating_duration_since(self.received_at);
        if silence >= self.heartbeat * SILENT_HEARTBEATS {
            return Err(Violation::Silent(silence));
        }
        let due = now.saturating_duration_since(self.sent_at) >= self.heartbeat / 2;
        let heartbeat = self.epoch().filter(|_| due);
        Ok(heartbeat.map(|_| self.wrap(FromNode::Heartbeat(v1::Heartbeat {}), now)))
    }
}

/// Listeners whose log is read.
fn read_listeners(demand: &v1::AccessLogDemand) -> Result<Vec<Uuid>, Violation> {
    if demand.listener_ids.len() > MOST_READ {
        return Err(Violation::Unexpected("an AccessLogDemand had more than 1,000 listeners"));
    }
    let ids = demand.listener_ids.iter().map(|id| id.parse());
    ids.collect::<Result<_, _>>()
        .map_err(|_| Violation::Unexpected("an AccessLogDemand had an id that is no UUID"))
}

fn next(revision: u64, got: u64) -> Result<u64, Violation> {
    let expected = revision + 1;
    if got == expected { Ok(got) } else { Err(Violation::Revision { got, expected }) }
}

#[cfg(test)]
mod tests;
