//! Stored record of the leader.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::agents::PeerAddress;
use crate::resources::now_ms;

/// Version of the JSON form.
const VERSION: u32 = 1;

/// The leader. Stored under [`leader_key`](crate::resources::leader_key).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderRecord {
    version: u32,
    /// Id of the process, random at each start.
    pub plugin: Uuid,
    /// Host name, for display.
    pub host: String,
    /// Address at which it accepts node agents and other plugins; `None`: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agents: Option<PeerAddress>,
    /// Election time, in milliseconds since 1970.
    pub since: u64,
}

impl LeaderRecord {
    /// The record of a plugin.
    pub fn new(plugin: Uuid, host: String, agents: Option<PeerAddress>) -> Self {
        Self { version: VERSION, plugin, host, agents, since: now_ms() }
    }

    /// The same record, elected now.
    #[must_use]
    pub fn elected_now(&self) -> Self {
        Self { since: now_ms(), ..self.clone() }
    }

    /// Encodes the stored form, JSON.
    pub fn encode(&self) -> Vec<u8> {
        // It has no map and no foreign type: encoding cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads its stored form; `None` if it is malformed or of a newer version, whose leader this plugin
    /// cannot connect to.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let record: Self = serde_json::from_slice(bytes).ok()?;
        (record.version <= VERSION).then_some(record)
    }
}
