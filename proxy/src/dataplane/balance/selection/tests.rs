use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;

fn standings() -> impl Strategy<Value = Vec<Standing>> {
    let standing = (any::<bool>(), 0_u16..=256, any::<bool>(), 0_u32..1_000, any::<u128>());
    let standing = standing.prop_map(|(up, weight, backup, active, id)| Standing {
        up,
        weight,
        backup,
        active,
        identity: identity(Uuid::from_u128(id)),
    });
    prop::collection::vec(standing, 0..12)
}

fn algorithm() -> impl Strategy<Value = Algorithm> {
    prop_oneof![
        Just(Algorithm::RoundRobin),
        Just(Algorithm::LeastConnections),
        Just(Algorithm::SourceIp),
        Just(Algorithm::SourceIpPort)
    ]
}

fn client(number: u32) -> SocketAddr {
    (std::net::Ipv4Addr::from_bits(number), 40_000).into()
}

fn chosen(standings: &[Standing], tried: &[usize]) -> Vec<Eligible> {
    let mut chosen = Vec::new();
    eligible(standings.iter().copied(), tried, &mut chosen);
    chosen
}

/// Backends of these weights, all up and without connections.
fn weighted(weights: &[u16]) -> Vec<Standing> {
    let standing = |(weight, id): (&u16, u128)| Standing {
        up: true,
        weight: *weight,
        backup: false,
        active: 0,
        identity: identity(Uuid::from_u128(id)),
    };
    weights.iter().zip(1..).map(standing).collect()
}

proptest! {
    #[test]
    fn each_candidate_comes_once_and_primaries_come_before_backups(
        standings in standings(), algorithm in algorithm(), number: u32, start in 0_usize..16,
    ) {
        let mut chooser = Chooser::new(algorithm, standings.len(), start);
        let mut tried = Vec::new();
        while let Some(index) = chooser.choose(client(number), &chosen(&standings, &tried)) {
            prop_assert!(!tried.contains(&index));
            tried.push(index);
        }
        let able: HashSet<usize> = standings.iter().enumerate()
            .filter(|(_, standing)| standing.up && standing.weight > 0).map(|(index, _)| index).collect();
        prop_assert_eq!(tried.iter().copied().collect::<HashSet<_>>(), able);
        let backups: Vec<bool> = tried.iter().map(|index| standings[*index].backup).collect();
        prop_assert!(backups.is_sorted(), "{:?}", backups);
    }

    #[test]
    fn round_robin_gives_each_its_exact_share_of_every_cycle(weights in prop::collection::vec(1_u16..=256, 1..8), start: usize) {
        let standings = weighted(&weights);
        let mut chooser = Chooser::new(Algorithm::RoundRobin, standings.len(), start);
        let cycle: u16 = weights.iter().sum();
        for _ in 0..2 {
            let mut turns = vec![0; weights.len()];
            for _ in 0..cycle {
                turns[chooser.choose(client(0), &chosen(&standings, &[])).unwrap()] += 1;
            }
            prop_assert_eq!(&turns, &weights);
        }
    }

    #[test]
    fn least_connections_levels_the_load(weights in prop::collection::vec(1_u16..=16, 1..6)) {
        let mut standings = weighted(&weights);
        let mut chooser = Chooser::new(Algorithm::LeastConnections, standings.len(), 0);
        let all: u16 = weights.iter().sum();
        for _ in 0..u32::from(all) * 3 {
            let index = chooser.choose(client(0), &chosen(&standings, &[])).unwrap();
            standings[index].active += 1;
        }
        for standing in standings {
            let off = i64::from(standing.active) - 3 * i64::from(standing.weight);
            prop_assert!(off.abs() <= 1, "{standing:?}");
        }
    }

    #[test]
    fn a_backend_that_goes_moves_only_its_own_clients(
        weights in prop::collection::vec(1_u16..=256, 2..10), gone: prop::sample::Index,
        clients in prop::collection::vec(any::<u32>(), 1..100),
    ) {
        let mut chooser = Chooser::new(Algorithm::SourceIp, weights.len(), 0);
        let mut standings = weighted(&weights);
        let gone = gone.index(standings.len());
        let before: Vec<_> = clients.iter().map(|number| chooser.choose(client(*number), &chosen(&standings, &[]))).collect();
        standings[gone].up = false;
        for (number, before) in clients.iter().zip(before) {
            let after = chooser.choose(client(*number), &chosen(&standings, &[]));
            prop_assert!(after == before || before == Some(gone));
        }
    }

    #[test]
    fn a_pool_that_changes_keeps_its_turns(weights in prop::collection::vec(1_u16..=8, 2..6), turns in 0_usize..40) {
        let standings = weighted(&weights);
        for algorithm in [Algorithm::RoundRobin, Algorithm::LeastConnections] {
            let mut chooser = Chooser::new(algorithm, standings.len(), 0);
            for _ in 0..turns {
                chooser.choose(client(0), &chosen(&standings, &[]));
            }
            let mut next = Chooser::new(algorithm, standings.len(), 0);
            next.inherit(&chooser, Some);
            for _ in 0..20 {
                let eligible = chosen(&standings, &[]);
                prop_assert_eq!(next.choose(client(0), &eligible), chooser.choose(client(0), &eligible));
            }
        }
    }
}

#[test]
fn source_hashing_gives_each_its_share() {
    let weights = [1, 2, 5];
    let standings = weighted(&weights);
    let (mut by_address, mut by_port) = (HashMap::new(), HashMap::new());
    for number in 0..8_000_u16 {
        let eligible = chosen(&standings, &[]);
        let choose = |algorithm, client| Chooser::new(algorithm, 3, 0).choose(client, &eligible).unwrap();
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
fn a_mapped_client_goes_where_it_went_as_ipv4() {
    let standings = weighted(&[1; 16]);
    let mut chooser = Chooser::new(Algorithm::SourceIpPort, 16, 0);
    for number in 1..50 {
        let plain = client(number);
        let std::net::IpAddr::V4(address) = plain.ip() else { unreachable!() };
        let mapped = (address.to_ipv6_mapped(), plain.port()).into();
        let eligible = chosen(&standings, &[]);
        assert_eq!(chooser.choose(plain, &eligible), chooser.choose(mapped, &eligible));
    }
}

#[test]
fn workers_start_with_different_backends() {
    let standings = weighted(&[1; 4]);
    for algorithm in [Algorithm::RoundRobin, Algorithm::LeastConnections] {
        let first = (0..4).map(|worker| {
            Chooser::new(algorithm, 4, worker).choose(client(0), &chosen(&standings, &[])).unwrap()
        });
        assert_eq!(first.collect::<HashSet<_>>().len(), 4, "{algorithm:?}");
    }
}

#[test]
fn an_empty_pool_has_nobody_to_choose() {
    for algorithm in
        [Algorithm::RoundRobin, Algorithm::LeastConnections, Algorithm::SourceIp, Algorithm::SourceIpPort]
    {
        assert_eq!(Chooser::new(algorithm, 0, 3).choose(client(1), &[]), None);
    }
}
