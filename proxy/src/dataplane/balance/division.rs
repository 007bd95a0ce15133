//! Pools among which a listener divides its connections, on one worker.
//!
//! The pool of a client follows from a hash of it and the weights alone, by weighted rendezvous hashing: it is the same on every
//! node, and in every worker. Weight that moves from one pool to another moves clients; nobody comes to the pool that has lost weight,
//! and nobody leaves the one that has gained it.

use std::{net::SocketAddr, rc::Rc};

use uuid::Uuid;

use super::{
    key::AffinityKey,
    pool::WorkerPool,
    selection::{self, rendezvous},
};

/// Pools of a listener, each with its weight. Without one nobody is served.
#[derive(Debug, Default)]
pub(in crate::dataplane) struct PoolDivision {
    parts: Vec<Part>,
    /// True if a client's connections have one pool, whichever of its ports they come from.
    is_by_address: bool,
}

#[derive(Debug)]
struct Part {
    pool: Rc<WorkerPool>,
    weight: u16,
    /// See [`selection::identity`].
    identity: u64,
}

impl Part {
    fn has_share(&self) -> bool {
        self.weight > 0 && self.pool.has_backends(&[])
    }
}

impl PoolDivision {
    /// A division among these pools, by their weights.
    pub(in crate::dataplane) fn new(pools: impl IntoIterator<Item = (Rc<WorkerPool>, u16)>) -> Self {
        let part = |(pool, weight): (Rc<WorkerPool>, u16)| {
            let identity = selection::identity(pool.id());
            Part { pool, weight, identity }
        };
        let parts: Vec<Part> = pools.into_iter().map(part).collect();
        let is_by_address = parts.iter().any(|part| part.pool.knows_clients_by_address());
        Self { parts, is_by_address }
    }

