//! Ids of connections, for PROXY protocol.

use std::{cell::Cell, collections::hash_map::RandomState, hash::BuildHasher as _};

use uuid::Uuid;

thread_local! {
    static IDS: UniqueIds = UniqueIds::default();
}

/// Source of ids, for one thread: a keyed hash of a counter, with keys by chance. So an id takes no system call, and
/// nobody guesses the next one.
#[derive(Default)]
struct UniqueIds {
    keys: [RandomState; 2],
    next: Cell<u64>,
}

impl UniqueIds {
    fn next(&self) -> Uuid {
        let number = self.next.get();
        self.next.set(number.wrapping_add(1));
        let [high, low] = self.keys.each_ref().map(|key| key.hash_one(number));
        uuid::Builder::from_u128(u128::from(high) << 64 | u128::from(low))
            .with_version(uuid::Version::Random)
            .with_variant(uuid::Variant::RFC4122)
            .into_uuid()
    }
}

/// A new id (UUID version 4).
pub(super) fn next() -> Uuid {
    IDS.with(UniqueIds::next)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_ids_are_the_same_on_any_thread() {
        let thread = || std::thread::spawn(|| (0..10_000).map(|_| next()).collect::<Vec<_>>());
        let ids: Vec<Uuid> = [thread(), thread()].into_iter().flat_map(|it| it.join().unwrap()).collect();
        assert!(ids.iter().all(|id| id.get_version() == Some(uuid::Version::Random)));
        assert_eq!(ids.into_iter().collect::<HashSet<_>>().len(), 20_000);
    }
}
