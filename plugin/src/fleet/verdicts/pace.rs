//! Pace at which what nodes say of their own choice is published, whatever a tenant makes of its backends. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use uuid::Uuid;

/// Shortest time between two publications of a tree: that of a round of reports.
const GAP: Duration = Duration::from_secs(5);
/// Time in which a tree earns a publication, and the most that it saves up.
const PERIOD: Duration = Duration::from_secs(60);
const SAVED: u32 = 10;

/// Publications of trees: a tree that changes now and then is published at once, one that changes all the time once in
/// [`PERIOD`]. Nothing is lost, since what is published is always the latest.
#[derive(Debug, Default)]
pub(super) struct Pace {
    trees: HashMap<Uuid, TreePace>,
}

#[derive(Debug)]
struct TreePace {
    latest: Instant,
    /// Instant at which it has earned again all that it has spent.
    settled: Instant,
    /// True if there is something to be published.
    is_due: bool,
}

impl Pace {
    /// Asks to publish a tree. Returns true if that may be done now; else [`Self::take_due`] says when.
    pub(super) fn ask(&mut self, tree: Uuid, now: Instant) -> bool {
        match self.trees.get_mut(&tree) {
            Some(pace) => {
                pace.is_due = true;
                pace.take(now)
            }
            None => {
                let settled = now.checked_add(PERIOD).unwrap_or(now);
                self.trees.insert(tree, TreePace { latest: now, settled, is_due: false });
                true
            }
        }
    }

    /// True if a tree that had to wait may be published now. Drops one that has neither asked nor published for long.
    pub(super) fn take_due(&mut self, tree: Uuid, now: Instant) -> bool {
        let Some(pace) = self.trees.get_mut(&tree) else { return false };
        let is_taken = pace.is_due && pace.take(now);
        if !pace.is_due && pace.settled <= now {
            self.trees.remove(&tree);
        }
        is_taken
    }

    /// Trees that it knows of.
    pub(super) fn trees(&self) -> impl Iterator<Item = Uuid> + '_ {
        self.trees.keys().copied()
    }
}

impl TreePace {
    fn take(&mut self, now: Instant) -> bool {
        let owed = self.settled.saturating_duration_since(now);
        if now.saturating_duration_since(self.latest) < GAP || owed > PERIOD * (SAVED - 1) {
            return false;
        }
        (self.latest, self.is_due) = (now, false);
        self.settled = self.settled.max(now).checked_add(PERIOD).unwrap_or(now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TREE: Uuid = Uuid::from_u128(1);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_tree_that_changes_all_the_time_is_published_once_in_a_period() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let mut published = |from: u32, to: u32| {
            let at = |second: u32| start + SECOND * second;
            (from..to)
                .filter(|second| pace.ask(TREE, at(*second)) || pace.take_due(TREE, at(*second)))
                .count()
        };
        assert_eq!(published(0, 5), 1);
        assert_eq!(published(5, 60), 9, "what it has saved, one in each gap");
        assert_eq!(published(60, 3_660), 60);
    }

    #[test]
    fn what_has_to_wait_is_published_once_and_an_idle_tree_is_forgotten() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        assert!(pace.ask(TREE, now) && !pace.ask(TREE, now + SECOND) && !pace.take_due(TREE, now + SECOND));
        assert!(pace.ask(Uuid::nil(), now + SECOND), "another one does not wait");
        assert!(pace.take_due(TREE, now + GAP) && !pace.take_due(TREE, now + 2 * GAP));
        assert!(!pace.take_due(TREE, now + PERIOD) && pace.trees.contains_key(&TREE));
        assert!(!pace.take_due(TREE, now + 2 * PERIOD) && !pace.trees.contains_key(&TREE));
    }
}
