//! Backends that have failed a session. Pure.

use uuid::Uuid;

/// Most backends that one session remembers. Beyond, the one that failed first is retried.
const MOST: usize = 64;

/// Backends that a session avoids, since they have failed it and none has answered since. Takes no memory while there
/// is none.
#[derive(Debug, Default)]
pub(super) struct FailedBackends(Vec<Uuid>);

impl FailedBackends {
    /// Adds a backend.
    pub(super) fn insert(&mut self, backend: Uuid) {
        if self.0.contains(&backend) {
            return;
        }
        if self.0.len() >= MOST {
            self.0.remove(0);
        }
        self.0.push(backend);
    }

    /// Drops all, with their memory. True if there were some.
    pub(super) fn clear(&mut self) -> bool {
        !std::mem::take(&mut self.0).is_empty()
    }

    /// All of them.
    pub(super) fn ids(&self) -> impl Iterator<Item = Uuid> + '_ {
        self.0.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_ones_are_kept_until_all_are_forgotten() {
        let mut failed = FailedBackends::default();
        assert!(!failed.clear());
        for number in (0..=MOST as u128).chain([7]) {
            failed.insert(Uuid::from_u128(number));
        }
        assert!(failed.ids().eq((1..=MOST as u128).map(Uuid::from_u128)));
        assert!(failed.clear() && failed.ids().next().is_none());
    }
}
