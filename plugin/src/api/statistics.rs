//! Traffic of listeners, as their owners ask for it.

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;
use uuid::Uuid;

use super::error::ApiError;
use super::use_cases::UseCases;
use crate::auth::{Principal, Verb};
use crate::resources::{Kind, Listener, LoadBalancer};

/// Number of buckets of durations.
pub const DURATION_BUCKETS: usize = 8;

/// Upper bounds of the buckets of durations but for the last one, which has none, in milliseconds; those of the nodes.
pub const DURATION_BOUNDS_MS: [u64; DURATION_BUCKETS - 1] =
    [10, 100, 1_000, 10_000, 60_000, 600_000, 3_600_000];

/// Durations of connections that have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durations {
    /// Connections by bucket.
    pub counts: [u64; DURATION_BUCKETS],
    /// All together, in microseconds.
    pub sum_us: u64,
}

impl Durations {
    /// Adds others.
    fn add(&mut self, other: &Self) {
        for (sum, more) in self.counts.iter_mut().zip(other.counts) {
            *sum = sum.saturating_add(more);
        }
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
    }

    /// Durations added since `before`.
    pub fn since(&self, before: &Self) -> Self {
        let mut since = *self;
        for (count, before) in since.counts.iter_mut().zip(before.counts) {
            *count = count.saturating_sub(before);
        }
        since.sum_us = since.sum_us.saturating_sub(before.sum_us);
        since
    }
}

/// Connections that a drain has left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Draining {
    /// Connections.
    pub connections: u64,
    /// Drain deadline in milliseconds since 1970, at which the last of them are reset; `None`: there is none.
    pub deadline_ms: Option<u64>,
}

impl Draining {
    /// Adds what is left of another one.
    pub fn add(&mut self, other: &Self) {
        if other.connections == 0 {
            return;
        }
        self.deadline_ms = match (self.connections, self.deadline_ms, other.deadline_ms) {
            (0, _, deadline) => deadline,
            (_, Some(one), Some(other)) => Some(one.max(other)),
            _ => None,
        };
        self.connections = self.connections.saturating_add(other.connections);
    }
}

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
    /// Durations of the connections that had reached a backend and have ended.
    pub durations: Durations,
    /// Connections of backends that drain.
    pub draining: Draining,
}

/// Source of the nodes' counters.
pub trait TrafficCounters: Send + Sync + 'static {
    /// Traffic of the listeners, pools and backends of a load balancer, by their ids, as far as nodes have counted any.
    ///
    /// # Errors
    /// The leader, which has the nodes' streams, cannot be asked.
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

/// Traffic of one pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolStatistics {
    /// The pool.
    pub pool: Uuid,
    /// Traffic of its backends, also of those that were removed since.
    pub traffic: Traffic,
}

/// Traffic of a load balancer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadBalancerStatistics {
    /// Listeners, in the order of their ids.
    pub listeners: Vec<ListenerStatistics>,
    /// Backends, in the order of their ids.
    pub backends: Vec<BackendStatistics>,
    /// Pools, in the order of their ids.
    pub pools: Vec<PoolStatistics>,
    /// Connections of removed listeners.
    pub removed: Draining,
}

/// Traffic of a pool: what was counted for it, and what its backends carry at this moment.
fn pool_statistics(
    pool: Uuid,
    backends: &[BackendStatistics],
    counted: &mut BTreeMap<Uuid, Traffic>,
) -> PoolStatistics {
    let own = backends.iter().filter(|backend| backend.pool == pool);
    let sum = Traffic::sum(own.map(|backend| &backend.traffic));
    let traffic = match counted.remove(&pool) {
        Some(mut counted) => {
            counted.draining.add(&sum.draining);
            Traffic { active: sum.active, ..counted }
        }
        // The leader is of a release that counts no pools.
        None => sum,
    };
    PoolStatistics { pool, traffic }
}

impl Traffic {
    /// Adds that of another listener or backend.
    pub fn add(&mut self, other: &Self) {
        let Self { connections, failed, bytes_in, bytes_out, active, reasons, durations, draining } = other;
        self.durations.add(durations);
        self.draining.add(draining);
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
        let backends: Vec<BackendStatistics> = backends.collect();
        let pools = view.tree.pools.keys();
        let pools = pools.map(|pool| pool_statistics(*pool, &backends, &mut counted)).collect();
        let removed = counted.remove(&id).unwrap_or_default().draining;
        Ok(LoadBalancerStatistics { listeners, backends, pools, removed })
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
            durations: Durations { counts: [1; DURATION_BUCKETS], sum_us: u64::MAX / 2 },
            draining: Draining { connections: 2, deadline_ms: Some(7) },
        };
        let sum = Traffic::sum(&[one("a"), one("a"), one("b")]);
        assert_eq!((sum.connections, sum.failed, sum.bytes_in, sum.bytes_out), (30, 3, u64::MAX, 9));
        assert_eq!(sum.active, BTreeMap::from([("a".to_owned(), 8), ("b".to_owned(), 4)]));
        assert_eq!(sum.reasons, BTreeMap::from([("timed_out".to_owned(), 6)]));
        assert_eq!(sum.durations, Durations { counts: [3; DURATION_BUCKETS], sum_us: u64::MAX });
        assert_eq!(sum.draining, Draining { connections: 6, deadline_ms: Some(7) });
    }

    #[test]
    fn a_drain_ends_with_the_last_of_its_parts() {
        let sum = |parts: &[(u64, Option<u64>)]| {
            let mut sum = Draining::default();
            for (connections, deadline_ms) in parts.iter().copied() {
                sum.add(&Draining { connections, deadline_ms });
            }
            (sum.connections, sum.deadline_ms)
        };
        assert_eq!(sum(&[(0, Some(9)), (1, Some(3)), (2, Some(5)), (0, None)]), (3, Some(5)));
        assert_eq!(sum(&[(1, Some(3)), (1, None)]), (2, None), "some go on");
        assert_eq!(sum(&[(1, None), (1, Some(3))]), (2, None), "some go on");
        assert_eq!(sum(&[]), (0, None));
    }

    #[test]
    fn a_pool_keeps_what_removed_backends_have_carried_and_has_the_connections_of_the_others() {
        let pool = Uuid::from_u128(1);
        let traffic = |connections, active| Traffic {
            connections,
            active: BTreeMap::from([("a".to_owned(), active)]),
            ..Traffic::default()
        };
        let backend = |of: u128| BackendStatistics {
            backend: Uuid::from_u128(9),
            pool: Uuid::from_u128(of),
            traffic: traffic(3, 2),
        };
        let backends = [backend(1), backend(1), backend(2)];
        let mut counted = BTreeMap::from([(pool, Traffic { active: BTreeMap::new(), ..traffic(10, 0) })]);
        assert_eq!(pool_statistics(pool, &backends, &mut counted).traffic, traffic(10, 4));
        assert_eq!(pool_statistics(pool, &backends, &mut counted).traffic, traffic(6, 4), "not counted");
    }
}
