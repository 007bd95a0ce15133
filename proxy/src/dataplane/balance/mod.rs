//! Balancing: which backend serves a client, by the keys of the client, whatever protocol these come from.

mod division;
mod ejection;
mod hash;
mod key;
mod passive;
mod persistence;
mod pool;
mod rotation;
mod selection;
mod weight;

pub(in crate::dataplane) use self::rotation::BackendState;
pub(in crate::dataplane) use self::{
    division::PoolDivision,
    ejection::FailureEffect,
    key::ClientKeys,
    pool::{PoolSnapshot, WorkerPool},
    selection::EjectedUse,
};
pub use self::{passive::Ejection, rotation::Rotation};
