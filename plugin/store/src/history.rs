//! Recent change sets, kept in memory for watches.
//!
//! A commit never waits for a watcher: the history is bounded, and a watcher that falls behind its oldest
//! change set is notified. Nothing is kept over a restart.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::stream::{self, StreamExt};
use tokio::sync::watch;

use super::error::WatchError;
use super::revision::Revision;
use super::types::{ChangeSet, Watch};

/// Limits of a history. The newest change set is kept whatever its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryLimits {
    /// Number of change sets.
    pub sets: usize,
    /// Bytes of their keys and values.
    pub bytes: usize,
}

impl Default for HistoryLimits {
    /// 16,384 change sets, 16 MiB: about a second of the highest write rate, which is ages for a live
    /// watcher, and little next to the model.
    fn default() -> Self {
        Self { sets: 16_384, bytes: 16 * 1024 * 1024 }
    }
}

/// Bounded history of one store; shared by the store and its watches.
#[derive(Debug)]
pub(super) struct History {
    ring: Mutex<Ring>,
    /// Wakes watches; carries nothing, so that a missed value does not matter.
    news: watch::Sender<()>,
}

#[derive(Debug)]
struct Ring {
    limits: HistoryLimits,
    /// In revision order: all change sets after `start`.
    sets: VecDeque<Arc<ChangeSet>>,
    bytes: usize,
    start: Revision,
    /// The newest revision that a reader of the store may have seen; ahead of the newest change set while a
    /// commit is in progress.
    seen: Revision,
    closed: bool,
}

impl History {
    /// An empty history of a store whose revision is `current`.
    pub(super) fn new(limits: HistoryLimits, current: Revision) -> Arc<Self> {
        let ring =
            Ring { limits, sets: VecDeque::new(), bytes: 0, start: current, seen: current, closed: false };
        Arc::new(Self { ring: Mutex::new(ring), news: watch::Sender::new(()) })
    }

    /// Announces that readers may see revisions up to `revision` from now on, before its change set is
    /// published.
    pub(super) fn announce(&self, revision: Revision) {
        let mut ring = self.lock();
        ring.seen = ring.seen.max(revision);
    }

    /// Adds `sets`, in revision order and newer than all before, and wakes the watches.
    pub(super) fn publish(&self, sets: impl IntoIterator<Item = ChangeSet>) {
        let mut ring = self.lock();
        sets.into_iter().for_each(|set| ring.push(set));
        drop(ring);
        self.news.send_replace(());
    }

    /// Continues from `revision` without what was published: watches must resync, since the changes in
    /// between are unknown.
    pub(super) fn restart(&self, revision: Revision) {
        let mut ring = self.lock();
        ring.sets.clear();
        ring.bytes = 0;
        ring.start = revision;
        // Revisions that readers have seen come from a commit in progress.
        ring.seen = ring.seen.max(revision);
        drop(ring);
        self.news.send_replace(());
    }

    /// Resets the history after the store went back to an older state: a watch that has seen a revision newer
    /// than `revision` must resync.
    pub(super) fn go_back(&self, revision: Revision) {
        let mut ring = self.lock();
        ring.sets.clear();
        ring.bytes = 0;
        ring.start = revision;
        ring.seen = revision;
        drop(ring);
        self.news.send_replace(());
    }

