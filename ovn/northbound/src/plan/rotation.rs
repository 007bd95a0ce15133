//! Backend list of a VIP, in which weights are repetitions.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Rem;

use super::Target;

/// Most entries of one VIP's backend list. Each is a bucket of an OpenFlow group on every chassis, and one OpenFlow message
/// describes a group: 64 KiB, some 900 buckets of IPv6. A vswitchd aborts on a larger group. With 512, shares of
/// a few backends are within 0.2 % of the desired ones.
pub const MAX_ROTATION: usize = 512;

/// Weights of the backends of one pool, or their numbers of entries.
type Weighted = Vec<(SocketAddr, u64)>;

/// Builds the backend list of one VIP from pools, each with its weight, in which the number of occurrences of a backend is
/// proportional to its weight among those of its pool, and that of a pool's backends to the weight of the pool: at most
/// [`MAX_ROTATION`] entries.
///
/// Disabled backends and those of weight 0 take no new connections. Backups serve only while no other backend of their pool does. A
/// pool of weight 0 has no entry; nor has one without a backend that serves: the others have its share. The list may be empty: the
/// VIP then rejects connections.
///
/// Each backend of a single pool is in the list at least once; of more than [`MAX_ROTATION`] the heaviest are. Among several pools
/// the shares of the pools come first: where the list would be too long, a pool has its part of [`MAX_ROTATION`] entries, at least
/// one, and of more backends than that the heaviest are in it.
#[must_use]
pub fn rotation<'a, T>(pools: impl IntoIterator<Item = (u16, T)>) -> Vec<SocketAddr>
where
    T: IntoIterator<Item = &'a Target>,
{
    let pools = pools.into_iter().filter(|(weight, _)| *weight > 0);
    let mut pools: Vec<(u64, Weighted)> = pools
        .map(|(weight, targets)| (u64::from(weight), serving(targets)))
        .filter(|(_, backends)| !backends.is_empty())
        .collect();
    if let [(_, backends)] = pools.as_mut_slice() {
        reduce(backends);
        return spread(backends);
    }
    let entries = exact(&pools).unwrap_or_else(|| rounded(&pools));
    // One address may be in several pools.
    let mut merged: BTreeMap<SocketAddr, u64> = BTreeMap::new();
    for (address, number) in entries {
        *merged.entry(address).or_default() += number;
    }
    spread(&merged.into_iter().collect::<Vec<_>>())
}

/// Backends of a pool that take new connections, each once, in the order of their addresses; the heaviest ones, if there are more
/// than [`MAX_ROTATION`].
fn serving<'a>(targets: impl IntoIterator<Item = &'a Target>) -> Weighted {
    let serving = targets.into_iter().filter(|target| target.enabled && target.weight > 0);
    let (backup, regular): (Vec<&Target>, Vec<&Target>) = serving.partition(|target| target.backup);
    let chosen = if regular.is_empty() { backup } else { regular };
    let mut weighted: Weighted =
        chosen.iter().map(|target| (target.address, u64::from(target.weight))).collect();
    weighted.sort_unstable();
    weighted.dedup_by_key(|(address, _)| *address);
    heaviest(&mut weighted, MAX_ROTATION);
    weighted
}

/// Leaves so many of the heaviest backends.
fn heaviest(weighted: &mut Weighted, most: usize) {
    if weighted.len() > most {
        weighted.sort_by_key(|(_, weight)| Reverse(*weight));
        weighted.truncate(most);
    }
}

