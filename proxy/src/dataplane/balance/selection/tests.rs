use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;
use crate::dataplane::balance::key::ClientKeys;

fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let candidate = (any::<bool>(), 0_u16..=256, any::<bool>(), 0_u32..1_000, any::<u128>());
    let candidate = candidate.prop_map(|(up, weight, backup, active, id)| Candidate {
        up,
        weight,
        backup,
        active,
        identity: identity(Uuid::from_u128(id)),
    });
    prop::collection::vec(candidate, 0..12)
}

fn algorithm() -> impl Strategy<Value = Algorithm> {
    prop_oneof![
        Just(Algorithm::RoundRobin),
        Just(Algorithm::LeastConnections),
        Just(Algorithm::SourceIp),
        Just(Algorithm::SourceIpPort)
    ]
}

/// Key of a client for an algorithm.
fn key(algorithm: Algorithm, client: impl Into<SocketAddr>) -> Option<AffinityKey> {
    ClientKeys::of_peer(client.into(), algorithm, false).hashed
}

fn client(number: u32) -> SocketAddr {
    (std::net::Ipv4Addr::from_bits(number), 40_000).into()
}

fn chosen(candidates: &[Candidate], tried: &[usize]) -> Vec<Eligible> {
    let mut chosen = Vec::new();
    collect_eligible(candidates.iter().copied(), tried, &mut chosen);
    chosen
}

/// Backends of these weights, all up and without connections.
fn weighted(weights: &[u16]) -> Vec<Candidate> {
    let candidate = |(weight, id): (&u16, u128)| Candidate {
        up: true,
        weight: *weight,
        backup: false,
        active: 0,
        identity: identity(Uuid::from_u128(id)),
    };
    weights.iter().zip(1..).map(candidate).collect()
}

proptest! {
    #[test]
    fn each_candidate_comes_once_and_primaries_come_before_backups(
        candidates in candidates(), algorithm in algorithm(), number: u32, start in 0_usize..16,
    ) {
        let mut selector = Selector::new(algorithm, candidates.len(), start);
        let mut tried = Vec::new();
        while let Some(index) = selector.select(key(algorithm, client(number)), &chosen(&candidates, &tried)) {
            prop_assert!(!tried.contains(&index));
            tried.push(index);
        }
        let able: HashSet<usize> = candidates.iter().enumerate()
            .filter(|(_, candidate)| candidate.up && candidate.weight > 0).map(|(index, _)| index).collect();
        prop_assert_eq!(tried.iter().copied().collect::<HashSet<_>>(), able);
        let backups: Vec<bool> = tried.iter().map(|index| candidates[*index].backup).collect();
        prop_assert!(backups.is_sorted(), "{:?}", backups);
    }

    #[test]
    fn round_robin_gives_each_its_exact_share_of_every_cycle(weights in prop::collection::vec(1_u16..=256, 1..8), start: usize) {
        let candidates = weighted(&weights);
        let mut selector = Selector::new(Algorithm::RoundRobin, candidates.len(), start);
        let cycle: u16 = weights.iter().sum();
        for _ in 0..2 {
            let mut turns = vec![0; weights.len()];
            for _ in 0..cycle {
                turns[selector.select(None, &chosen(&candidates, &[])).unwrap()] += 1;
            }
            prop_assert_eq!(&turns, &weights);
        }
    }

    #[test]
    fn least_connections_levels_the_load(weights in prop::collection::vec(1_u16..=16, 1..6)) {
        let mut candidates = weighted(&weights);
        let mut selector = Selector::new(Algorithm::LeastConnections, candidates.len(), 0);
        let all: u16 = weights.iter().sum();
        for _ in 0..u32::from(all) * 3 {
            let index = selector.select(None, &chosen(&candidates, &[])).unwrap();
            candidates[index].active += 1;
        }
        for candidate in candidates {
            let off = i64::from(candidate.active) - 3 * i64::from(candidate.weight);
            prop_assert!(off.abs() <= 1, "{candidate:?}");
        }
    }

    #[test]
    fn a_backend_that_goes_moves_only_its_own_clients(
        weights in prop::collection::vec(1_u16..=256, 2..10), gone: prop::sample::Index,
        clients in prop::collection::vec(any::<u32>(), 1..100),
    ) {
        let mut selector = Selector::new(Algorithm::SourceIp, weights.len(), 0);
        let mut candidates = weighted(&weights);
        let gone = gone.index(candidates.len());
        let before: Vec<_> = clients.iter().map(|number| selector.select(key(Algorithm::SourceIp, client(*number)), &chosen(&candidates, &[]))).collect();
        candidates[gone].up = false;
        for (number, before) in clients.iter().zip(before) {
            let after = selector.select(key(Algorithm::SourceIp, client(*number)), &chosen(&candidates, &[]));
            prop_assert!(after == before || before == Some(gone));
        }
    }

    #[test]
    fn a_pool_that_changes_keeps_its_turns(weights in prop::collection::vec(1_u16..=8, 2..6), turns in 0_usize..40) {
        let candidates = weighted(&weights);
        for algorithm in [Algorithm::RoundRobin, Algorithm::LeastConnections] {
            let mut selector = Selector::new(algorithm, candidates.len(), 0);
            for _ in 0..turns {
                selector.select(None, &chosen(&candidates, &[]));
            }
            let mut next = Selector::new(algorithm, candidates.len(), 0);
            next.inherit(&selector, Some);
            for _ in 0..20 {
                let eligible = chosen(&candidates, &[]);
                prop_assert_eq!(next.select(None, &eligible), selector.select(None, &eligible));
            }
        }
    }
}

#[test]
fn source_hashing_gives_each_its_share() {
    let weights = [1, 2, 5];
    let candidates = weighted(&weights);
    let (mut by_address, mut by_port) = (HashMap::new(), HashMap::new());
    for number in 0..8_000_u16 {
        let eligible = chosen(&candidates, &[]);
        let choose = |algorithm, client: SocketAddr| {
            Selector::new(algorithm, 3, 0).select(key(algorithm, client), &eligible).unwrap()
        };
        *by_address.entry(choose(Algorithm::SourceIp, client(number.into()))).or_insert(0_i32) += 1;
        let same_host = SocketAddr::from(([10, 0, 0, 1], number));
        *by_port.entry(choose(Algorithm::SourceIpPort, same_host)).or_insert(0_i32) += 1;
        assert_eq!(
            choose(Algorithm::SourceIp, same_host),
            choose(Algorithm::SourceIp, ([10, 0, 0, 1], 1).into())
        );
    }
    for (index, share) in [1_000, 2_000, 5_000].into_iter().enumerate() {
        assert!((by_address[&index] - share).abs() < 200, "{by_address:?}");
        assert!((by_port[&index] - share).abs() < 200, "{by_port:?}");
    }
}

#[test]
fn workers_start_with_different_backends() {
    let candidates = weighted(&[1; 4]);
    for algorithm in [Algorithm::RoundRobin, Algorithm::LeastConnections] {
        let first = (0..4).map(|worker| {
            Selector::new(algorithm, 4, worker).select(None, &chosen(&candidates, &[])).unwrap()
        });
        assert_eq!(first.collect::<HashSet<_>>().len(), 4, "{algorithm:?}");
    }
}

#[test]
fn an_empty_pool_has_nobody_to_choose() {
    for algorithm in
        [Algorithm::RoundRobin, Algorithm::LeastConnections, Algorithm::SourceIp, Algorithm::SourceIpPort]
    {
        assert_eq!(Selector::new(algorithm, 0, 3).select(key(algorithm, client(1)), &[]), None);
    }
}
