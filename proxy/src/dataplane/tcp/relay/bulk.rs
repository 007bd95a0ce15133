//! Detection of flows that are bulky enough for splice(2) to pay.

/// Bytes in large reads that prove a flow bulky.
const BULKY: usize = 256 * 1024;

/// Score below which a flow that was bulky is so no longer.
const NO_LONGER: usize = 64 * 1024;

/// Highest score: a flow that was bulky for an hour falls as fast as another.
const MAX_SCORE: usize = 2 * BULKY;

/// Bytes of one wake-up that count as large: below, reading and writing costs no more than splicing.
const LARGE: usize = 16 * 1024;

/// Score of a flow: grows with large wake-ups, halves with each small one. Many small messages never make a
/// flow bulky.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BulkDetector {
    score: usize,
}

impl BulkDetector {
    /// Records the bytes of one wake-up.
    pub(super) fn record(&mut self, bytes: usize) {
        self.score =
            if bytes >= LARGE { self.score.saturating_add(bytes).min(MAX_SCORE) } else { self.score / 2 };
    }

    /// True if a flow that copies should splice, `bytes` into its present wake-up.
    pub(super) fn is_bulky(self, bytes: usize) -> bool {
        bytes >= LARGE && self.score.saturating_add(bytes) >= BULKY
    }

    /// True if a flow that splices should copy again.
    pub(super) fn has_ended(self) -> bool {
        self.score < NO_LONGER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_transfer_is_bulky_after_its_first_quarter_megabyte() {
        let mut bulk = BulkDetector::default();
        for _ in 0..3 {
            assert!(!bulk.is_bulky(LARGE));
            bulk.record(BULKY / 4);
        }
        assert!(bulk.is_bulky(BULKY / 4));
        assert!(BulkDetector::default().is_bulky(BULKY), "also within one wake-up");
    }

    #[test]
    fn small_messages_never_make_a_flow_bulky_and_end_one_that_was() {
        let mut bulk = BulkDetector::default();
        for _ in 0..100_000 {
            bulk.record(LARGE - 1);
        }
        assert!(!bulk.is_bulky(LARGE - 1));
        bulk.record(100 * BULKY);
        assert!(!bulk.has_ended());
        for _ in 0..4 {
            bulk.record(100);
        }
        assert!(bulk.has_ended());
    }
}