/// Numbers of entries by which all shares are exact; `None`: there would be more than [`MAX_ROTATION`].
fn exact(pools: &[(u64, Weighted)]) -> Option<Weighted> {
    if pools.iter().map(|(_, backends)| backends.len()).sum::<usize>() > MAX_ROTATION {
        return None;
    }
    let sum = |backends: &Weighted| backends.iter().map(|(_, weight)| u128::from(*weight)).sum::<u128>();
    // Common multiple of the sums of all pools, in which each weight is a whole number.
    let common = pools.iter().try_fold(1_u128, |common, (_, backends)| {
        let sum = sum(backends);
        common.checked_mul(sum / greatest_common_divisor(common, sum))
    })?;
    let mut entries: Vec<(SocketAddr, u128)> = Vec::new();
    for (pool, backends) in pools {
        let unit = (common / sum(backends)).checked_mul((*pool).into())?;
        for (address, weight) in backends {
            entries.push((*address, unit.checked_mul((*weight).into())?));
        }
    }
    let divisor =
        entries.iter().fold(0, |divisor, (_, number)| greatest_common_divisor(divisor, *number)).max(1);
    let reduced = |number: u128| u64::try_from(number / divisor).ok();
    let entries: Weighted = entries
        .into_iter()
        .map(|(address, number)| Some((address, reduced(number)?)))
        .collect::<Option<_>>()?;
    let total = entries.iter().try_fold(0, |total: u64, (_, number)| total.checked_add(*number))?;
    (total <= MAX_ROTATION as u64).then_some(entries)
}

/// Numbers of entries, [`MAX_ROTATION`] in sum, by which the shares of the pools are as near as may be, and those of the backends within
/// each pool.
fn rounded(pools: &[(u64, Weighted)]) -> Weighted {
    let weights: Vec<u64> = pools.iter().map(|(weight, _)| *weight).collect();
    let parts = apportioned(&weights, MAX_ROTATION as u64);
    let entries = pools.iter().zip(parts).flat_map(|((_, backends), part)| {
        let mut backends = backends.clone();
        heaviest(&mut backends, usize::try_from(part).unwrap_or(MAX_ROTATION));
        let weights: Vec<u64> = backends.iter().map(|(_, weight)| *weight).collect();
        let numbers = apportioned(&weights, part);
        backends
            .into_iter()
            .zip(numbers)
            .map(|((address, _), number)| (address, number))
            .collect::<Weighted>()
    });
    entries.collect()
}

/// Divides a number of entries by weights, of which there are not more, so that each gets at least one, and else its quota, rounded by
/// the largest remainders.
fn apportioned(weights: &[u64], entries: u64) -> Vec<u64> {
    let total = weights.iter().sum::<u64>().max(1);
    // Number of entries, remainder, and place. Who has more than its quota has no part in the rest.
    let part = |(place, weight): (usize, &u64)| match (weight * entries / total, weight * entries % total) {
        (0, _) => (1, 0, place),
        (whole, rest) => (whole, rest, place),
    };
    let mut parts: Vec<(u64, u64, usize)> = weights.iter().enumerate().map(part).collect();
    let given: u64 = parts.iter().map(|(number, ..)| number).sum();
    let missing = usize::try_from(entries.saturating_sub(given)).unwrap_or(0);
    parts.sort_by_key(|(_, rest, _)| Reverse(*rest));
    parts.iter_mut().take(missing).for_each(|(number, ..)| *number += 1);
    for _ in entries..given {
        // What the lightest get too much the heaviest lack.
        if let Some((number, ..)) = parts.iter_mut().max_by_key(|(number, ..)| *number) {
            *number -= 1;
        }
    }
    parts.sort_by_key(|(.., place)| *place);
    parts.into_iter().map(|(number, ..)| number).collect()
}

/// Bytes that a pool takes in the backend list of one VIP, whichever of its targets are enabled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolBytes {
    /// Most bytes of an entry.
    longest: u64,
    /// Most bytes of the list if the pool is alone in it.
    alone: u64,
}