    /// The same division with the latest form of each pool, where there is one.
    pub(in crate::dataplane) fn renewed<'a>(
        &self,
        latest: impl Fn(Uuid) -> Option<&'a Rc<WorkerPool>>,
    ) -> Self {
        let renewed = |part: &Part| (Rc::clone(latest(part.pool.id()).unwrap_or(&part.pool)), part.weight);
        Self::new(self.parts.iter().map(renewed))
    }

    /// The pool of a client, among those of some weight with a backend that takes connections. The only pool has all clients,
    /// whatever becomes of them.
    pub(in crate::dataplane) fn choose(&self, client: SocketAddr) -> Option<&Rc<WorkerPool>> {
        if let [only] = self.parts.as_slice() {
            return Some(&only.pool).filter(|_| only.weight > 0);
        }
        let key = if self.is_by_address {
            AffinityKey::of_address(client.ip())
        } else {
            AffinityKey::of_socket(client)
        };
        let sharing = self.parts.iter().enumerate().filter(|(_, part)| part.has_share());
        let entries = sharing.map(|(place, part)| (place, part.weight.into(), part.identity));
        let place = rendezvous::winner(key.hash(), entries)?;
        self.parts.get(place).map(|part| &part.pool)
    }

    /// The pools.
    pub(in crate::dataplane) fn pools(&self) -> impl Iterator<Item = &Rc<WorkerPool>> {
        self.parts.iter().map(|part| &part.pool)
    }

    /// The pool of this id.
    pub(in crate::dataplane) fn pool(&self, id: Uuid) -> Option<&Rc<WorkerPool>> {
        self.pools().find(|pool| pool.id() == id)
    }

    /// The pool that has a backend.
    pub(in crate::dataplane) fn pool_with(&self, backend: Uuid) -> Option<&Rc<WorkerPool>> {
        self.pools().find(|pool| pool.place(backend).is_some())
    }

    /// True if a pool has some weight.
    pub(in crate::dataplane) fn has_weight(&self, pool: Uuid) -> bool {
        self.parts.iter().any(|part| part.weight > 0 && part.pool.id() == pool)
    }

    /// True if a backend of a pool may have new connections: the pool has some weight, and the backend is there.
    pub(in crate::dataplane) fn is_there(&self, pool: Uuid, backend: Uuid) -> bool {
        self.has_weight(pool) && self.pool(pool).is_some_and(|pool| pool.is_there(backend))
    }

    /// True if one of the pools keeps the sessions of a backend.
    pub(in crate::dataplane) fn keeps(&self, backend: Uuid, address: SocketAddr) -> bool {
        self.pools().any(|pool| pool.keeps(backend, address))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, HashMap},
        net::Ipv4Addr,
        sync::Arc,
        time::{Duration, Instant},
    };

    use proptest::prelude::*;

    use super::{
        super::{pool::PoolSnapshot, rotation::Rotation},
        *,
    };
    use crate::dataplane::spec::{Algorithm, BackendSpec, PoolSpec, SourceIpPersistence};

    /// Pools with one backend each, which have the same ids.
    fn spec(number: u128, is_sticky: bool) -> PoolSpec {
        let backend = BackendSpec {
            id: Uuid::from_u128(1_000 + number),
            address: ([10, 0, 0, 1], 80).into(),
            weight: 1,
            backup: false,
            enabled: true,
            connection_limit: None,
            starts_in_rotation: true,
        };
        PoolSpec {
            id: Uuid::from_u128(number),
            algorithm: Algorithm::RoundRobin,
            persistence: is_sticky.then_some(SourceIpPersistence { timeout: Duration::from_secs(60) }),
            header: None,
            drain_timeout: None,
            slow_start: None,
            passive_health: None,
            queue: None,
            backends: vec![backend],
        }
    }

    fn division(weights: &[u16], is_sticky: bool, rotation: &Rotation) -> PoolDivision {
        let pool = |(number, weight): (u128, &u16)| {
            let snapshot = PoolSnapshot::new(&spec(number, is_sticky), rotation, None, Instant::now());
            (Rc::new(WorkerPool::new(Arc::new(snapshot), 0, None)), *weight)
        };
        PoolDivision::new((1..).zip(weights).map(pool))
    }

    /// The pool of each one of many clients, by its number.
    fn chosen(division: &PoolDivision) -> Vec<u128> {
        let client = |number: u32| SocketAddr::from((Ipv4Addr::from_bits(0x0a00_0000 + number), 40_000));
        let pool = |number| division.choose(client(number)).map_or(0, |pool| pool.id().as_u128());
        (0..CLIENTS).map(pool).collect()
    }

    const CLIENTS: u32 = 4_000;

    fn shares(chosen: &[u128]) -> BTreeMap<u128, f64> {
        let mut shares: BTreeMap<u128, f64> = BTreeMap::new();
        chosen.iter().for_each(|pool| *shares.entry(*pool).or_default() += 1.0 / f64::from(CLIENTS));
        shares
    }

    #[test]
    fn the_share_of_a_pool_that_nobody_serves_is_the_others_and_returns_to_it() {
        let rotation = Rotation::default();
        let division = division(&[50, 30, 20], true, &rotation);
        let before = chosen(&division);
        rotation.set_health(Uuid::from_u128(1_002), false);
        let without = chosen(&division);
        assert!(!without.contains(&2));
        let moved = before.iter().zip(&without).filter(|(one, other)| one != other);
        assert!(moved.into_iter().all(|(one, _)| *one == 2), "only its own clients move");
        let shares = shares(&without);
        assert!((shares[&1] - 5.0 / 7.0).abs() < 0.04, "{shares:?}");
        rotation.set_health(Uuid::from_u128(1_002), true);
        assert_eq!(chosen(&division), before);
        for backend in [1_001, 1_002, 1_003] {
            rotation.set_health(Uuid::from_u128(backend), false);
        }
        assert!(chosen(&division).iter().all(|pool| *pool == 0));
    }

    #[test]
    fn a_pool_without_weight_takes_nobody_and_the_only_one_everybody() {
        let rotation = Rotation::default();
        let pool = |weights: &[u16]| shares(&chosen(&division(weights, false, &rotation)));
        assert_eq!(pool(&[0, 5]).keys().copied().collect::<Vec<_>>(), [2]);
        assert_eq!(pool(&[0]).keys().copied().collect::<Vec<_>>(), [0]);
        assert_eq!(pool(&[]).keys().copied().collect::<Vec<_>>(), [0]);
        rotation.set_health(Uuid::from_u128(1_001), false);
        assert_eq!(pool(&[1]).keys().copied().collect::<Vec<_>>(), [1], "it says itself why nobody serves");
        let drained = division(&[0, 5], false, &rotation);
        assert!(drained.is_there(Uuid::from_u128(2), Uuid::from_u128(1_002)));
        assert!(!drained.is_there(Uuid::from_u128(1), Uuid::from_u128(1_001)));
        assert!(drained.keeps(Uuid::from_u128(1_001), ([10, 0, 0, 1], 80).into()), "sessions stay");
    }

    #[test]
    fn a_client_has_one_pool_where_pools_know_clients_by_address_and_ports_have_one_elsewhere() {
        let rotation = Rotation::default();
        for is_sticky in [true, false] {
            let division = division(&[1, 1], is_sticky, &rotation);
            let mut pools: HashMap<u128, u32> = HashMap::new();
            for port in 1..=1_000 {
                let pool = division.choose(([192, 0, 2, 1], port).into()).unwrap().id().as_u128();
                *pools.entry(pool).or_default() += 1;
            }
            assert_eq!(pools.len(), if is_sticky { 1 } else { 2 }, "{pools:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn shares_follow_the_weights_on_every_node(weights in prop::collection::vec(0_u16..=256, 2..6), is_sticky: bool) {
            let total: f64 = weights.iter().copied().map(f64::from).sum();
            let [one, other] = [(); 2].map(|()| chosen(&division(&weights, is_sticky, &Rotation::default())));
            prop_assert_eq!(&one, &other);
            let shares = shares(&one);
            for (number, weight) in (1..).zip(weights).filter(|_| total > 0.0) {
                let share = shares.get(&number).copied().unwrap_or_default();
                prop_assert!((share - f64::from(weight) / total).abs() < 0.05, "{shares:?}");
            }
        }

        #[test]
        fn weight_that_moves_from_one_pool_to_another_moves_clients_that_way_alone(
            mut weights in prop::collection::vec(1_u16..=256, 2..6), moved in 0.0_f64..=1.0,
        ) {
            let before = chosen(&division(&weights, true, &Rotation::default()));
            let old: Vec<u16> = weights.clone();
            let part = (f64::from(weights[0]) * moved) as u16;
            weights[0] -= part;
            weights[1] += part;
            let after = chosen(&division(&weights, true, &Rotation::default()));
            let changed: Vec<(u128, u128)> =
                before.into_iter().zip(after).filter(|(one, other)| one != other).collect();
            prop_assert!(changed.iter().all(|(from, to)| *from != 2 && *to != 1), "{changed:?}");
            if weights.len() == 2 {
                let share = changed.len() as f64 / f64::from(CLIENTS);
                let expected = f64::from(part) / old.iter().copied().map(f64::from).sum::<f64>();
                prop_assert!((share - expected).abs() < 0.05, "{share} instead of {expected}");
            }
        }
    }
}
