//! Weights as selection compares them. Pure.

use std::time::{Duration, Instant};

/// Parts of a weight of 1. A power of two: hashing by weight then decides as it does by whole weights, on a node of
/// another release.
const PARTS: u32 = 1 << 10;

/// Divisor of the weight with which a slow start begins.
const FIRST: u32 = 10;

/// Weight in small parts, so that a part of a weight of 1 can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FineWeight(u32);

impl FineWeight {
    /// All of a weight.
    pub(super) fn whole(weight: u16) -> Self {
        Self(u32::from(weight) * PARTS)
    }

    /// Weight at `now` of a backend that takes connections since `began`, in a pool with this slow start: it grows from
    /// a tenth to all of it. None: it has taken them as long as its pool is there.
    pub(super) fn growing(weight: u16, began: Option<Instant>, slow_start: Duration, now: Instant) -> Self {
        let Self(whole) = Self::whole(weight);
        let age = began.map_or(slow_start, |began| now.saturating_duration_since(began));
        if age >= slow_start {
            return Self(whole);
        }
        let first = whole / FIRST;
        let grown = f64::from(whole - first) * age.div_duration_f64(slow_start);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from 0 to less than `whole`"
        )]
        let grown = grown as u32;
        Self(first + grown)
    }

    /// Its parts. 0: no new connections.
    pub(super) fn parts(self) -> u32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_backend_begins_with_a_tenth_and_has_all_of_its_weight_in_the_end() {
        let (began, slow_start) = (Instant::now(), Duration::from_secs(90));
        let after = |seconds| {
            let now = began + Duration::from_secs(seconds);
            FineWeight::growing(100, Some(began), slow_start, now).parts() / PARTS
        };
        assert_eq!([0, 10, 50, 80, 90, 1000].map(after), [10, 20, 60, 90, 100, 100]);
        let whole = FineWeight::whole(100);
        assert_eq!(
            FineWeight::growing(100, None, slow_start, began),
            whole,
            "it was there from the beginning"
        );
        assert_eq!(FineWeight::growing(100, Some(began), Duration::ZERO, began), whole);
    }

    proptest! {
        #[test]
        fn a_weight_grows_and_is_never_none(
            weight in 1_u16..=256, slow_start in 1_u64..=3_600_000, ages in prop::collection::vec(0_u64..8_000_000, 2..10),
        ) {
            let began = Instant::now();
            let mut ages = ages;
            ages.sort_unstable();
            let weights: Vec<FineWeight> = ages.iter().map(|age| {
                let now = began + Duration::from_millis(*age);
                FineWeight::growing(weight, Some(began), Duration::from_millis(slow_start), now)
            }).collect();
            prop_assert!(weights.is_sorted());
            let whole = FineWeight::whole(weight);
            prop_assert!(weights.iter().all(|it| it.parts() >= whole.parts() / FIRST && *it <= whole));
            prop_assert!(weights[0].parts() > 0);
            prop_assert_eq!(FineWeight::growing(0, Some(began), Duration::from_millis(slow_start), began).parts(), 0);
        }
    }
}
