//! Persistence: table of clients and their backends, bounded in size and in time, shared by the workers.

use std::{
    collections::HashMap,
    hash::BuildHasher,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::key::AffinityKey;

/// Parts of the table, each with a lock of its own: workers rarely meet.
const SHARDS: usize = 16;

/// Most clients in one half of a shard: with both halves of all shards 65,536 clients, some 6 MB a pool at
/// most.
const HALF_CAPACITY: usize = 2_048;

/// Clients and their backends.
#[derive(Debug)]
pub(super) struct Persistence {
    timeout: Duration,
    shards: [Mutex<Shard>; SHARDS],
    /// Keyed at random: clients choose their keys, and must not be able to choose their shard.
    hasher: std::hash::RandomState,
}

impl Persistence {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout, shards: Default::default(), hasher: std::hash::RandomState::new() }
    }

    /// Time after a client's latest connection at which its entry expires.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The backend that a client had.
    pub(super) fn find(&self, client: AffinityKey, now: Instant) -> Option<Uuid> {
        let entry = self.shard(client)?.find(client)?;
        (now.saturating_duration_since(entry.seen) < self.timeout).then_some(entry.backend)
    }

    /// Remembers the backend of a client's latest connection.
    pub(super) fn remember(&self, client: AffinityKey, backend: Uuid, now: Instant) {
        if let Some(mut shard) = self.shard(client) {
            shard.insert(client, Entry { backend, seen: now });
        }
    }

    fn shard(&self, client: AffinityKey) -> Option<MutexGuard<'_, Shard>> {
        let hash = self.hasher.hash_one(client);
        let index = usize::try_from(hash % SHARDS as u64).unwrap_or(0);
        self.shards.get(index).map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    backend: Uuid,
    seen: Instant,
}

/// Two halves: when the young one is full it becomes the old one, and the old one is dropped. Clients that
/// come back move to the young half, so that the least recently seen go first, at no cost per entry.
#[derive(Debug, Default)]
struct Shard {
    young: HashMap<AffinityKey, Entry>,
    old: HashMap<AffinityKey, Entry>,
}

impl Shard {
    fn find(&self, client: AffinityKey) -> Option<Entry> {
        self.young.get(&client).or_else(|| self.old.get(&client)).copied()
    }

    fn insert(&mut self, client: AffinityKey, entry: Entry) {
        if self.young.len() >= HALF_CAPACITY && !self.young.contains_key(&client) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(client, entry);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn client(number: u32) -> AffinityKey {
        AffinityKey::of_address(Ipv4Addr::from_bits(number).into())
    }

    #[test]
    fn a_client_is_remembered_until_its_timeout() {
        let (table, backend, now) =
            (Persistence::new(Duration::from_secs(10)), Uuid::from_u128(1), Instant::now());
        assert_eq!(table.find(client(1), now), None);
        table.remember(client(1), backend, now);
        assert_eq!(table.find(client(1), now + Duration::from_secs(9)), Some(backend));
        assert_eq!(table.find(client(2), now), None);
        assert_eq!(table.find(client(1), now + Duration::from_secs(10)), None);
        table.remember(client(1), Uuid::from_u128(2), now + Duration::from_secs(11));
        assert_eq!(table.find(client(1), now + Duration::from_secs(12)), Some(Uuid::from_u128(2)));
    }

    #[test]
    fn a_flood_of_clients_is_bounded_and_spares_those_that_come_back() {
        let (table, now) = (Persistence::new(Duration::from_secs(10)), Instant::now());
        for number in 0..200_000 {
            table.remember(client(number), Uuid::from_u128(1), now);
            if number % 1_000 == 0 {
                table.remember(client(u32::MAX), Uuid::from_u128(2), now);
            }
        }
        let held: usize = table
            .shards
            .iter()
            .map(|shard| {
                let shard = shard.lock().unwrap();
                shard.young.len() + shard.old.len()
            })
            .sum();
        assert!(held <= 2 * SHARDS * HALF_CAPACITY, "{held}");
        assert_eq!(table.find(client(u32::MAX), now), Some(Uuid::from_u128(2)));
        assert_eq!(table.find(client(0), now), None);
    }
}
