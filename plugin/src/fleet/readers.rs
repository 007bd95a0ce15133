//! Readers of access logs: whose connections nodes are to send, and who gets what they send.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use uuid::Uuid;

use crate::agents::MOST_READ;
use crate::api::{ApiError, LogBatch, LogQueue, LoggedConnection};

/// Readers of all listeners.
#[derive(Debug)]
pub(in crate::fleet) struct LogReaders {
    readers: Mutex<BTreeMap<Uuid, Vec<Arc<LogQueue>>>>,
    listeners: watch::Sender<Arc<BTreeSet<Uuid>>>,
}

/// A reader of one listener, until it is dropped.
#[derive(Debug)]
pub(crate) struct LogReader {
    listener: Uuid,
    waiting: Arc<LogQueue>,
    all: Arc<LogReaders>,
}

impl Default for LogReaders {
    fn default() -> Self {
        Self { readers: Mutex::default(), listeners: watch::Sender::new(Arc::default()) }
    }
}

impl LogReaders {
    /// Listeners that are read.
    pub(in crate::fleet) fn listeners(&self) -> watch::Receiver<Arc<BTreeSet<Uuid>>> {
        self.listeners.subscribe()
    }

    /// Reads a listener from now on.
    ///
    /// # Errors
    /// As many as a node can be told of are read.
    pub(in crate::fleet) fn read(self: &Arc<Self>, listener: Uuid) -> Result<LogReader, ApiError> {
        let waiting = Arc::<LogQueue>::default();
        let mut readers = self.lock();
        if readers.len() >= MOST_READ && !readers.contains_key(&listener) {
            let text = format!("access logs of {MOST_READ} listeners are read; that is the limit");
            return Err(ApiError::limit("access_logs", text));
        }
        readers.entry(listener).or_default().push(Arc::clone(&waiting));
        self.publish(&readers);
        Ok(LogReader { listener, waiting, all: Arc::clone(self) })
    }

    /// Passes connections of a listener on, and the number of those that were left out.
    pub(in crate::fleet) fn pass(&self, listener: Uuid, connections: &[LoggedConnection], omitted: u64) {
        let readers = self.lock().get(&listener).cloned().unwrap_or_default();
        readers.iter().for_each(|reader| reader.add(connections, omitted));
    }

    /// Tells the nodes of it if other listeners are read than before.
    fn publish(&self, readers: &BTreeMap<Uuid, Vec<Arc<LogQueue>>>) {
        self.listeners.send_if_modified(|before| {
            let is_other = !before.iter().eq(readers.keys());
            if is_other {
                *before = Arc::new(readers.keys().copied().collect());
            }
            is_other
        });
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Uuid, Vec<Arc<LogQueue>>>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogReader {
    /// Takes what has come since the last call, once there is something.
    pub(crate) async fn next(&self) -> LogBatch {
        self.waiting.next().await
    }
}

impl Drop for LogReader {
    fn drop(&mut self) {
        let mut readers = self.all.lock();
        if let Some(of_listener) = readers.get_mut(&self.listener) {
            of_listener.retain(|other| !Arc::ptr_eq(other, &self.waiting));
            if of_listener.is_empty() {
                readers.remove(&self.listener);
            }
        }
        self.all.publish(&readers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ErrorReason;

    const LISTENER: Uuid = Uuid::from_u128(1);

    fn connection(number: u64) -> LoggedConnection {
        LoggedConnection::example(LISTENER, number)
    }

    #[tokio::test]
    async fn each_reader_of_a_listener_gets_its_connections() {
        let all = Arc::<LogReaders>::default();
        let [one, two, other] = [LISTENER, LISTENER, Uuid::from_u128(2)].map(|id| all.read(id).unwrap());
        all.pass(LISTENER, &[connection(1), connection(2)], 3);
        for reader in [&one, &two] {
            let batch = reader.next().await;
            assert_eq!((batch.connections, batch.omitted), (vec![connection(1), connection(2)], 3));
            assert_eq!(reader.waiting.take(), None);
        }
        assert_eq!(other.waiting.take(), None);
    }

    #[test]
    fn nodes_are_told_of_listeners_while_somebody_reads_them() {
        let all = Arc::<LogReaders>::default();
        let mut told = all.listeners();
        let [one, two] = [LISTENER; 2].map(|id| all.read(id).unwrap());
        assert!(told.has_changed().unwrap() && told.borrow_and_update().contains(&LISTENER));
        drop(one);
        assert!(!told.has_changed().unwrap(), "another one reads it");
        drop(two);
        assert!(told.borrow_and_update().is_empty());
        assert!(all.lock().is_empty());
    }

    #[test]
    fn no_more_listeners_are_read_than_a_node_can_be_told_of() {
        let all = Arc::<LogReaders>::default();
        let readers: Vec<LogReader> =
            (0..MOST_READ as u128).map(|id| all.read(Uuid::from_u128(id)).unwrap()).collect();
        assert_eq!(all.read(Uuid::max()).unwrap_err().reason, ErrorReason::LimitExceeded);
        assert!(all.read(Uuid::from_u128(0)).is_ok(), "one more reader of the same");
        drop(readers);
        assert!(all.read(Uuid::max()).is_ok());
    }
}
