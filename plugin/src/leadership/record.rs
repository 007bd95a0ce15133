//! What the plugin that leads says of itself in the store.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::agents::PeerAddress;
use crate::resources::now_ms;

/// Version of the JSON form.
const VERSION: u32 = 1;

/// The plugin that leads. Stored under [`leader_key`](crate::resources::leader_key).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaderRecord {
    version: u32,
    /// Which process: another one each time that a plugin starts.
    pub plugin: Uuid,
    /// The machine that it runs on, for people.
    pub host: String,
    /// Where it hears node agents and other plugins; `None`: nowhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agents: Option<PeerAddress>,
    /// When it was chosen, in milliseconds since 1970.
    pub since: u64,
}

impl LeaderRecord {
    /// The record of a plugin.
    pub fn new(plugin: Uuid, host: String, agents: Option<PeerAddress>) -> Self {
        Self { version: VERSION, plugin, host, agents, since: now_ms() }
    }

    /// The same, chosen now.
    #[must_use]
    pub fn at_this_moment(&self) -> Self {
        Self { since: now_ms(), ..self.clone() }
    }

    /// Its stored form.
    pub fn encode(&self) -> Vec<u8> {
        // It has no map and no foreign type: it can always be written.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads its stored form; `None` for what is malformed or of a newer version, with whom this plugin cannot talk.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let record: Self = serde_json::from_slice(bytes).ok()?;
        (record.version <= VERSION).then_some(record)
    }
}
