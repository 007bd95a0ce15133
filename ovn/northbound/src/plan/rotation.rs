//! Backend list of a VIP, in which weights are repetitions.

use std::cmp::Reverse;
use std::net::SocketAddr;

use super::Target;

/// Most entries of one VIP's backend list. Each is a bucket of an OpenFlow group on every chassis, and one OpenFlow message
/// describes a group: 64 KiB, some 900 buckets of IPv6. A vswitchd that is asked for a larger group aborts. With 512, shares of
/// a few backends are within 0.2 % of the desired ones.
pub const MAX_ROTATION: usize = 512;

/// Builds the backend list of one VIP, in which the number of occurrences of a backend is proportional to its weight: at most
/// [`MAX_ROTATION`] entries, and each backend at least once. Of more backends than that, the heaviest are in it.
///
/// Disabled backends and those of weight 0 take no new connections. Backups serve only while no other backend does. The list may be
/// empty: the VIP then rejects connections.
#[must_use]
pub fn rotation<'a>(targets: impl IntoIterator<Item = &'a Target>) -> Vec<SocketAddr> {
    let serving = targets.into_iter().filter(|target| target.enabled && target.weight > 0);
    let (backup, regular): (Vec<&Target>, Vec<&Target>) = serving.partition(|target| target.backup);
    let chosen = if regular.is_empty() { backup } else { regular };

    let mut weighted: Vec<(SocketAddr, u64)> =
        chosen.iter().map(|target| (target.address, u64::from(target.weight))).collect();
    weighted.sort_unstable();
    weighted.dedup_by_key(|(address, _)| *address);
    if weighted.len() > MAX_ROTATION {
        weighted.sort_by_key(|(_, weight)| Reverse(*weight));
        weighted.truncate(MAX_ROTATION);
    }
    reduce(&mut weighted);
    spread(&weighted)
}

/// Most bytes that the backend list of one VIP takes, whichever of the targets are enabled.
#[must_use]
pub fn most_rotation_bytes<'a>(targets: impl IntoIterator<Item = &'a Target>) -> u64 {
    let entries: Vec<(u64, u64)> = targets
        .into_iter()
        // A comma follows each entry but the last.
        .map(|target| (u64::from(target.weight), target.address.to_string().len() as u64 + 1))
        .collect();
    let divisor =
        entries.iter().fold(0, |divisor, (weight, _)| greatest_common_divisor(divisor, *weight)).max(1);
    let unscaled: u64 = entries.iter().map(|(weight, bytes)| (weight / divisor).max(1) * bytes).sum();
    let longest = entries.iter().map(|(_, bytes)| *bytes).max().unwrap_or_default();
    unscaled.min(MAX_ROTATION as u64 * longest)
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

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

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
        let list = rotation(&[target(1, 3), target(2, 1)]);
        assert_eq!((count(&list, 1), count(&list, 2)), (3, 1));
        let list = rotation(&[target(1, 256), target(2, 256)]);
        assert_eq!((count(&list, 1), count(&list, 2)), (1, 1));
    }

    #[test]
    fn nobody_in_service_is_an_empty_list() {
        assert_eq!(rotation(&[]), []);
        assert_eq!(rotation(&[target(1, 0)]), []);
        assert_eq!(rotation(&[Target { enabled: false, ..target(1, 1) }]), []);
    }

    #[test]
    fn backups_serve_only_when_nobody_else_does() {
        let backup = Target { backup: true, ..target(9, 1) };
        assert_eq!(count(&rotation(&[target(1, 1), backup]), 9), 0);
        assert_eq!(count(&rotation(&[target(1, 0), backup]), 9), 1);
    }

    #[test]
    fn light_backends_take_their_entries_from_heavy_ones() {
        let weights: Vec<u16> = [vec![256; 100], vec![1; 400]].concat();
        let list = rotation(&targets(&weights));
        assert_eq!((list.len(), count(&list, 0), count(&list, 499)), (500, 1, 1));
        let weights: Vec<u16> = [vec![256, 128], vec![1; 300]].concat();
        let list = rotation(&targets(&weights));
        assert!((510..=512).contains(&list.len()), "{}", list.len());
        let (heavy, half) = (count(&list, 0), count(&list, 1));
        assert!(heavy.abs_diff(2 * half) <= 2, "{heavy} and {half}");
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
            let list = rotation(&targets(&weights));
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
            let list = rotation(&targets(&weights));
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
            let list: Vec<String> = rotation(&targets).iter().map(ToString::to_string).collect();
            prop_assert!(list.join(",").len() as u64 <= most_rotation_bytes(&targets));
        }

        #[test]
        fn shares_follow_the_weights(a in 1u16..=256, b in 1u16..=256) {
            let list = rotation(&[target(1, a), target(2, b)]);
            let share = count(&list, 1) as f64 / list.len() as f64;
            let asked = f64::from(a) / f64::from(a + b);
            prop_assert!((share - asked).abs() < 0.005, "{share} instead of {asked}");
        }
    }
}
