//! Publishes the state of the proxy nodes for the followers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::fleet::Fleet;
use fiberlb_store::CommitError;

/// Interval at which the nodes are looked at: nodes come, go and fail no oftener than an operator wants to know.
const LOOK: Duration = Duration::from_secs(1);
/// Interval at which changed counters are published, for all nodes together: they change all the time.
const COUNTERS: Duration = Duration::from_secs(5);

/// Publishes the state of the nodes while this plugin leads.
pub(super) struct NodePublisher {
    fleet: Arc<Fleet>,
    /// Time at which counters are published again.
    counters_at: Instant,
}

impl NodePublisher {
    /// A publisher of the state of `fleet`.
    pub(super) fn new(fleet: Arc<Fleet>) -> Self {
        Self { fleet, counters_at: Instant::now() }
    }

    /// Runs until leadership is lost.
    pub(super) async fn run(mut self) {
        loop {
            match self.publish().await {
                Ok(()) => {}
                Err(CommitError::Conflict { .. }) => return,
                Err(error) => tracing::warn!(%error, "failed to publish the state of proxy nodes; retrying"),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn publish(&mut self) -> Result<(), CommitError> {
        let now = Instant::now();
        let with_counters = self.counters_at <= now;
        self.fleet.publish_statuses(with_counters).await?;
        if with_counters {
            self.counters_at = now + COUNTERS;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::{Acknowledgement, Observer as _, ResultKind, TrafficReport};
    use crate::fleet::NodeStatus;
    use crate::fleet::examples::{fleet, join};
    use crate::resources::Datapath;
    use crate::resources::examples::LISTENER;
    use crate::status::Liveness;

    fn carry(fleet: &Fleet, connections: u64) {
        let counters = TrafficReport {
            subject: LISTENER,
            connections_total: connections,
            connections_active: connections,
            ..TrafficReport::default()
        };
        fleet.counters("a", 1, vec![counters], Vec::new());
    }

    fn published(fleet: &Fleet) -> u64 {
        let node = fleet.node_views().into_iter().find(|view| view.id == "a").unwrap();
        node.status.unwrap().connections
    }

    #[tokio::test(start_paused = true)]
    async fn counters_are_published_every_few_seconds_and_deaths_at_once() {
        let fleet = Arc::new(fleet(|listener| listener.datapath = Datapath::Proxy).await);
        join(&fleet, &["a"]);
        let served = Acknowledgement { kind: ResultKind::Listener, id: LISTENER, generation: 1, error: None };
        fleet.acknowledged("a", 1, true, vec![served]);
        let mut publisher = NodePublisher::new(Arc::clone(&fleet));
        carry(&fleet, 1);
        publisher.publish().await.unwrap();
        assert_eq!(published(&fleet), 1);
        carry(&fleet, 2);
        publisher.publish().await.unwrap();
        assert_eq!(published(&fleet), 1, "it is not time yet");
        fleet.left("a", 1, "it went", false);
        publisher.publish().await.unwrap();
        let is_silent = |status: &NodeStatus| status.liveness == Liveness::Silent;
        let node = fleet.node_views().into_iter().find(|view| view.id == "a").unwrap();
        assert!(node.status.is_some_and(|status| is_silent(&status)), "that does not wait");
        carry(&fleet, 3);
        publisher.publish().await.unwrap();
        tokio::time::advance(COUNTERS).await;
        publisher.publish().await.unwrap();
        assert_eq!(published(&fleet), 3);
    }
}
