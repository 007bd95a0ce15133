//! What operators want of nodes, as they write it. Any plugin may do so: it is stored by compare-and-swap, and the
//! controller hears of it through the store's change stream.

use std::time::{Duration, Instant};

use super::liveness::Liveness;
use super::records::{Duty, FleetKey, NodeRecord, decode, put, unchanged};
use super::shared::Fleet;
use crate::store::{CommitError, Entry, Revision, StoreError, Transaction, Write};

/// Attempts at a write that collides with others.
const ATTEMPTS: usize = 20;
/// Longest wait for the controller of this plugin to take note, so that whoever asks next sees it.
const NOTED: Duration = Duration::from_secs(1);

/// Why something cannot be done to a node.
#[derive(Debug, thiserror::Error)]
pub enum DutyError {
    /// Nothing is stored of it.
    #[error("there is no node {0}: `fiberlb node list` shows those that have connected once")]
    Unknown(String),
    /// It is connected, or was a moment ago.
    #[error(
        "node {0} is connected, or was a moment ago: drain it, stop fiberlb-proxy there, and remove it once it is DEAD"
    )]
    Connected(String),
    /// Its record is malformed, or of a newer FiberLB.
    #[error("the record of node {0} cannot be read by this release of FiberLB: it is left as it is")]
    Unreadable(String),
    /// The store cannot be read.
    #[error(transparent)]
    Read(#[from] StoreError),
    /// The store cannot be written.
    #[error(transparent)]
    Write(#[from] CommitError),
}

impl Fleet {
    /// Stores what an operator wants of a node, and answers with what is stored of it then. Nothing is written where that
    /// is so already.
    ///
    /// # Errors
    /// There is no such node; the store cannot be read or written.
    pub async fn set_duty(&self, node: &str, duty: Duty) -> Result<NodeRecord, DutyError> {
        let key = FleetKey::Node(node.to_owned());
        let mut conflict = None;
        for _ in 0..ATTEMPTS {
            let (record, entry) = self.stored_node(node).await?;
            if record.duty == duty {
                return Ok(record);
            }
            let record = record.with_duty(duty);
            let write = put(&key, &record).map_err(|error| CommitError::Invalid(error.to_string()))?;
            match self.replace_node(&key, entry.revision, write).await {
                Ok(()) => return Ok(record),
                Err(error @ CommitError::Conflict { .. }) => conflict = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        Err(conflict.unwrap_or(CommitError::Conflict { keys: vec![key.to_string()] }).into())
    }

    /// Forgets a node for good. The controller takes back what it was given.
    ///
    /// Only the plugin that hears the nodes may do that: no other one knows whether this one is connected.
    ///
    /// # Errors
    /// There is no such node; it is not dead; the store cannot be read or written.
    pub async fn remove_node(&self, node: &str) -> Result<(), DutyError> {
        let entry = self.node_entry(node).await?;
        let liveness = self.node(node, |node| node.heard.liveness(Instant::now()));
        if liveness.is_some_and(|liveness| liveness != Liveness::Dead) {
            return Err(DutyError::Connected(node.to_owned()));
        }
        let key = FleetKey::Node(node.to_owned());
        let write = Write::Delete { key: key.to_string() };
        Ok(self.replace_node(&key, entry.revision, write).await?)
    }

    async fn stored_node(&self, node: &str) -> Result<(NodeRecord, Entry), DutyError> {
        let entry = self.node_entry(node).await?;
        let record = decode(&entry.value).ok_or_else(|| DutyError::Unreadable(node.to_owned()))?;
        Ok((record, entry))
    }

    async fn node_entry(&self, node: &str) -> Result<Entry, DutyError> {
        // What is no node id would be another key.
        let unknown = || DutyError::Unknown(node.chars().take(64).collect());
        if node.is_empty() || node.len() > 64 || node.contains('/') {
            return Err(unknown());
        }
        let key = FleetKey::Node(node.to_owned()).to_string();
        self.store.get(&key).await?.ok_or_else(unknown)
    }

    async fn replace_node(&self, key: &FleetKey, before: Revision, write: Write) -> Result<(), CommitError> {
        let transaction = Transaction { compares: vec![unchanged(key, before)], writes: vec![write] };
        let revision = self.store.commit(transaction).await?;
        let mut heard = self.heard.subscribe();
        let noted = heard.wait_for(|heard| heard.is_none_or(|heard| heard >= revision));
        // A controller that is busy takes note later.
        let _ = tokio::time::timeout(NOTED, noted).await;
        Ok(())
    }
}
