use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;
use crate::dataplane::balance::key::ClientKeys;

fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let weight = prop_oneof![Just(0_u16), 1..=256_u16];
    let candidate = (0_u8..4, any::<bool>(), weight, any::<bool>(), 0_u32..1_000, any::<u128>());
    let candidate = candidate.prop_map(|(state, ejected, weight, backup, active, id)| Candidate {
        up: state > 1,
        is_full: state == 1,
        ejected,
        weight: FineWeight::whole(weight),
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
        Just(Algorithm::SourceIpPort),
        Just(Algorithm::Random),
        Just(Algorithm::PowerOfTwoChoices)
    ]
}

/// A selector whose draws are the same each time.
fn seeded(algorithm: Algorithm, backends: usize, start: usize) -> Selector {
    Selector::new(algorithm, backends, start, fastrand::Rng::with_seed(7))
}

/// Key of a client for an algorithm.
fn key(algorithm: Algorithm, client: impl Into<SocketAddr>) -> Option<AffinityKey> {
    ClientKeys::of_peer(client.into(), algorithm, false).hashed
}

fn client(number: u32) -> SocketAddr {
    (std::net::Ipv4Addr::from_bits(number), 40_000).into()
}

fn chosen(candidates: &[Candidate], tried: &[usize]) -> Vec<Eligible> {
    chosen_with(candidates, tried, EjectedUse::WithoutPlaces)
}

fn chosen_with(candidates: &[Candidate], tried: &[usize], ejected_use: EjectedUse) -> Vec<Eligible> {
    let mut chosen = Vec::new();
    collect_eligible(candidates.iter().copied(), tried, ejected_use, &mut chosen);
    chosen
}

/// Backends of these weights, all up and without connections.
fn weighted(weights: &[u16]) -> Vec<Candidate> {
    let candidate = |(weight, id): (&u16, u128)| Candidate {
        up: true,
        is_full: false,
        ejected: false,
        weight: FineWeight::whole(*weight),
        backup: false,
        active: 0,
        identity: identity(Uuid::from_u128(id)),
    };
    weights.iter().zip(1..).map(candidate).collect()
}

