//! Reads at one revision, at which no staged transaction is partly applied.

use chainfire_client::{Client, Error, KeyValue, Operation, Page, Range, Transaction};
use futures_util::stream::{self, StreamExt};

use super::super::{Entry, Revision, Snapshot, StoreError, Value};
use super::commit::{look, page};
use super::errors;
use super::layout::Layout;

/// Reads the store.
#[derive(Clone, Debug)]
pub(super) struct ClusterReader {
    pub(super) client: Client,
    pub(super) layout: Layout,
}

/// The revisions that applied one staged transaction; the last one is the transaction's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Interval {
    first: u64,
    last: u64,
}

impl Interval {
    /// `None` while it is being applied.
    fn of(entry: &KeyValue) -> Option<Self> {
        let interval = Self { first: entry.create_revision, last: entry.revision };
        (interval.first < interval.last).then_some(interval)
    }
}

/// In the order of their revisions; they do not overlap, since only one staged transaction is in progress at
/// a time.
#[derive(Debug, Default)]
struct Intervals(Vec<Interval>);

impl Intervals {
    fn new(entries: impl IntoIterator<Item = KeyValue>) -> Self {
        let mut intervals: Vec<_> = entries.into_iter().filter_map(|entry| Interval::of(&entry)).collect();
        intervals.sort_by_key(|interval| interval.first);
        Self(intervals)
    }

    /// The store's revision of a key that the cluster's `revision` put.
    fn revision(&self, revision: u64) -> u64 {
        let index = self.0.partition_point(|interval| interval.last < revision);
        match self.0.get(index) {
            Some(interval) if interval.first <= revision => interval.last,
            _ => revision,
        }
    }
}

/// The newest revision at which no staged transaction is partly applied: before the one in progress, if any.
/// It includes all acknowledged writes, since a staged transaction is acknowledged only when it is applied.
pub(super) async fn stable(client: &Client, layout: &Layout) -> Result<u64, Error> {
    Ok(stable_of(&client.range(Range::key(layout.lock()).keys_only()).await?))
}

/// The same, given the page of the lock. While it exists, only its holder writes.
fn stable_of(lock: &Page) -> u64 {
    lock.entries.first().map_or(lock.revision, |lock| lock.create_revision)
}

/// The store's revision of a key that the cluster's `revision` put.
pub(super) async fn revision_of(client: &Client, layout: &Layout, revision: u64) -> Result<u64, Error> {
    let mut around = layout.intervals().keys_only();
    around.min_revision = revision;
    around.max_create_revision = revision;
    Ok(Intervals::new(client.range(around).await?.entries).revision(revision))
}

async fn intervals(client: &Client, layout: &Layout, revision: u64) -> Result<Intervals, Error> {
    let mut pages = client.pages(layout.intervals().keys_only().at(revision));
    let mut entries = Vec::new();
    while let Some(page) = pages.next().await? {
        entries.extend(page.entries);
    }
    Ok(Intervals::new(entries))
}

/// Garbage-collects intervals in which no key was last put.
pub(super) async fn drop_unused_intervals(client: &Client, layout: &Layout) -> Result<(), Error> {
    let revision = stable(client, layout).await?;
    let mut pages = client.pages(layout.intervals().keys_only().at(revision));
    let mut unused = Vec::new();
    while let Some(page) = pages.next().await? {
        unused.extend(page.entries.into_iter().filter_map(|entry| Some((Interval::of(&entry)?, entry.key))));
    }
    if unused.is_empty() {
        return Ok(());
    }
    let mut pages = client.pages(layout.all().keys_only().at(revision));
    while let Some(page) = pages.next().await? {
        for entry in page.entries {
            // The last revision needs no interval.
            unused.retain(|(interval, _)| !(interval.first..interval.last).contains(&entry.revision));
        }
    }
    for (_, key) in unused {
        client.delete(key).await?;
    }
    Ok(())
}

impl ClusterReader {
    pub(super) async fn get(self, key: String) -> Result<Option<Entry>, StoreError> {
        if self.layout.data(key.as_bytes()).is_none() {
            return Ok(None);
        }
        self.read(&key).await.map_err(|error| errors::store(&error))
    }

    async fn read(&self, key: &str) -> Result<Option<Entry>, Error> {
        let reads = Transaction {
            then: vec![look(&self.layout.lock()), Operation::Get(Range::key(key))],
            ..Transaction::default()
        };
        let mut pages = self.client.transact(reads).await?.answers.into_iter().map(page);
        let (lock, mut found) = (pages.next().unwrap_or_default(), pages.next().unwrap_or_default());
        let stable = stable_of(&lock);
        if found.entries.first().is_none_or(|entry| entry.revision > stable) && !lock.entries.is_empty() {
            found = self.client.range(Range::key(key).at(stable)).await?;
        }
        let Some(entry) = found.entries.pop() else { return Ok(None) };
        let revision = revision_of(&self.client, &self.layout, entry.revision).await?;
        Ok(Some(Entry { key: key.to_owned(), value: Value::from(entry.value), revision: Revision(revision) }))
    }

    pub(super) async fn snapshot(self, prefix: String) -> Result<Snapshot, StoreError> {
        let revision = stable(&self.client, &self.layout).await.map_err(|error| errors::store(&error))?;
        let Some(range) = self.layout.range(&prefix) else {
            return Ok(Snapshot::new(Revision(revision), stream::empty().boxed()));
        };
        let intervals = intervals(&self.client, &self.layout, revision).await;
        let intervals = intervals.map_err(|error| errors::store(&error))?;
        let pages = self.client.pages(range.at(revision));
        let chunks =
            stream::try_unfold((self.layout, intervals, pages), |(layout, intervals, mut pages)| async {
                loop {
                    let next = pages.next().await.map_err(|error| errors::store(&error))?;
                    let Some(page) = next else { return Ok(None) };
                    let entries: Vec<_> =
                        page.entries.into_iter().filter_map(|kv| entry(&layout, &intervals, kv)).collect();
                    if !entries.is_empty() {
                        return Ok(Some((entries, (layout, intervals, pages))));
                    }
                }
            });
        Ok(Snapshot::new(Revision(revision), chunks.boxed()))
    }
}

fn entry(layout: &Layout, intervals: &Intervals, kv: KeyValue) -> Option<Entry> {
    let key = layout.data(&kv.key)?.to_owned();
    let revision = Revision(intervals.revision(kv.revision));
    Some(Entry { key, value: Value::from(kv.value), revision })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revisions_within_an_interval_are_its_last() {
        let interval = |first, last| Interval { first, last };
        let intervals = Intervals(vec![interval(3, 5), interval(8, 12)]);
        let translated: Vec<_> = (1..=13).map(|revision| intervals.revision(revision)).collect();
        assert_eq!(translated, [1, 2, 5, 5, 5, 6, 7, 12, 12, 12, 12, 12, 13]);
        assert_eq!(Intervals::default().revision(4), 4);
    }
}
