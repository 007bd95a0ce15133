//! Changes of an update, with parsed ids.

use fiberlb_proto::agent::v1;
use uuid::Uuid;

/// An unreadable id. A resource without an id cannot be acknowledged, so that the stream has to end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value:?}, not a UUID")]
pub struct IdError {
    /// Field of the update.
    pub field: &'static str,
    /// Its value, cut.
    pub value: String,
}

/// Changes of an update.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// New or changed networks.
    pub networks: Vec<(Uuid, v1::Network)>,
    /// New or changed pools.
    pub pools: Vec<(Uuid, v1::Pool)>,
    /// New or changed listeners.
    pub listeners: Vec<(Uuid, v1::Listener)>,
    /// Removed resources.
    pub removed: RemovedIds,
}

/// Ids of removed resources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemovedIds {
    /// Networks.
    pub networks: Vec<Uuid>,
    /// Pools.
    pub pools: Vec<Uuid>,
    /// Listeners.
    pub listeners: Vec<Uuid>,
}

impl TryFrom<v1::Update> for Change {
    type Error = IdError;

    fn try_from(wire: v1::Update) -> Result<Self, IdError> {
        Ok(Self {
            networks: with_ids("networks.id", wire.networks, |network| &network.id)?,
            pools: with_ids("pools.id", wire.pools, |pool| &pool.id)?,
            listeners: with_ids("listeners.id", wire.listeners, |listener| &listener.id)?,
            removed: RemovedIds {
                networks: ids("removed_network_ids", &wire.removed_network_ids)?,
                pools: ids("removed_pool_ids", &wire.removed_pool_ids)?,
                listeners: ids("removed_listener_ids", &wire.removed_listener_ids)?,
            },
        })
    }
}

fn with_ids<W>(field: &'static str, wire: Vec<W>, id: fn(&W) -> &String) -> Result<Vec<(Uuid, W)>, IdError> {
    wire.into_iter().map(|wire| Ok((read(field, id(&wire))?, wire))).collect()
}

fn ids(field: &'static str, texts: &[String]) -> Result<Vec<Uuid>, IdError> {
    texts.iter().map(|text| read(field, text)).collect()
}

fn read(field: &'static str, text: &str) -> Result<Uuid, IdError> {
    text.parse().map_err(|_| IdError { field, value: text.chars().take(80).collect() })
}
