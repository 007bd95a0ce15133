//! Backend list of a VIP, in which weights are repetitions.

use std::net::SocketAddr;

use super::Target;

/// Limit of entries to which weights may extend one VIP's backend list. Each entry is a bucket of an OpenFlow group on every chassis;
/// with 512, shares are within 0.2 % of the desired ones.
pub const MAX_ROTATION: u64 = 512;

/// Builds the backend list of one VIP, in which the number of occurrences of a backend is proportional to its weight.
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
    scale_down(&mut weighted);
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
    // Weights that are scaled down are rounded up to 1, each at most once.
    let scaled = (MAX_ROTATION + entries.len() as u64) * longest;
    unscaled.min(scaled)
}

/// Divides the weights by their greatest common divisor, and scales them down, to 1 at least, if the list would still exceed
/// [`MAX_ROTATION`].
fn scale_down(weighted: &mut [(SocketAddr, u64)]) {
    let divisor =
        weighted.iter().fold(0, |divisor, (_, weight)| greatest_common_divisor(divisor, *weight)).max(1);
    let total = weighted.iter().map(|(_, weight)| weight / divisor).sum::<u64>();
    for (_, weight) in weighted {
        *weight /= divisor;
        if total > MAX_ROTATION {
            *weight = (*weight * MAX_ROTATION / total).max(1);
        }
    }
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
    use proptest::prelude::*;

    use super::*;

    fn target(last: u8, weight: u16) -> Target {
        Target { address: SocketAddr::from(([10, 0, 0, last], 80)), weight, backup: false, enabled: true }
    }

    fn count(list: &[SocketAddr], last: u8) -> usize {
        list.iter().filter(|address| **address == SocketAddr::from(([10, 0, 0, last], 80))).count()
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

    proptest! {
        #[test]
        fn every_serving_backend_is_in_a_bounded_list(weights in prop::collection::vec(0u16..=256, 0..80)) {
            let targets: Vec<_> = (0..).zip(&weights).map(|(last, weight)| target(last, *weight)).collect();
            let list = rotation(&targets);
            for (last, weight) in (0..).zip(&weights) {
                prop_assert_eq!(count(&list, last) > 0, *weight > 0);
            }
            prop_assert!(list.len() as u64 <= MAX_ROTATION + weights.len() as u64);
        }

        #[test]
        fn no_choice_of_targets_takes_more_bytes_than_were_foreseen(
            targets in prop::collection::vec((1u8..=255, prop_oneof![0u16..=4, 0u16..=256], any::<bool>(), any::<bool>()), 0..600),
        ) {
            let targets: Vec<Target> = targets.into_iter()
                .map(|(last, weight, backup, enabled)| Target { backup, enabled, ..target(last, weight) }).collect();
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
