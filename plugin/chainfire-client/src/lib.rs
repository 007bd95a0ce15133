//! Client of ChainFire, the replicated key-value store with etcd's data model, and thus of any etcd v3
//! cluster.
//!
//! A [`Client`] reaches a cluster by several endpoints and moves to the next one when one fails. It offers
//! five things:
//!
//! * reads of a key or of a range at one revision: [`Client::get`], [`Client::range`], [`Client::pages`];
//! * writes: [`Client::put`], [`Client::delete`];
//! * compare-and-swap transactions: [`Client::transact`];
//! * watches that survive reconnects without a gap: [`Client::watch`];
//! * leases that are kept alive: [`Client::lease`].
//!
//! **Revisions** are the cluster's: one number for all keys, that grows by one with each transaction that changes
//! something. 0 stands for "absent" in a [`Compare`], and for "the newest" in a [`Range`].
//!
//! **Outcomes.** Every call ends within [`Config::timeout`]. An [`Error`] of a write means that nothing was
//! written, except [`Error::Unknown`]: the request was sent and its answer was lost. A write is retried only
//! while it is certain that it was not carried out. Reads are retried until the deadline. All reads are
//! linearizable.
//!
//! **Cancellation.** Dropping the future of a read does nothing. Dropping that of a write leaves open whether it happens.
//!
//! Needs a tokio runtime. The wire format is private to this crate.

mod config;
mod connection;
mod error;
mod kv;
mod lease;
mod transaction;
mod watch;
mod wire;

use std::sync::Arc;

pub use config::{Certificate, Config, Credentials, DEFAULT_PORT, Tls};
pub use error::Error;
pub use kv::{KeyValue, Page, Pages, Range};
pub use lease::{Lease, LeaseId};
pub use transaction::{
    Answer, Compare, MAX_COMPARES, MAX_REQUEST_BYTES, Operation, Outcome, Transaction, max_operations,
};
pub use watch::{Batch, Event, Watch};

/// A cluster. Cheap to clone; all clones share one connection.
#[derive(Clone, Debug)]
pub struct Client {
    connection: Arc<connection::Connection>,
}

impl Client {
    /// A client that connects with its first call.
    ///
    /// # Errors
    /// [`Error::Config`] if an endpoint or a certificate cannot be used.
    pub fn new(config: Config) -> Result<Self, Error> {
        Ok(Self { connection: Arc::new(connection::Connection::new(config)?) })
    }
}
