//! Numbers of load balancers by status.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::TryRecvError;
use uuid::Uuid;

use super::{Model, ModelNotice};
use crate::status::{Operating, Provisioning, Statuses};

/// Statuses of a load balancer.
type StatusPair = (Provisioning, Operating);

/// Statuses of all load balancers, renewed on demand: only trees that have changed since the last time are looked at, unless
/// more have than the model's notices tell of.
pub(super) struct StatusCounts {
    model: Arc<Model>,
    notices: broadcast::Receiver<ModelNotice>,
    statuses: HashMap<Uuid, StatusPair>,
    /// True if the notices do not tell all that has changed.
    is_stale: bool,
}

impl StatusCounts {
    pub(super) fn new(model: Arc<Model>) -> Self {
        Self { notices: model.subscribe(), model, statuses: HashMap::new(), is_stale: true }
    }

    /// Number of load balancers of each status that there are some of.
    pub(super) fn renewed(&mut self) -> HashMap<StatusPair, u64> {
        for id in self.changed() {
            match self.model.tree(id) {
                Some(tree) => {
                    let observation = self.model.observation(id);
                    // What the reconciler waits for is a reason, and no status.
                    let status = Statuses::new(&tree, &observation, None).load_balancer();
                    self.statuses.insert(id, (status.provisioning, status.operating));
                }
                None => drop(self.statuses.remove(&id)),
            }
        }
        let mut counts = HashMap::new();
        for pair in self.statuses.values() {
            *counts.entry(*pair).or_default() += 1;
        }
        counts
    }

    /// Load balancers that may have changed.
    fn changed(&mut self) -> BTreeSet<Uuid> {
        let mut changed = BTreeSet::new();
        loop {
            match self.notices.try_recv() {
                Ok(ModelNotice::Specification(id) | ModelNotice::Observation(id)) => drop(changed.insert(id)),
                Err(TryRecvError::Lagged(_)) => self.is_stale = true,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        if std::mem::take(&mut self.is_stale) {
            self.statuses.clear();
            changed.extend(self.model.load_balancers());
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use fiberlb_store::{MemoryStore, Store as _};

    use super::*;
    use crate::resources::examples::{LOAD_BALANCER, tree};
    use crate::resources::transaction;
    use crate::status::Observation;

    #[tokio::test]
    async fn counts_follow_what_is_stored_and_observed_and_outlive_missed_notices() {
        let store = MemoryStore::default();
        store.commit(transaction(None, Some(&tree())).unwrap()).await.unwrap();
        let model = Arc::new(Model::load(&store).await.unwrap());
        model.lead(true);
        let mut counts = StatusCounts::new(Arc::clone(&model));
        let pending = (Provisioning::PendingCreate, Operating::Offline);
        assert_eq!(counts.renewed(), [(pending, 1)].into());
        let in_force = || Observation { applied: Some(Arc::new(tree())), ..Observation::default() };
        model.observe(LOAD_BALANCER, in_force());
        let active = (Provisioning::Active, Operating::Online);
        assert_eq!(counts.renewed(), [(active, 1)].into());
        for _ in 0..10_000 {
            model.observe(LOAD_BALANCER, Observation::default());
            model.observe(LOAD_BALANCER, in_force());
        }
        model.observe(LOAD_BALANCER, Observation::default());
        assert_eq!(counts.renewed(), [((Provisioning::Active, Operating::Offline), 1)].into());
    }
}
