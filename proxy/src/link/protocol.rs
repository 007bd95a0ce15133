//! The node's half of one stream: a state machine that takes messages and the time, and reads no clock.

use std::time::{Duration, Instant};

use fiberlb_proto::agent::v1;
use uuid::Uuid;
use v1::node_message::Message as FromNode;
use v1::plugin_message::Message as FromPlugin;

use crate::configuration::{Change, NotId};

/// The version of the protocol that we speak.
pub const VERSION: u32 = 1;
/// Heartbeats of silence that end a stream.
const SILENT_HEARTBEATS: u32 = 4;
/// Wait for a Welcome, and what silence means before one says so.
const WELCOME: Duration = Duration::from_secs(5);
/// Heartbeats that a plugin may ask for.
const HEARTBEATS_MS: std::ops::RangeInclusive<u32> = 10..=600_000;

/// What the plugin broke, or did not do; it ends the stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A version that we do not speak.
    #[error("the plugin chose version {0} of the protocol, the agent speaks {VERSION}: update the older one")]
    Version(u32),
    /// A Welcome that cannot be.
    #[error("Welcome.{field} is {value:?}: {why}")]
    Welcome {
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
        /// What it must be.
        why: &'static str,
    },
    /// A message of another stream's life.
    #[error("a message has epoch {got}, this stream has {expected}")]
    Epoch {
        /// The message's.
        got: u64,
        /// The stream's.
        expected: u64,
    },
    /// A gap or a repetition.
    #[error("an update has revision {got}, {expected} was due")]
    Revision {
        /// The update's.
        got: u64,
        /// What it must be.
        expected: u64,
    },
    /// A message where it cannot be.
    #[error("{0}")]
    Unexpected(&'static str),
    /// An id that cannot be read.
    #[error("an update cannot be read: {0}")]
    Id(#[from] NotId),
    /// Nothing came for too long.
    #[error("nothing was heard for {} ms", .0.as_millis())]
    Silent(Duration),
}

/// What a message means.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The plugin takes the node in: [`Protocol::epoch`] is known from here on.
    Welcome {
        /// Id of the installation.
        installation: Uuid,
    },
    /// The whole configuration has come.
    Snapshot {
        /// Id of the installation.
        installation: Uuid,
        /// Of the last update.
        revision: u64,
        /// What it consists of.
        parts: Vec<Change>,
    },
    /// It changed.
    Changed {
        /// Of the update.
        revision: u64,
        /// What changed.
        change: Change,
    },
    /// Nothing to do.
    Alive,
}

#[derive(Debug)]
enum Phase {
    /// Hello was said.
    Presented,
    /// The snapshot is coming. Nothing of it counts before its end, so that a node goes from one whole configuration to
    /// another, and half a snapshot removes and adds nothing.
    Loading { epoch: u64, installation: Uuid, revision: u64, parts: Vec<Change> },
    /// The snapshot has come.
    Following { epoch: u64, revision: u64 },
}

/// The node's half of one stream.
#[derive(Debug)]
pub struct Protocol {
    phase: Phase,
    heartbeat: Duration,
    heard_at: Instant,
    spoke_at: Instant,
    looked_at: Instant,
}

impl Protocol {
    /// Of a stream whose Hello is about to be sent.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let heartbeat = WELCOME / SILENT_HEARTBEATS;
        Self { phase: Phase::Presented, heartbeat, heard_at: now, spoke_at: now, looked_at: now }
    }

    /// Takes a message.
    ///
    /// # Errors
    /// What the plugin broke. The stream has to end; a message after it has no meaning.
    pub fn receive(&mut self, wire: v1::PluginMessage, now: Instant) -> Result<Event, Violation> {
        self.heard_at = now;
        let message = wire.message.ok_or(Violation::Unexpected("a message of no known kind came"))?;
        if let (Phase::Presented, FromPlugin::Welcome(welcome)) = (&self.phase, &message) {
            return self.welcome(wire.epoch, welcome);
        }
        let expected = self.epoch().ok_or(Violation::Unexpected("a message came before Welcome"))?;
        if wire.epoch != expected {
            return Err(Violation::Epoch { got: wire.epoch, expected });
        }
        match message {
            FromPlugin::Welcome(_) => Err(Violation::Unexpected("Welcome came twice")),
            FromPlugin::Heartbeat(_) => Ok(Event::Alive),
            FromPlugin::Update(update) => self.update(update),
        }
    }

    fn welcome(&mut self, epoch: u64, welcome: &v1::Welcome) -> Result<Event, Violation> {
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
        self.phase = Phase::Loading { epoch, installation, revision: 0, parts: Vec::new() };
        Ok(Event::Welcome { installation })
    }

    fn update(&mut self, update: v1::Update) -> Result<Event, Violation> {
        let (got, ends) = (update.revision, update.snapshot_end);
        let change = Change::try_from(update)?;
        match &mut self.phase {
            Phase::Presented => Err(Violation::Unexpected("an update came before Welcome")),
            Phase::Loading { epoch, installation, revision, parts } => {
                *revision = next(*revision, got)?;
                parts.push(change);
                if !ends {
                    return Ok(Event::Alive);
                }
                let (parts, installation) = (std::mem::take(parts), *installation);
                self.phase = Phase::Following { epoch: *epoch, revision: got };
                Ok(Event::Snapshot { installation, revision: got, parts })
            }
            Phase::Following { .. } if ends => Err(Violation::Unexpected("a snapshot ended twice")),
            Phase::Following { revision, .. } => {
                *revision = next(*revision, got)?;
                Ok(Event::Changed { revision: got, change })
            }
        }
    }

    /// The stream's epoch; None before Welcome.
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        match self.phase {
            Phase::Presented => None,
            Phase::Loading { epoch, .. } | Phase::Following { epoch, .. } => Some(epoch),
        }
    }

    /// Puts a message into the stream's envelope.
    pub fn say(&mut self, message: FromNode, now: Instant) -> v1::NodeMessage {
        self.spoke_at = now;
        v1::NodeMessage { epoch: self.epoch().unwrap_or_default(), message: Some(message) }
    }

    /// How often [`Protocol::tick`] is to be called.
    #[must_use]
    pub fn tick_interval(&self) -> Duration {
        self.heartbeat / 2
    }

    /// Looks whether the plugin is still there, and makes a heartbeat if nothing was said lately. Where we were not called
    /// for longer (the machine was suspended, the process stopped or starved), the plugin is not to blame for what we did
    /// not hear.
    ///
    /// # Errors
    /// [`Violation::Silent`].
    pub fn tick(&mut self, now: Instant) -> Result<Option<v1::NodeMessage>, Violation> {
        let away = now.saturating_duration_since(self.looked_at);
        self.looked_at = now;
        if away > self.heartbeat {
            self.heard_at = now.min(self.heard_at + away);
        }
        let silence = now.saturating_duration_since(self.heard_at);
        if silence >= self.heartbeat * SILENT_HEARTBEATS {
            return Err(Violation::Silent(silence));
        }
        let due = now.saturating_duration_since(self.spoke_at) >= self.heartbeat / 2;
        let heartbeat = self.epoch().filter(|_| due);
        Ok(heartbeat.map(|_| self.say(FromNode::Heartbeat(v1::Heartbeat {}), now)))
    }
}

fn next(revision: u64, got: u64) -> Result<u64, Violation> {
    let expected = revision + 1;
    if got == expected { Ok(got) } else { Err(Violation::Revision { got, expected }) }
}

#[cfg(test)]
mod tests;
