//! Permits of which no project takes more than half.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::auth::Principal;

/// A number of permits that projects share.
#[derive(Debug)]
pub(super) struct Shares {
    all: Arc<Semaphore>,
    /// Most permits of one project.
    share: u32,
    /// Permits of each project that has or waits for some.
    projects: Mutex<HashMap<(String, String), Weak<Semaphore>>>,
}

/// Permits that are released when this is dropped.
#[derive(Debug)]
pub(super) struct Permits {
    _of_project: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Shares {
    /// `total` permits, at least one; half of them, at least one, for one project.
    pub(super) fn new(total: u32) -> Self {
        let share = (total / 2).max(1);
        let all = Arc::new(Semaphore::new(usize::try_from(total.max(1)).unwrap_or(Semaphore::MAX_PERMITS)));
        Self { all, share, projects: Mutex::default() }
    }

    /// Waits for permits, in turn; no more are requested than a project may have. `None`: never, the permits were closed.
    pub(super) async fn acquire(&self, principal: &Principal, count: u32) -> Option<Permits> {
        let count = count.min(self.share);
        // First its own: whoever waits for others of its project takes nothing of what the rest may have.
        let of_project = self.project(principal).acquire_many_owned(count).await.ok()?;
        let of_all = Arc::clone(&self.all).acquire_many_owned(count).await.ok()?;
        Some(Permits { _of_project: of_project, _of_all: of_all })
    }

    fn project(&self, principal: &Principal) -> Arc<Semaphore> {
        let key = (principal.org_id.clone(), principal.project_id.clone());
        let mut projects = self.projects.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = projects.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        projects.retain(|_, permits| permits.strong_count() > 0);
        let share = usize::try_from(self.share).unwrap_or(Semaphore::MAX_PERMITS);
        let permits = Arc::new(Semaphore::new(share));
        projects.insert(key, Arc::downgrade(&permits));
        permits
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn project(name: &str) -> Principal {
        Principal { project_id: name.to_owned(), ..Principal::default() }
    }

    #[tokio::test]
    async fn a_project_has_half_and_leaves_the_rest() {
        let shares = Shares::new(4);
        let (greedy, other) = (project("greedy"), project("other"));
        let first = shares.acquire(&greedy, 1).await;
        let _second = shares.acquire(&greedy, 1).await;
        let mut third = Box::pin(shares.acquire(&greedy, 1));
        assert!((&mut third).now_or_never().is_none());
        let _others = shares.acquire(&other, 2).now_or_never().expect("the other project's half");
        drop(first);
        assert!(third.now_or_never().is_some());
    }

    #[tokio::test]
    async fn more_than_a_share_is_a_whole_share() {
        assert!(Shares::new(4).acquire(&project("one"), 100).now_or_never().is_some());
        assert!(Shares::new(1).acquire(&project("one"), 1).now_or_never().is_some());
    }

    #[tokio::test]
    async fn projects_without_permits_are_forgotten() {
        let shares = Shares::new(4);
        for number in 0..100 {
            drop(shares.acquire(&project(&number.to_string()), 1).await);
        }
        assert!(shares.projects.lock().unwrap().len() <= 1);
    }
}
