//! Pools among which a listener divides its connections.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::violation::Form;

/// Pool of a listener, with its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WeightedPool {
    /// The pool; nil: not known yet, or not given.
    pub pool_id: Uuid,
    /// Share of new connections relative to the other pools, 0 to 256; 0 takes none.
    pub weight: u16,
}

/// Pools of a listener in place of a default pool, in the order in which they were given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WeightedPools(Vec<WeightedPool>);

impl WeightedPools {
    /// Field of a listener.
    pub const FIELD: &'static str = "weighted_pools";

    /// Most pools of a listener.
    pub const MOST: usize = 16;

    /// Legal weights.
    pub const WEIGHTS: RangeInclusive<u16> = 0..=256;

    /// Path of the id of the pool at a place.
    pub fn path(place: usize) -> String {
        format!("{}[{place}].pool_id", Self::FIELD)
    }

    /// Returns true if it has no pool.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The pools.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &WeightedPool> {
        self.0.iter()
    }

    /// Sets the id of the pool at a path; of another path nothing.
    pub(super) fn refer(&mut self, path: &str, id: Uuid) {
        let place = (0..self.0.len()).find(|place| Self::path(*place) == path);
        if let Some(pool) = place.and_then(|place| self.0.get_mut(place)) {
            pool.pool_id = id;
        }
    }

    pub(super) fn check(&self, form: &mut Form<'_>) {
        if self.0.len() > Self::MOST {
            let (most, given) = (Self::MOST, self.0.len());
            return form.invalid(Self::FIELD, format!("at most {most} pools, given {given}"));
        }
        let mut known = BTreeSet::new();
        for (place, pool) in self.0.iter().enumerate() {
            form.check_range(&format!("{}[{place}].weight", Self::FIELD), pool.weight, &Self::WEIGHTS);
            let path = Self::path(place);
            if form.has_wrong(&path) {
                continue;
            }
            if pool.pool_id.is_nil() {
                form.invalid(&path, "is required");
            } else if !known.insert(pool.pool_id) {
                form.invalid(&path, "another entry has the same pool: give it one weight");
            }
        }
        if !self.is_empty() && self.0.iter().all(|pool| pool.weight == 0) {
            form.invalid(Self::FIELD, "one pool at least must have a weight above 0");
        }
    }
}

impl FromIterator<WeightedPool> for WeightedPools {
    fn from_iter<I: IntoIterator<Item = WeightedPool>>(pools: I) -> Self {
        Self(pools.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Violations;
    use super::*;

    fn found(pools: &[(u128, u16)]) -> Vec<(String, String)> {
        let pool =
            |(id, weight): &(u128, u16)| WeightedPool { pool_id: Uuid::from_u128(*id), weight: *weight };
        let pools: WeightedPools = pools.iter().map(pool).collect();
        let mut violations = Violations::default();
        pools.check(&mut Form::new("", &mut violations));
        violations.into_vec().into_iter().map(|violation| (violation.field, violation.description)).collect()
    }

    #[test]
    fn pools_are_bounded_known_once_and_one_of_them_serves() {
        for fine in [&[][..], &[(1, 1)], &[(1, 0), (2, 256)]] {
            assert_eq!(found(fine), []);
        }
        let one = |field: &str, why: &str| vec![(field.to_owned(), why.to_owned())];
        assert_eq!(
            found(&[(1, 0), (2, 0)]),
            one("weighted_pools", "one pool at least must have a weight above 0")
        );
        let twice = one("weighted_pools[1].pool_id", "another entry has the same pool: give it one weight");
        assert_eq!(found(&[(1, 1), (1, 2)]), twice);
        assert_eq!(found(&[(0, 1)]), one("weighted_pools[0].pool_id", "is required"));
        assert_eq!(found(&[(1, 257)]), one("weighted_pools[0].weight", "must be 0 to 256, given 257"));
        let many: Vec<(u128, u16)> = (1..=17).map(|id| (id, 1)).collect();
        assert_eq!(found(&many), one("weighted_pools", "at most 16 pools, given 17"));
        assert_eq!(found(&many[1..]), []);
    }
}
