//! Balancing: which backend serves a client, by the keys of the client, whatever protocol these come from.

mod hash;
mod instant;
mod key;
mod persistence;
mod pool;
mod rotation;
mod selection;
mod weight;

pub(in crate::dataplane) use self::rotation::BackendState;
pub use self::rotation::Rotation;
pub(in crate::dataplane) use self::{
    key::ClientKeys,
    pool::{PoolSnapshot, WorkerPool},
};