impl PoolBytes {
    /// Bytes of a pool with these targets.
    #[must_use]
    pub fn of<'a>(targets: impl IntoIterator<Item = &'a Target>) -> Self {
        // A comma follows each entry but the last.
        let entry = |target: &Target| (u64::from(target.weight), target.address.to_string().len() as u64 + 1);
        let entries: Vec<(u64, u64)> = targets.into_iter().map(entry).collect();
        let longest = entries.iter().map(|(_, bytes)| *bytes).max().unwrap_or_default();
        let divisor =
            entries.iter().fold(0, |divisor, (weight, _)| greatest_common_divisor(divisor, *weight)).max(1);
        let unscaled: u64 = entries.iter().map(|(weight, bytes)| (weight / divisor).max(1) * bytes).sum();
        Self { longest, alone: unscaled.min(MAX_ROTATION as u64 * longest) }
    }

    /// Most bytes of the list of these pools, each with its weight.
    #[must_use]
    pub fn most(pools: impl IntoIterator<Item = (u16, Self)>) -> u64 {
        let pools = pools.into_iter().filter(|(weight, pool)| *weight > 0 && pool.longest > 0);
        let pools: Vec<Self> = pools.map(|(_, pool)| pool).collect();
        match pools.as_slice() {
            [only] => only.alone,
            // The fewer serve of one pool, the more entries each of them has.
            several => {
                several.iter().map(|pool| MAX_ROTATION as u64 * pool.longest).max().unwrap_or_default()
            }
        }
    }
}

/// Divides the weights by their greatest common divisor, and scales them down, to 1 at least, if the list would still exceed
/// [`MAX_ROTATION`]: to the largest scale with which it does not. What the light backends get too much the heavy ones lack.
fn reduce(weighted: &mut [(SocketAddr, u64)]) {
    let divisor =
        weighted.iter().fold(0, |divisor, (_, weight)| greatest_common_divisor(divisor, *weight)).max(1);
    weighted.iter_mut().for_each(|(_, weight)| *weight /= divisor);
    let total = weighted.iter().map(|(_, weight)| weight).sum::<u64>();
    let most = MAX_ROTATION as u64;
    if total <= most {
        return;
    }
    let scaled = |weight: u64, scale: u64| (weight * scale / total).max(1);
    let fits = |scale: u64| weighted.iter().map(|(_, weight)| scaled(*weight, scale)).sum::<u64>() <= most;
    // A scale of 0 always fits, each backend once; the largest one that does is found bit by bit.
    let bits = (0..=MAX_ROTATION.ilog2()).rev().map(|bit| 1 << bit);
    let scale =
        bits.fold(0, |scale, bit| if scale + bit <= most && fits(scale + bit) { scale + bit } else { scale });
    weighted.iter_mut().for_each(|(_, weight)| *weight = scaled(*weight, scale));
}

/// Interleaves the backends (a b a a b ...), so that every prefix of the list is fair.
fn spread(weighted: &[(SocketAddr, u64)]) -> Vec<SocketAddr> {
    let rounds = weighted.iter().map(|(_, weight)| *weight).max().unwrap_or(0);
    (0..rounds)
        .flat_map(|round| {
            weighted.iter().filter(move |(_, weight)| *weight > round).map(|(address, _)| *address)
        })
        .collect()
}

