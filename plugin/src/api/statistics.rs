//! Traffic of listeners, as their owners ask for it.

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;
use uuid::Uuid;

use super::error::ApiError;
use super::use_cases::UseCases;
use crate::auth::{Principal, Verb};
use crate::resources::{Kind, Listener, LoadBalancer};

/// Traffic over all nodes. OVN counts nothing for what it carries itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Connections that were accepted, counted in total.
    pub connections: u64,
    /// Connections of these that were not served.
    pub failed: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
    /// Connections at this moment, by node.
    pub active: BTreeMap<String, u64>,
    /// Connections that were not served, or did not end well, by reason.
    pub reasons: BTreeMap<String, u64>,
}

/// Whoever hears the counters of the nodes.
pub trait TrafficCounters: Send + Sync + 'static {
    /// Traffic of the listeners and backends of a load balancer, by their ids, as far as nodes have counted any.
    ///
    /// # Errors
    /// The leader, which hears the nodes, cannot be asked.
    fn traffic(&self, load_balancer: Uuid) -> BoxFuture<'_, Result<BTreeMap<Uuid, Traffic>, ApiError>>;
}

/// Traffic of one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerStatistics {
    /// The listener.
    pub listener: Uuid,
    /// False: OVN carries it, and counts nothing.
    pub is_counted: bool,
    /// Traffic while proxies carried it.
    pub traffic: Traffic,
}

/// Traffic of one backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendStatistics {
    /// The backend.
    pub backend: Uuid,
    /// Its pool.
    pub pool: Uuid,
    /// Traffic of connections through proxies.
    pub traffic: Traffic,
}

/// Traffic of a load balancer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadBalancerStatistics {
    /// Listeners, in the order of their ids.
    pub listeners: Vec<ListenerStatistics>,
    /// Backends, in the order of their ids.
    pub backends: Vec<BackendStatistics>,
}

impl Traffic {
    /// Adds that of another listener.
    fn add(&mut self, other: &Self) {
        let Self { connections, failed, bytes_in, bytes_out, active, reasons } = other;
        let sums = [
            (&mut self.connections, connections),
            (&mut self.failed, failed),
            (&mut self.bytes_in, bytes_in),
            (&mut self.bytes_out, bytes_out),
        ];
        for (sum, more) in sums {
            *sum = sum.saturating_add(*more);
        }
        for (node, connections) in active {
            let sum = self.active.entry(node.clone()).or_default();
            *sum = sum.saturating_add(*connections);
        }
        for (reason, connections) in reasons {
            let sum = self.reasons.entry(reason.clone()).or_default();
            *sum = sum.saturating_add(*connections);
        }
    }

    /// Sum over several listeners.
    pub fn sum<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut sum = Self::default();
        all.into_iter().for_each(|traffic| sum.add(traffic));
        sum
    }
}

impl UseCases {
    /// Traffic of a load balancer.
    ///
    /// # Errors
    /// It does not exist, or is not the principal's; or as [`TrafficCounters::traffic`].
    pub async fn load_balancer_statistics(
        &self,
        principal: &Principal,
        id: Uuid,
    ) -> Result<LoadBalancerStatistics, ApiError> {
        let (tree, _) = self.find::<LoadBalancer>(principal, Verb::Get, id)?;
        let view = self.view(tree);
        let mut counted = self.on().traffic.traffic(id).await?;
        let listeners = view.tree.listeners.values();
        let statistics = listeners.map(|listener| {
            let decision = view.observed(listener).detail.decision;
            ListenerStatistics {
                listener: listener.id,
                is_counted: decision.is_some_and(|decision| decision.carrier.is_proxy()),
                traffic: counted.remove(&listener.id).unwrap_or_default(),
            }
        });
        let listeners = statistics.collect();
        let backends = view.tree.backends.values().map(|backend| BackendStatistics {
            backend: backend.id,
            pool: backend.spec.pool_id,
            traffic: counted.remove(&backend.id).unwrap_or_default(),
        });
        Ok(LoadBalancerStatistics { listeners, backends: backends.collect() })
    }

    /// Traffic of a listener.
    ///
    /// # Errors
    /// It does not exist, or is not the principal's; or as [`TrafficCounters::traffic`].
    pub async fn listener_statistics(
        &self,
        principal: &Principal,
        id: Uuid,
    ) -> Result<ListenerStatistics, ApiError> {
        let (tree, _) = self.find::<Listener>(principal, Verb::Get, id)?;
        let all = self.load_balancer_statistics(principal, tree.id()).await?;
        let found = all.listeners.into_iter().find(|statistics| statistics.listener == id);
        found.ok_or_else(|| ApiError::not_found(Kind::Listener, id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_traffic_of_listeners_adds_up() {
        let one = |node: &str| Traffic {
            connections: 10,
            failed: 1,
            bytes_in: u64::MAX - 5,
            bytes_out: 3,
            active: BTreeMap::from([(node.to_owned(), 4)]),
            reasons: BTreeMap::from([("timed_out".to_owned(), 2)]),
        };
        let sum = Traffic::sum(&[one("a"), one("a"), one("b")]);
        assert_eq!((sum.connections, sum.failed, sum.bytes_in, sum.bytes_out), (30, 3, u64::MAX, 9));
        assert_eq!(sum.active, BTreeMap::from([("a".to_owned(), 8), ("b".to_owned(), 4)]));
        assert_eq!(sum.reasons, BTreeMap::from([("timed_out".to_owned(), 6)]));
    }
}