    /// Ends all watches once they have handed out the kept change sets.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.news.send_replace(());
    }

    /// A watch of the keys that start with `prefix`, beginning after revision `after`.
    pub(super) fn watch(self: &Arc<Self>, prefix: &str, after: Revision) -> Result<Watch, WatchError> {
        self.lock().check(after)?;
        let cursor = Cursor {
            history: Arc::clone(self),
            news: self.news.subscribe(),
            prefix: prefix.to_owned(),
            position: after,
        };
        let changes = stream::unfold(Some(cursor), |cursor| async move {
            let mut cursor = cursor?;
            match cursor.next().await {
                Ok(set) => Some((Ok(set), Some(cursor))),
                Err(error) => Some((Err(error), None)),
            }
        });
        Ok(Watch::new(changes.boxed()))
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn push(&mut self, set: ChangeSet) {
        self.bytes += size(&set);
        self.seen = self.seen.max(set.revision);
        self.sets.push_back(Arc::new(set));
        while self.sets.len() > 1 && self.is_over() {
            self.drop_oldest();
        }
    }

    fn is_over(&self) -> bool {
        self.sets.len() > self.limits.sets || self.bytes > self.limits.bytes
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.sets.pop_front() {
            self.bytes -= size(&oldest);
            self.start = oldest.revision;
        }
    }

    fn check(&self, after: Revision) -> Result<(), WatchError> {
        if after > self.seen {
            return Err(WatchError::Future { after, current: self.seen });
        }
        if after < self.start {
            return Err(WatchError::Compacted { oldest: self.start });
        }
        Ok(())
    }

    fn next_after(&self, position: Revision) -> Result<Option<Arc<ChangeSet>>, WatchError> {
        self.check(position)?;
        let index = self.sets.partition_point(|set| set.revision <= position);
        match self.sets.get(index) {
            Some(set) => Ok(Some(Arc::clone(set))),
            None if self.closed => Err(WatchError::Closed),
            None => Ok(None),
        }
    }
}

/// Position of one watch.
struct Cursor {
    history: Arc<History>,
    news: watch::Receiver<()>,
    prefix: String,
    position: Revision,
}

impl Cursor {
    async fn next(&mut self) -> Result<Arc<ChangeSet>, WatchError> {
        loop {
            // Marked before the look, so that what is published after the look wakes the wait below.
            self.news.mark_unchanged();
            let Some(set) = self.history.lock().next_after(self.position)? else {
                self.news.changed().await.map_err(|_| WatchError::Closed)?;
                continue;
            };
            self.position = set.revision;
            if let Some(set) = reduce(set, &self.prefix) {
                return Ok(set);
            }
        }
    }
}

/// `set` without the keys outside `prefix`; `None` if none is left.
fn reduce(set: Arc<ChangeSet>, prefix: &str) -> Option<Arc<ChangeSet>> {
    let inside = set.changes.iter().filter(|change| change.key.starts_with(prefix));
    match inside.clone().count() {
        0 => None,
        all if all == set.changes.len() => Some(set),
        _ => Some(Arc::new(ChangeSet { revision: set.revision, changes: inside.cloned().collect() })),
    }
}

fn size(set: &ChangeSet) -> usize {
    set.changes.iter().map(|change| change.key.len() + change.value.as_ref().map_or(0, |v| v.len())).sum()
}

#[cfg(test)]
mod tests {
    use super::super::types::Change;
    use super::*;

    fn set(revision: u64) -> ChangeSet {
        ChangeSet { revision: Revision(revision), changes: vec![Change { key: "/a".into(), value: None }] }
    }

    #[tokio::test]
    async fn an_announced_revision_can_be_watched_before_it_is_published() {
        let history = History::new(HistoryLimits::default(), Revision(4));
        history.announce(Revision(5));
        let mut watch = history.watch("", Revision(5)).unwrap();
        history.publish([set(5), set(6)]);
        assert_eq!(watch.next().await.unwrap().revision, Revision(6));
    }

    #[tokio::test]
    async fn watches_do_not_pass_a_restart() {
        let history = History::new(HistoryLimits::default(), Revision(4));
        let (mut before, mut at) =
            (history.watch("", Revision(4)).unwrap(), history.watch("", Revision(4)).unwrap());
        history.publish([set(5), set(6)]);
        assert_eq!(at.next().await.unwrap().revision, Revision(5));
        history.restart(Revision(6));
        history.publish([set(7)]);
        let compacted = Err(WatchError::Compacted { oldest: Revision(6) });
        assert_eq!(before.next().await, compacted);
        assert_eq!(at.next().await, compacted);
        assert_eq!(history.watch("", Revision(6)).unwrap().next().await.unwrap().revision, Revision(7));
    }
}