fn greatest_common_divisor<N>(a: N, b: N) -> N
where
    N: Copy + Default + PartialEq + Rem<Output = N>,
{
    if b == N::default() { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use proptest::prelude::*;

    use super::*;

    /// List of one pool.
    fn alone(targets: &[Target]) -> Vec<SocketAddr> {
        rotation([(1, targets)])
    }

    fn address(number: u16) -> SocketAddr {
        let [high, low] = number.to_be_bytes();
        SocketAddr::from(([10, 0, high, low], 80))
    }

    fn target(number: u16, weight: u16) -> Target {
        Target { address: address(number), weight, backup: false, enabled: true }
    }

    fn targets(weights: &[u16]) -> Vec<Target> {
        (0..).zip(weights).map(|(number, weight)| target(number, *weight)).collect()
    }

    fn count(list: &[SocketAddr], number: u16) -> usize {
        list.iter().filter(|entry| **entry == address(number)).count()
    }

    #[test]
    fn weights_are_reduced_by_their_common_divisor() {
        let list = alone(&[target(1, 3), target(2, 1)]);
        assert_eq!((count(&list, 1), count(&list, 2)), (3, 1));
        let list = alone(&[target(1, 256), target(2, 256)]);
        assert_eq!((count(&list, 1), count(&list, 2)), (1, 1));
    }

    #[test]
    fn nobody_in_service_is_an_empty_list() {
        assert_eq!(alone(&[]), []);
        assert_eq!(alone(&[target(1, 0)]), []);
        assert_eq!(alone(&[Target { enabled: false, ..target(1, 1) }]), []);
    }

    #[test]
    fn backups_serve_only_when_nobody_else_does() {
        let backup = Target { backup: true, ..target(9, 1) };
        assert_eq!(count(&alone(&[target(1, 1), backup]), 9), 0);
        assert_eq!(count(&alone(&[target(1, 0), backup]), 9), 1);
    }

    #[test]
    fn light_backends_take_their_entries_from_heavy_ones() {
        let weights: Vec<u16> = [vec![256; 100], vec![1; 400]].concat();
        let list = alone(&targets(&weights));
        assert_eq!((list.len(), count(&list, 0), count(&list, 499)), (500, 1, 1));
        let weights: Vec<u16> = [vec![256, 128], vec![1; 300]].concat();
        let list = alone(&targets(&weights));
        assert!((510..=512).contains(&list.len()), "{}", list.len());
        let (heavy, half) = (count(&list, 0), count(&list, 1));
        assert!(heavy.abs_diff(2 * half) <= 2, "{heavy} and {half}");
    }

    /// Backends of several pools: those of the n-th one have the numbers from 1000 n on.
    fn pools(pools: &[(u16, &[u16])]) -> Vec<(u16, Vec<Target>)> {
        let backends = |at: u16, weights: &[u16]| {
            (0..).zip(weights).map(|(number, weight)| target(1000 * at + number, *weight)).collect()
        };
        (0..).zip(pools).map(|(at, (weight, weights))| (*weight, backends(at, weights))).collect()
    }

    /// Number of entries of each pool of [`pools`].
    fn by_pool(list: &[SocketAddr], pools: u16) -> Vec<usize> {
        let of = |at: u16| (0..1000).map(|number| address(1000 * at + number)).collect::<HashSet<_>>();
        (0..pools)
            .map(|at| (of(at), list))
            .map(|(own, list)| list.iter().filter(|it| own.contains(it)).count())
            .collect()
    }

    fn listed_pools(pools: &[(u16, Vec<Target>)]) -> Vec<SocketAddr> {
        rotation(pools.iter().map(|(weight, targets)| (*weight, targets)))
    }

    #[test]
    fn pools_share_by_their_weights_whatever_is_in_them() {
        let list = listed_pools(&pools(&[(90, &[1, 1, 1]), (10, &[1])]));
        assert_eq!((list.len(), count(&list, 0), count(&list, 1000)), (10, 3, 1));
        let list = listed_pools(&pools(&[(90, &[256, 128]), (10, &[1, 1, 1, 1, 1])]));
        assert_eq!(by_pool(&list, 2), [45, 5]);
        assert_eq!((count(&list, 0), count(&list, 1), count(&list, 1004)), (30, 15, 1));
        let list = listed_pools(&pools(&[(99, &[1; 5]), (1, &[1; 3])]));
        assert_eq!(by_pool(&list, 2), [507, 5]);
        let list = listed_pools(&pools(&[(99, &[1]), (1, &[1; 100])]));
        assert_eq!(by_pool(&list, 2), [507, 5], "the shares of pools come first");
    }

    #[test]
    fn the_share_of_a_pool_in_which_nobody_serves_is_the_others() {
        let mut three = pools(&[(50, &[1, 1]), (30, &[1]), (20, &[0, 1])]);
        assert_eq!(by_pool(&listed_pools(&three), 3), [10, 6, 4]);
        three[1].1[0].enabled = false;
        assert_eq!(by_pool(&listed_pools(&three), 3), [10, 0, 4]);
        three[0].1.iter_mut().for_each(|target| target.enabled = false);
        assert_eq!(by_pool(&listed_pools(&three), 3), [0, 0, 1]);
        three[2].0 = 0;
        assert_eq!(listed_pools(&three), [], "a pool of weight 0 takes nobody's share");
        three[0].1.push(Target { backup: true, ..target(7, 1) });
        assert_eq!(listed_pools(&three), [address(7)], "a backup serves for its pool");
    }

    #[test]
    fn a_backend_of_two_pools_has_the_shares_of_both() {
        let both = [(1, vec![target(1, 1), target(2, 1)]), (1, vec![target(2, 1)])];
        let list = listed_pools(&both);
        assert_eq!((count(&list, 1), count(&list, 2)), (1, 3));
    }

    fn weights() -> impl Strategy<Value = Vec<u16>> {
        let some = prop_oneof![Just(0_u16), Just(1), Just(256), 0_u16..=256];
        (prop::collection::vec(some.clone(), 0..80), prop::collection::vec(some, 0..700), any::<bool>())
            .prop_map(|(few, many, is_few)| if is_few { few } else { many })
    }

    /// Weight and number of entries of each backend.
    fn listed(weights: &[u16], list: &[SocketAddr]) -> Vec<(u16, usize)> {
        let mut counts = HashMap::new();
        list.iter().for_each(|entry| *counts.entry(*entry).or_default() += 1);
        let count = |number| counts.get(&address(number)).copied().unwrap_or_default();
        (0..).zip(weights).map(|(number, weight)| (*weight, count(number))).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_serving_backend_is_in_a_bounded_list(weights in weights()) {
            let list = alone(&targets(&weights));
            prop_assert!(list.len() <= MAX_ROTATION, "{}", list.len());
            let serving = weights.iter().filter(|weight| **weight > 0).count();
            let mut counts = listed(&weights, &list);
            prop_assert_eq!(counts.iter().filter(|(_, count)| *count > 0).count(), serving.min(MAX_ROTATION));
            counts.sort_unstable();
            for pair in counts.windows(2) {
                let ((light, fewer), (heavy, more)) = (pair[0], pair[1]);
                prop_assert!(fewer <= more, "{light}: {fewer}, {heavy}: {more}");
            }
        }

        #[test]
        fn backends_above_one_entry_are_listed_by_their_weights(weights in weights()) {
            let list = alone(&targets(&weights));
            let counts: Vec<(f64, f64)> = listed(&weights, &list)
                .into_iter()
                .filter(|(_, count)| *count > 1)
                .map(|(weight, count)| (f64::from(weight), count as f64))
                .collect();
            // Each count is its weight times one scale, rounded down.
            let lowest = counts.iter().map(|(weight, count)| count / weight).fold(0.0, f64::max);
            let highest = counts.iter().map(|(weight, count)| (count + 1.0) / weight).fold(f64::MAX, f64::min);
            prop_assert!(lowest < highest, "{lowest} {highest}");
        }

        #[test]
        fn no_choice_of_targets_takes_more_bytes_than_were_foreseen(
            targets in prop::collection::vec((1u8..=255, prop_oneof![0u16..=4, 0u16..=256], any::<bool>(), any::<bool>()), 0..600),
        ) {
            let targets: Vec<Target> = targets.into_iter()
                .map(|(last, weight, backup, enabled)| Target { backup, enabled, ..target(last.into(), weight) }).collect();
            let list: Vec<String> = alone(&targets).iter().map(ToString::to_string).collect();
            prop_assert!(list.join(",").len() as u64 <= PoolBytes::most([(1, PoolBytes::of(&targets))]));
        }

        #[test]
        fn shares_follow_the_weights(a in 1u16..=256, b in 1u16..=256) {
            let list = alone(&[target(1, a), target(2, b)]);
            let share = count(&list, 1) as f64 / list.len() as f64;
            let asked = f64::from(a) / f64::from(a + b);
            prop_assert!((share - asked).abs() < 0.005, "{share} instead of {asked}");
        }

        #[test]
        fn shares_of_pools_are_exact_but_for_the_rounding(
            given in prop::collection::vec((0u16..=256, prop::collection::vec(0u16..=256, 0..60)), 1..=16),
        ) {
            let given: Vec<(u16, &[u16])> = given.iter().map(|(weight, weights)| (*weight, weights.as_slice())).collect();
            let list = listed_pools(&pools(&given));
            prop_assert!(list.len() <= MAX_ROTATION, "{}", list.len());
            let counts = by_pool(&list, u16::try_from(given.len()).unwrap());
            let serves = |(weight, weights): &(u16, &[u16])| *weight > 0 && weights.iter().any(|it| *it > 0);
            let serving = given.iter().filter(|it| serves(it)).count();
            let total: f64 = given.iter().filter(|it| serves(it)).map(|(weight, _)| f64::from(*weight)).sum();
            for (pool, count) in given.iter().zip(counts) {
                if !serves(pool) {
                    prop_assert_eq!(count, 0);
                    continue;
                }
                prop_assert!(count > 0);
                if serving > 1 {
                    let (share, quota) = (count as f64, f64::from(pool.0) / total * list.len() as f64);
                    // Those below one entry have one, at the cost of the others.
                    prop_assert!((share - quota).abs() <= serving as f64, "{share} instead of {quota}");
                    prop_assert!(quota < 1.0 || (share - quota) < 1.0, "{share} instead of {quota}");
                }
            }
        }

        #[test]
        fn shares_within_two_pools_are_exact_but_for_the_rounding(
            a in prop::collection::vec(1u16..=256, 1..20), b in prop::collection::vec(1u16..=256, 1..20),
            weights in (1u16..=256, 1u16..=256),
        ) {
            let list = listed_pools(&pools(&[(weights.0, &a), (weights.1, &b)]));
            let counts = by_pool(&list, 2);
            let quota = f64::from(weights.0) / f64::from(weights.0 + weights.1) * list.len() as f64;
            prop_assert!((counts[0] as f64 - quota).abs() < 1.0 || counts[1] == 1, "{counts:?} instead of {quota}");
            for (first, weights, of_pool) in [(0, a, counts[0]), (1000, b, counts[1])] {
                let total: f64 = weights.iter().map(|it| f64::from(*it)).sum();
                let backends = weights.len();
                if of_pool < backends {
                    continue;
                }
                for (number, weight) in (first..).zip(weights) {
                    let quota = f64::from(weight) / total * of_pool as f64;
                    let own = count(&list, number) as f64;
                    prop_assert!((own - quota).abs() <= backends as f64 && own > 0.0, "{own} instead of {quota}");
                    prop_assert!(quota < 1.0 || own - quota < 1.0, "{own} instead of {quota}");
                }
            }
        }

        #[test]
        fn no_choice_of_targets_of_several_pools_takes_more_bytes_than_were_foreseen(
            given in prop::collection::vec(
                (0u16..=256, prop::collection::vec((1u8..=255, 0u16..=256, any::<bool>(), any::<bool>()), 0..40)), 0..5),
        ) {
            let pool = |targets: Vec<(u8, u16, bool, bool)>| -> Vec<Target> {
                let targets = targets.into_iter();
                targets.map(|(last, weight, backup, enabled)| Target { backup, enabled, ..target(last.into(), weight) }).collect()
            };
            let pools: Vec<(u16, Vec<Target>)> = given.into_iter().map(|(weight, targets)| (weight, pool(targets))).collect();
            let list: Vec<String> = listed_pools(&pools).iter().map(ToString::to_string).collect();
            let most = PoolBytes::most(pools.iter().map(|(weight, targets)| (*weight, PoolBytes::of(targets))));
            prop_assert!(list.join(",").len() as u64 <= most);
        }
    }
}
