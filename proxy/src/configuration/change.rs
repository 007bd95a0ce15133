//! What an update changes, with its ids read.

use fiberlb_proto::agent::v1;
use uuid::Uuid;

/// An id that cannot be read: nothing can be said of a resource without one, so that the stream has to end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {value:?}, not a UUID")]
pub struct NotId {
    /// Where it stands.
    pub field: &'static str,
    /// What stands there, cut.
    pub value: String,
}

/// What an update changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// Networks that are new or another.
    pub networks: Vec<(Uuid, v1::Network)>,
    /// Pools.
    pub pools: Vec<(Uuid, v1::Pool)>,
    /// Listeners.
    pub listeners: Vec<(Uuid, v1::Listener)>,
    /// What goes.
    pub removed: Removed,
}

/// Ids of what goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Networks.
    pub networks: Vec<Uuid>,
    /// Pools.
    pub pools: Vec<Uuid>,
    /// Listeners.
    pub listeners: Vec<Uuid>,
}

impl TryFrom<v1::Update> for Change {
    type Error = NotId;

    fn try_from(wire: v1::Update) -> Result<Self, NotId> {
        Ok(Self {
            networks: with_ids("networks.id", wire.networks, |network| &network.id)?,
            pools: with_ids("pools.id", wire.pools, |pool| &pool.id)?,
            listeners: with_ids("listeners.id", wire.listeners, |listener| &listener.id)?,
            removed: Removed {
                networks: ids("removed_network_ids", &wire.removed_network_ids)?,
                pools: ids("removed_pool_ids", &wire.removed_pool_ids)?,
                listeners: ids("removed_listener_ids", &wire.removed_listener_ids)?,
            },
        })
    }
}

fn with_ids<W>(field: &'static str, wire: Vec<W>, id: fn(&W) -> &String) -> Result<Vec<(Uuid, W)>, NotId> {
    wire.into_iter().map(|wire| Ok((read(field, id(&wire))?, wire))).collect()
}

fn ids(field: &'static str, texts: &[String]) -> Result<Vec<Uuid>, NotId> {
    texts.iter().map(|text| read(field, text)).collect()
}

fn read(field: &'static str, text: &str) -> Result<Uuid, NotId> {
    text.parse().map_err(|_| NotId { field, value: text.chars().take(80).collect() })
}
