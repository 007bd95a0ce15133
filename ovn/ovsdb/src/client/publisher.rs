//! The writing side of a client: the only writer of its replica, status and events.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use tokio::sync::{mpsc, watch};

use super::{ConnectionStatus, Event};
use crate::endpoint::Endpoint;
use crate::replica::{ColumnError, Replica, RowUpdate};
use crate::schema::Schema;
use crate::session::Content;

/// Applies what a connection delivers, then publishes it.
#[derive(Debug)]
pub(super) struct Publisher<R: Replica> {
    pub(super) replica: Arc<RwLock<R>>,
    pub(super) events: mpsc::UnboundedSender<Event<R::Change>>,
    pub(super) status: watch::Sender<ConnectionStatus>,
    pub(super) has_been_live: Arc<AtomicBool>,
    /// Length of the longest message of the connection, in bytes.
    pub(super) longest_message: Arc<AtomicUsize>,
}

impl<R: Replica> Publisher<R> {
    /// Takes the content of a new connection; the client is live from then on.
    pub(super) fn live(
        &self,
        endpoint: &Endpoint,
        schema: Arc<Schema>,
        content: Content,
    ) -> Result<(), ColumnError> {
        let rows = content.rows().len();
        let mut replica = self.replica_mut();
        replica.set_schema(&schema);
        let (is_snapshot, changes) = match content {
            Content::Snapshot(rows) => (true, replica.reload(rows)?),
            Content::Delta(rows) => (false, replica.apply(rows)?),
        };
        drop(replica);
        tracing::debug!(%endpoint, rows, is_snapshot, differences = changes.len(), "received database content");
        self.has_been_live.store(true, Ordering::Release);
        self.status.send_replace(ConnectionStatus::Live { endpoint: endpoint.clone(), schema });
        self.send(Event::Reloaded(changes));
        Ok(())
    }

    /// Takes the updates of a transaction.
    pub(super) fn update(&self, updates: Vec<RowUpdate>) -> Result<(), ColumnError> {
        let changes = self.replica_mut().apply(updates)?;
        if !changes.is_empty() {
            self.send(Event::Changed(changes));
        }
        Ok(())
    }

    /// Publishes an event; the receiver may have been dropped.
    pub(super) fn send(&self, event: Event<R::Change>) {
        let _ = self.events.send(event);
    }

    fn replica_mut(&self) -> RwLockWriteGuard<'_, R> {
        self.replica.write().unwrap_or_else(PoisonError::into_inner)
    }
}
