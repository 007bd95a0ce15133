//! Reads of keys and ranges.

use crate::Client;
use crate::error::{Access, Error};
use crate::lease::LeaseId;
use crate::wire::kv_client::KvClient;
use crate::wire::{self, RangeRequest, RangeResponse};

/// Largest accepted answer: a page of small keys is far below it, and a hostile member cannot fill the
/// memory.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// Keys on the first page; the next ones are sized by the keys' weight.
const FIRST_PAGE: u32 = 64;
/// Most keys on a page. For each page a member of etcd walks its index of all remaining keys, however few are
/// requested: many small pages of a large range would take it far longer than sending their content.
const LARGEST_PAGE: u32 = 32 * 1024;
/// Target size of a page.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// A key as it was at some revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Vec<u8>,
    /// Its value; empty if only keys were requested.
    pub value: Vec<u8>,
    /// The revision that made the key.
    pub create_revision: u64,
    /// The revision that last put it.
    pub revision: u64,
    /// The lease that it lives on.
    pub lease: Option<LeaseId>,
}

/// Range of keys to read. Start from [`Range::key`] or [`Range::prefix`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    from: Vec<u8>,
    /// Empty: the one key.
    end: Vec<u8>,
    /// As the keys were at this revision; 0: now.
    pub revision: u64,
    /// Most keys of the answer; 0: all.
    pub limit: u32,
    /// Leave the values out.
    pub keys_only: bool,
    /// Only keys that were last put by this revision or a later one; 0: all.
    pub min_revision: u64,
    /// Only keys that were last put by this revision or an earlier one; 0: all.
    pub max_revision: u64,
    /// Only keys that were made by this revision or an earlier one; 0: all.
    pub max_create_revision: u64,
}

impl Range {
    /// One key.
    pub fn key(key: impl Into<Vec<u8>>) -> Self {
        Self { from: key.into(), ..Self::default() }
    }

    /// All keys that start with `prefix`; empty: all keys.
    pub fn prefix(prefix: impl Into<Vec<u8>>) -> Self {
        let prefix = prefix.into();
        let end = wire::prefix_end(&prefix);
        // An empty key is none to the wire; the least key is one zero byte.
        Self { from: if prefix.is_empty() { vec![0] } else { prefix }, end, ..Self::default() }
    }

    /// The keys of this range from `key` on.
    #[must_use]
    pub fn starting_at(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.from = key.into();
        self
    }

    /// As the keys were at `revision`; 0: now.
    #[must_use]
    pub fn at(mut self, revision: u64) -> Self {
        self.revision = revision;
        self
    }

    /// Without the values.
    #[must_use]
    pub fn keys_only(mut self) -> Self {
        self.keys_only = true;
        self
    }

    pub(crate) fn bounds(&self) -> (Vec<u8>, Vec<u8>) {
        (self.from.clone(), self.end.clone())
    }

    pub(crate) fn to_wire(&self) -> RangeRequest {
        RangeRequest {
            key: self.from.clone(),
            range_end: self.end.clone(),
            limit: self.limit.into(),
            revision: wire::to_wire(self.revision),
            serializable: false,
            keys_only: self.keys_only,
            min_mod_revision: wire::to_wire(self.min_revision),
            max_mod_revision: wire::to_wire(self.max_revision),
            max_create_revision: wire::to_wire(self.max_create_revision),
        }
    }
}

/// Result of a read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The cluster's revision when it answered; not the requested one.
    pub revision: u64,
    /// In the order of the keys.
    pub entries: Vec<KeyValue>,
    /// There are more keys than [`Range::limit`].
    pub more: bool,
}

impl Page {
    pub(crate) fn from_wire(response: RangeResponse) -> Self {
        Self {
            revision: wire::revision(response.header.as_ref()),
            entries: response.kvs.into_iter().map(entry).collect(),
            more: response.more,
        }
    }
}

pub(crate) fn entry(kv: wire::KeyValue) -> KeyValue {
    KeyValue {
        key: kv.key,
        value: kv.value,
        create_revision: wire::from_wire(kv.create_revision),
        revision: wire::from_wire(kv.mod_revision),
        lease: LeaseId::from_wire(kv.lease),
    }
}

impl Client {
    /// The key as it is now; `None`: it is absent.
    ///
    /// # Errors
    /// As [`Client::range`].
    pub async fn get(&self, key: impl Into<Vec<u8>>) -> Result<Option<KeyValue>, Error> {
        Ok(self.range(Range::key(key)).await?.entries.pop())
    }

    /// Reads a range with one request. Large ranges are better read with [`Client::pages`].
    ///
    /// # Errors
    /// [`Error`]: [`Error::Compacted`] if the revision is no longer kept, [`Error::AnswerTooLarge`] above 64 MiB.
    pub async fn range(&self, range: Range) -> Result<Page, Error> {
        let request = range.to_wire();
        let answer = self
            .connection
            .call(Access::Read, |session| {
                let request = session.request(request.clone());
                async move { kv(session.channel()).range(request).await }
            })
            .await?;
        Ok(Page::from_wire(answer.into_inner()))
    }

    /// Reads a range page by page, all of one revision: [`Range::revision`], or that of the first page.
    pub fn pages(&self, range: Range) -> Pages {
        Pages { client: self.clone(), next: Some(range), size: FIRST_PAGE }
    }
}

pub(crate) fn kv(channel: tonic::transport::Channel) -> KvClient<tonic::transport::Channel> {
    KvClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES)
}

/// The pages of a range; see [`Client::pages`].
#[derive(Debug)]
pub struct Pages {
    client: Client,
    /// `None` after the last page.
    next: Option<Range>,
    size: u32,
}

impl Pages {
    /// The next page, never an empty one; `None` after the last. Cancel safe: a dropped call is repeated.
    ///
    /// # Errors
    /// As [`Client::range`]. The same page may be requested again.
    pub async fn next(&mut self) -> Result<Option<Page>, Error> {
        loop {
            let Some(range) = &self.next else { return Ok(None) };
            let request = Range { limit: self.size, ..range.clone() };
            match self.client.range(request).await {
                Ok(page) if page.entries.is_empty() => {
                    self.next = None;
                    return Ok(None);
                }
                Ok(page) => {
                    self.advance(&page);
                    return Ok(Some(page));
                }
                // One key always fits.
                Err(Error::AnswerTooLarge(_)) if self.size > 1 => self.size = (self.size / 8).max(1),
                Err(error) => return Err(error),
            }
        }
    }

    fn advance(&mut self, page: &Page) {
        self.size = next_size(page);
        self.next = self.next.take().filter(|_| page.more).and_then(|range| {
            let mut after = page.entries.last()?.key.clone();
            after.push(0);
            let revision = if range.revision == 0 { page.revision } else { range.revision };
            Some(range.starting_at(after).at(revision))
        });
    }
}

/// Number of keys like those of `page` that fill a page.
fn next_size(page: &Page) -> u32 {
    let bytes: usize = page.entries.iter().map(|entry| entry.key.len() + entry.value.len()).sum();
    let fitting = page.entries.len().saturating_mul(PAGE_BYTES) / bytes.max(1);
    u32::try_from(fitting).unwrap_or(LARGEST_PAGE).clamp(1, LARGEST_PAGE)
}