proptest! {
    #[test]
    fn each_candidate_comes_once_and_primaries_before_backups_and_ejected_ones_last(
        candidates in candidates(), algorithm in algorithm(), number: u32, start in 0_usize..16,
    ) {
        let mut selector = seeded(algorithm, candidates.len(), start);
        let mut tried = Vec::new();
        while let Some(index) = selector.select(key(algorithm, client(number)), &chosen(&candidates, &tried)) {
            prop_assert!(!tried.contains(&index));
            tried.push(index);
        }
        let able: HashSet<usize> = candidates.iter().enumerate()
            .filter(|(_, candidate)| candidate.up && candidate.weight.parts() > 0).map(|(index, _)| index).collect();
        prop_assert_eq!(tried.iter().copied().collect::<HashSet<_>>(), able);
        let rank = |index: &usize| (candidates[*index].ejected, candidates[*index].backup);
        prop_assert!(tried.is_sorted_by_key(rank), "{:?}", tried);
    }

    #[test]
    fn ejected_ones_are_used_as_far_as_they_may_be(
        candidates in candidates(), tried in prop::collection::vec(0_usize..12, 0..6),
    ) {
        let others = |is_there: fn(&Candidate) -> bool| {
            let of = |(index, it): (usize, &Candidate)| {
                !it.ejected && it.weight.parts() > 0 && !tried.contains(&index) && is_there(it)
            };
            candidates.iter().enumerate().any(of)
        };
        let all = chosen(&candidates, &tried);
        let regular: Vec<Eligible> = all.iter().copied().filter(|it| !candidates[it.index].ejected).collect();
        prop_assert!(regular.is_empty() || regular == all, "never both");
        prop_assert_eq!(&chosen_with(&candidates, &tried, EjectedUse::Never), &regular);
        let waits = others(|it| it.up || it.is_full);
        let expected = if waits { &regular } else { &all };
        prop_assert_eq!(&chosen_with(&candidates, &tried, EjectedUse::WithoutOthers), expected);
    }

    #[test]
    fn round_robin_gives_each_its_exact_share_of_every_cycle(weights in prop::collection::vec(1_u16..=256, 1..8), start: usize) {
        let candidates = weighted(&weights);
        let mut selector = seeded(Algorithm::RoundRobin, candidates.len(), start);
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
        let mut selector = seeded(Algorithm::LeastConnections, candidates.len(), 0);
        let all: u16 = weights.iter().sum();
        for _ in 0..u32::from(all) * 3 {
            let index = selector.select(None, &chosen(&candidates, &[])).unwrap();
            candidates[index].active += 1;
        }
        for (candidate, weight) in candidates.into_iter().zip(weights) {
            let off = i64::from(candidate.active) - 3 * i64::from(weight);
            prop_assert!(off.abs() <= 1, "{candidate:?}");
        }
    }

    #[test]
    fn a_draw_gives_each_its_share(weights in prop::collection::vec(1_u16..=256, 1..8), seed: u64) {
        const TURNS: u32 = 20_000;
        let candidates = weighted(&weights);
        let random = fastrand::Rng::with_seed(seed);
        let mut selector = Selector::new(Algorithm::Random, candidates.len(), 0, random);
        let mut turns = vec![0_u32; weights.len()];
        for _ in 0..TURNS {
            turns[selector.select(None, &chosen(&candidates, &[])).unwrap()] += 1;
        }
        let all: u16 = weights.iter().sum();
        for (turns, weight) in turns.into_iter().zip(weights) {
            let chance = f64::from(weight) / f64::from(all);
            let deviation = (f64::from(TURNS) * chance * (1.0 - chance)).sqrt();
            // Eight standard deviations: none of some million draws is off by as much.
            prop_assert!((f64::from(turns) - f64::from(TURNS) * chance).abs() <= 8.0 * deviation + 1.0);
        }
    }

    #[test]
    fn the_better_one_of_two_levels_the_load(
        weights in prop::collection::vec(1_u16..=16, 1..20), seed: u64,
    ) {
        const ROUNDS: u16 = 50;
        let mut candidates = weighted(&weights);
        let random = fastrand::Rng::with_seed(seed);
        let mut selector = Selector::new(Algorithm::PowerOfTwoChoices, candidates.len(), 0, random);
        let all: u16 = weights.iter().sum();
        for _ in 0..all * ROUNDS {
            let index = selector.select(None, &chosen(&candidates, &[])).unwrap();
            candidates[index].active += 1;
        }
        for (candidate, weight) in candidates.into_iter().zip(weights) {
            let fair = f64::from(weight) * f64::from(ROUNDS);
            let off = f64::from(candidate.active) - fair;
            // By chance alone it would be off by some times the root of its share.
            prop_assert!(off.abs() <= 8.0 + 2.0 * f64::from(weight), "{candidate:?}");
        }
    }

    #[test]
    fn of_two_the_one_with_less_load_is_selected(loads in [0_u32..1_000, 0_u32..1_000], weights in [1_u16..=256, 1_u16..=256], seed: u64) {
        let mut candidates = weighted(&weights);
        candidates.iter_mut().zip(loads).for_each(|(candidate, active)| candidate.active = active);
        let random = fastrand::Rng::with_seed(seed);
        let mut selector = Selector::new(Algorithm::PowerOfTwoChoices, 2, 0, random);
        let eligible = chosen(&candidates, &[]);
        let selected = selector.select(None, &eligible).unwrap();
        prop_assert!(eligible[selected].cmp_load(&eligible[1 - selected]).is_le());
    }

    #[test]
    fn a_backend_that_goes_moves_only_its_own_clients(
        weights in prop::collection::vec(1_u16..=256, 2..10), gone: prop::sample::Index,
        clients in prop::collection::vec(any::<u32>(), 1..100),
    ) {
        let mut selector = seeded(Algorithm::SourceIp, weights.len(), 0);
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
            let mut selector = seeded(algorithm, candidates.len(), 0);
            for _ in 0..turns {
                selector.select(None, &chosen(&candidates, &[]));
            }
            let mut next = seeded(algorithm, candidates.len(), 0);
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
            seeded(algorithm, 3, 0).select(key(algorithm, client), &eligible).unwrap()
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
        let first = (0..4)
            .map(|worker| seeded(algorithm, 4, worker).select(None, &chosen(&candidates, &[])).unwrap());
        assert_eq!(first.collect::<HashSet<_>>().len(), 4, "{algorithm:?}");
    }
}

#[test]
fn an_empty_pool_has_nobody_to_choose() {
    for algorithm in [
        Algorithm::RoundRobin,
        Algorithm::LeastConnections,
        Algorithm::SourceIp,
        Algorithm::SourceIpPort,
        Algorithm::Random,
        Algorithm::PowerOfTwoChoices,
    ] {
        assert_eq!(seeded(algorithm, 0, 3).select(key(algorithm, client(1)), &[]), None);
    }
}
