//! Places for access logs that a follower reads from the leader, shared out among projects. Pure.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::api::ApiError;

/// Most access logs that are read from the leader at a time: fewer than a connection has streams.
const MOST_STREAMS: usize = 64;
/// Most of these of one project.
const MOST_OF_PROJECT: usize = MOST_STREAMS / 4;

/// Places, by the project of the listener that is read.
#[derive(Debug, Default)]
pub(super) struct StreamPlaces(Mutex<HashMap<String, usize>>);

/// One of the places, until it is dropped.
#[derive(Debug)]
pub(super) struct StreamPlace {
    places: Arc<StreamPlaces>,
    project: String,
}

impl StreamPlaces {
    /// Takes a place for a listener of a project.
    ///
    /// # Errors
    /// All are taken, or all that one project may have.
    pub(super) fn take(self: &Arc<Self>, project: &str) -> Result<StreamPlace, ApiError> {
        let mut taken = self.lock();
        let own = taken.get(project).copied().unwrap_or_default();
        let total: usize = taken.values().sum();
        let text = if own >= MOST_OF_PROJECT {
            format!(
                "at most {MOST_OF_PROJECT} access logs of one project at a time by a plugin that does not lead"
            )
        } else if total >= MOST_STREAMS {
            format!("at most {MOST_STREAMS} access logs at a time by a plugin that does not lead")
        } else {
            taken.insert(project.to_owned(), own + 1);
            return Ok(StreamPlace { places: Arc::clone(self), project: project.to_owned() });
        };
        Err(ApiError::limit("access_logs", text))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        match taken.get_mut(&self.project) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(taken.remove(&self.project)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ErrorReason;

    #[test]
    fn a_project_leaves_places_to_others() {
        let places = Arc::<StreamPlaces>::default();
        let take_all = |project: &str| -> Vec<StreamPlace> {
            std::iter::from_fn(|| places.take(project).ok()).take(MOST_STREAMS + 1).collect()
        };
        let first = take_all("a");
        assert_eq!(first.len(), MOST_OF_PROJECT);
        let others: Vec<_> = ["b", "c", "d"].map(take_all).into_iter().flatten().collect();
        assert_eq!(first.len() + others.len(), MOST_STREAMS);
        assert_eq!(places.take("e").unwrap_err().reason, ErrorReason::LimitExceeded);
        drop(first);
        assert_eq!(take_all("e").len(), MOST_OF_PROJECT);
        drop(others);
        assert!(places.lock().is_empty());
    }
}
