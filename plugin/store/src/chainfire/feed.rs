//! Feeds changes of the cluster into the history, as change sets.

use std::sync::Arc;
use std::time::Duration;

use chainfire_client::{Batch, Client, Error, Event};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::super::history::History;
use super::super::{Change, ChangeSet, Revision, Value};
use super::layout::Layout;
use super::{read, staged};

/// Pause before a retry after a transient failure.
const PAUSE: Duration = Duration::from_secs(1);

/// Assembles change sets from the events of the cluster's watch. Does no IO.
struct Assembler {
    layout: Layout,
    /// Changes so far of a staged transaction that is being applied.
    staged: Option<Vec<Change>>,
}

impl Assembler {
    fn take(&mut self, batch: Batch) -> Option<ChangeSet> {
        let mark = batch.events.iter().find_map(|event| self.mark(event));
        let changes = batch.events.into_iter().filter_map(|event| change(&self.layout, event));
        let mut changes: Vec<_> = changes.collect();
        let revision = Revision(batch.revision);
        match (mark, &mut self.staged) {
            (Some(Mark::Committed), staged) => {
                *staged = Some(changes);
                None
            }
            // Also if it changed nothing: its writer waits for it.
            (Some(Mark::Applied), staged) => {
                let mut all = staged.take().unwrap_or_default();
                all.append(&mut changes);
                Some(ChangeSet { revision, changes: all })
            }
            (None, Some(staged)) => {
                staged.append(&mut changes);
                None
            }
            (None, None) => (!changes.is_empty()).then_some(ChangeSet { revision, changes }),
        }
    }

    fn mark(&self, event: &Event) -> Option<Mark> {
        match event {
            Event::Put(entry) if self.layout.is_interval(&entry.key) => {
                Some(if entry.create_revision == entry.revision { Mark::Committed } else { Mark::Applied })
            }
            Event::Put(_) | Event::Delete { .. } => None,
        }
    }
}

/// Meaning of an interval key.
enum Mark {
    Committed,
    Applied,
}

fn change(layout: &Layout, event: Event) -> Option<Change> {
    let key = layout.data(event.key())?.to_owned();
    Some(match event {
        Event::Put(entry) => Change { key, value: Some(Value::from(entry.value)) },
        Event::Delete { .. } => Change { key, value: None },
    })
}

/// Feeds a history from the cluster.
pub(super) struct Feed {
    client: Client,
    history: Arc<History>,
    assembler: Assembler,
    start: u64,
}

impl Feed {
    /// A feed of the changes after revision `start`, at which no staged transaction is partly applied.
    pub(super) fn new(client: Client, layout: Layout, history: Arc<History>, start: u64) -> Self {
        Self { client, history, assembler: Assembler { layout, staged: None }, start }
    }

    /// Runs until aborted; the receiver has the newest revision handed out.
    pub(super) fn spawn(self) -> (JoinHandle<()>, watch::Receiver<Revision>) {
        let (shown, receiver) = watch::channel(Revision(self.start));
        (tokio::spawn(self.run(shown)), receiver)
    }

    async fn run(mut self, shown: watch::Sender<Revision>) {
        loop {
            match self.follow(&shown).await {
                Error::Compacted { .. } => {
                    tracing::warn!("changes of the store were compacted before they were read; resyncing");
                }
                error => {
                    tracing::error!(%error, "watch of the store failed; retrying");
                    tokio::time::sleep(PAUSE).await;
                }
            }
            self.begin_anew().await;
            shown.send_replace(Revision(self.start));
        }
    }

    /// Publishes change sets until the watch fails.
    async fn follow(&mut self, shown: &watch::Sender<Revision>) -> Error {
        let mut watch = self.client.watch(&self.assembler.layout.all(), self.start.saturating_add(1));
        loop {
            let batch = match timeout(staged::SILENCE, watch.next()).await {
                Ok(Ok(batch)) => batch,
                Ok(Err(error)) => return error,
                Err(_) => {
                    self.help().await;
                    continue;
                }
            };
            if let Some(set) = self.assembler.take(batch) {
                let revision = set.revision;
                self.history.publish([set]);
                shown.send_replace(revision);
            }
        }
    }

    /// Applies a staged transaction whose writer is silent.
    async fn help(&self) {
        if self.assembler.staged.is_none() {
            return;
        }
        if let Err(error) = staged::finish(&self.client, &self.assembler.layout).await {
            tracing::error!(%error, "cannot apply staged transaction; retrying, the store takes no writes until then");
        }
    }

    /// Resyncs at the newest stable revision; the changes in between are unknown.
    async fn begin_anew(&mut self) {
        self.assembler.staged = None;
        loop {
            match read::stable(&self.client, &self.assembler.layout).await {
                Ok(revision) => {
                    self.start = revision;
                    self.history.restart(Revision(revision));
                    return;
                }
                Err(error) => tracing::error!(%error, "cannot read the store; retrying"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use chainfire_client::KeyValue;

    use super::*;

    fn put(key: &str, create_revision: u64, revision: u64) -> Event {
        let (key, value) = (key.into(), b"v".to_vec());
        Event::Put(KeyValue { key, value, create_revision, revision, lease: None })
    }

    /// Revision and number of changes of each change set.
    fn sets(batches: Vec<Vec<Event>>) -> Vec<(u64, usize)> {
        let mut assembler = Assembler { layout: Layout::new("/d/".into()), staged: None };
        let batches = (1..).zip(batches).map(|(revision, events)| Batch { revision, events });
        let sets = batches.filter_map(|batch| assembler.take(batch));
        sets.map(|set| (set.revision.0, set.changes.len())).collect()
    }

    #[test]
    fn what_applies_a_staged_transaction_is_one_change_set() {
        let sets = sets(vec![
            vec![put("/d/a", 1, 1), put("/d/b", 1, 1)],
            vec![put("/d/chainfire/lock", 2, 2)],
            vec![put("/d/chainfire/chunks/0", 3, 3)],
            vec![put("/d/chainfire/lock", 2, 4), put("/d/chainfire/intervals/x", 4, 4)],
            vec![put("/d/a", 1, 5), put("/d/c", 5, 5), put("/d/chainfire/lock", 2, 5)],
            vec![Event::Delete { key: b"/d/b".to_vec() }, put("/d/chainfire/intervals/x", 4, 6)],
            vec![Event::Delete { key: b"/d/chainfire/intervals/x".to_vec() }],
            vec![put("/d/a", 1, 8)],
        ]);
        assert_eq!(sets, [(1, 2), (6, 3), (8, 1)]);
    }
}
