//! Position in a store's history.

use std::fmt;

/// Position in the store's history: grows with each transaction that changes something, never repeats,
/// survives restarts. Gaps are possible.
///
/// 0 comes before the first transaction. In a [`Compare`](super::Compare) it stands for "the key is absent".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

impl Revision {
    /// Before every transaction; the revision of an absent key.
    pub const ZERO: Self = Self(0);

    /// The revision of the transaction that comes next.
    pub(super) fn next(self) -> Self {
        // At a million transactions a second this lasts for half a million years.
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
