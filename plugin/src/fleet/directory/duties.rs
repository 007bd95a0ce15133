//! Duties of nodes, set by operators. Any plugin writes them, by compare-and-swap; the controller receives
//! them through the store's change stream.

use std::time::{Duration, Instant};

use crate::fleet::directory::records::{Duty, FleetKey, NodeRecord, decode, put, unchanged};
use crate::fleet::facade::Fleet;
use fiberlb_store::{CommitError, Entry, Revision, StoreError, Transaction, Write};

/// Attempts at a write that collides with other writes.
const ATTEMPTS: usize = 20;
/// Longest wait for this plugin's controller to apply the change, so that a later read shows it.
const APPLY_WAIT: Duration = Duration::from_secs(1);

/// Reason why an operation on a node is refused.
#[derive(Debug, thiserror::Error)]
pub enum DutyError {
    /// It has no stored record.
    #[error("there is no node {0}: `fiberlb node list` shows those that have connected once")]
    Unknown(String),
    /// It is connected, or was until a moment ago.
    #[error(
        "node {0} is connected, or was a moment ago: drain it, stop fiberlb-proxy there, and remove it once it is DEAD"
    )]
    Connected(String),
    /// The nodes are connected to the leader, which this plugin is not.
    #[error(
        "this plugin does not hear the proxy nodes, and cannot know whether {0} is connected: ask the one that leads"
    )]
    Elsewhere(String),
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
    /// Changes a node's duty by `change`, and returns the stored record. Idempotent: an equal duty is not
    /// written.
    ///
    /// # Errors
    /// There is no such node; the store cannot be read or written.
    pub async fn set_duty(&self, node: &str, change: impl Fn(Duty) -> Duty) -> Result<NodeRecord, DutyError> {
        let key = FleetKey::Node(node.to_owned());
        let mut conflict = None;
        for _ in 0..ATTEMPTS {
            let (record, entry) = self.stored_node(node).await?;
            let duty = change(record.duty);
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

    /// Removes a node for good. The controller releases its allocations.
    ///
    /// Only the leader may do that: no follower knows whether the node is connected.
    ///
    /// # Errors
    /// There is no such node; it is not dead, or this plugin is no leader; the store cannot be read or
    /// written.
    pub async fn remove_node(&self, node: &str) -> Result<(), DutyError> {
        let entry = self.node_entry(node).await?;
        if self.applied.borrow().is_none() {
            return Err(DutyError::Elsewhere(node.to_owned()));
        }
        if self.node(node, |node| node.is_there(Instant::now())) == Some(true) {
            return Err(DutyError::Connected(node.to_owned()));
        }
        let key = FleetKey::Node(node.to_owned());
        let write = Write::Delete { key: key.to_string() };
        Ok(self.replace_node(&key, entry.revision, write).await?)
    }

    /// Stored record of a node.
    ///
    /// # Errors
    /// There is no such node; the store cannot be read.
    pub async fn record_of(&self, node: &str) -> Result<NodeRecord, DutyError> {
        Ok(self.stored_node(node).await?.0)
    }

    async fn stored_node(&self, node: &str) -> Result<(NodeRecord, Entry), DutyError> {
        let entry = self.node_entry(node).await?;
        let record = decode(&entry.value).ok_or_else(|| DutyError::Unreadable(node.to_owned()))?;
        Ok((record, entry))
    }

    async fn node_entry(&self, node: &str) -> Result<Entry, DutyError> {
        // Anything that is no node id would be another key.
        let unknown = || DutyError::Unknown(node.chars().take(64).collect());
        if node.is_empty() || node.len() > 64 || node.contains('/') {
            return Err(unknown());
        }
        let key = FleetKey::Node(node.to_owned()).to_string();
        self.store.get(&key).await?.ok_or_else(unknown)
    }

    async fn replace_node(&self, key: &FleetKey, before: Revision, write: Write) -> Result<(), CommitError> {
        let transaction = Transaction { compares: vec![unchanged(key, before)], writes: vec![write] };
        let revision = self.commit(transaction).await?;
        let mut applied = self.applied.subscribe();
        let noted = applied.wait_for(|applied| applied.is_none_or(|applied| applied >= revision));
        // A busy controller applies it later.
        let _ = tokio::time::timeout(APPLY_WAIT, noted).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::agents::Observer as _;
    use crate::fleet::controller::Controller;
    use crate::fleet::directory::node::Node;
    use crate::fleet::examples::{fleet, join};
    use crate::status::DEAD_AFTER;

    async fn stored(fleet: &Fleet, node: &str) -> (Duty, Revision) {
        let (record, entry) = fleet.stored_node(node).await.unwrap();
        (record.duty, entry.revision)
    }

    #[tokio::test]
    async fn what_an_operator_wants_is_stored_once() {
        let fleet = fleet(|_| {}).await;
        fleet.set_duty("a", |_| Duty::Draining).await.unwrap();
        let first = stored(&fleet, "a").await;
        assert_eq!(first.0, Duty::Draining);
        fleet.set_duty("a", |_| Duty::Draining).await.unwrap();
        fleet.set_duty("a", Duty::cordoned).await.unwrap();
        assert_eq!(stored(&fleet, "a").await, first, "cordoning does not end a drain");
        fleet.set_duty("a", |_| Duty::Active).await.unwrap();
        assert_eq!(stored(&fleet, "a").await.0, Duty::Active);
    }

    #[tokio::test]
    async fn nodes_that_never_were_cannot_be_meant() {
        let fleet = fleet(|_| {}).await;
        for node in ["z", "", "a/b", &"a".repeat(65)] {
            let refused = fleet.set_duty(node, Duty::cordoned).await;
            assert!(matches!(refused, Err(DutyError::Unknown(_))), "{node:?}: {refused:?}");
            assert!(matches!(fleet.remove_node(node).await, Err(DutyError::Unknown(_))));
        }
        let key = FleetKey::Node("broken".to_owned()).to_string();
        let write = Write::Put { key, value: b"{".to_vec() };
        fleet.store.commit(Transaction { compares: vec![], writes: vec![write] }).await.unwrap();
        let refused = fleet.set_duty("broken", Duty::cordoned).await;
        assert!(matches!(refused, Err(DutyError::Unreadable(_))), "{refused:?}");
    }

    #[tokio::test]
    async fn only_a_dead_node_is_removed() {
        let fleet = Arc::new(fleet(|_| {}).await);
        assert!(matches!(fleet.remove_node("a").await, Err(DutyError::Elsewhere(_))));
        let _controller = Controller::new(Arc::clone(&fleet)).await.unwrap();
        join(&fleet, &["a"]);
        assert!(matches!(fleet.remove_node("a").await, Err(DutyError::Connected(_))));
        fleet.left("a", 1, "it went", false);
        assert!(
            matches!(fleet.remove_node("a").await, Err(DutyError::Connected(_))),
            "it may return at once"
        );
        let silence =
            |node: &mut Node| node.contact.last = node.contact.last.and_then(|at| at.checked_sub(DEAD_AFTER));
        fleet.state_mut().node_of_stream("a", 1).map(silence).unwrap();
        fleet.remove_node("a").await.unwrap();
        assert!(matches!(fleet.record_of("a").await, Err(DutyError::Unknown(_))));
    }
}
