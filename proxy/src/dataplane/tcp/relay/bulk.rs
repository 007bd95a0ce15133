//! Whether a flow is bulky enough for splice(2) to pay.

/// So many bytes in large gulps prove a flow bulky.
const BULKY: usize = 256 * 1024;

/// Below this a flow that was bulky is not any more.
const NO_LONGER: usize = 64 * 1024;

/// How far a flow can be ahead: one that was bulky for an hour is not believed longer than another.
const MOST: usize = 2 * BULKY;

/// What one wake-up must bring to count as large: up to here, reading and writing costs no more than splicing.
const LARGE: usize = 16 * 1024;

/// The record of a flow: grows with large gulps, halves with each small one. Many small messages never make a flow bulky.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bulk {
    score: usize,
}

impl Bulk {
    /// Takes note of what one wake-up has moved.
    pub(super) fn note(&mut self, bytes: usize) {
        self.score = if bytes >= LARGE { self.score.saturating_add(bytes).min(MOST) } else { self.score / 2 };
    }

    /// Whether a flow that copies should splice, `bytes` into its present wake-up.
    pub(super) fn is_proved(self, bytes: usize) -> bool {
        bytes >= LARGE && self.score.saturating_add(bytes) >= BULKY
    }

    /// Whether a flow that splices should copy again.
    pub(super) fn is_over(self) -> bool {
        self.score < NO_LONGER
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_transfer_is_bulky_after_its_first_quarter_megabyte() {
        let mut bulk = Bulk::default();
        for _ in 0..3 {
            assert!(!bulk.is_proved(LARGE));
            bulk.note(BULKY / 4);
        }
        assert!(bulk.is_proved(BULKY / 4));
        assert!(Bulk::default().is_proved(BULKY), "also within one wake-up");
    }

    #[test]
    fn small_messages_never_make_a_flow_bulky_and_end_one_that_was() {
        let mut bulk = Bulk::default();
        for _ in 0..100_000 {
            bulk.note(LARGE - 1);
        }
        assert!(!bulk.is_proved(LARGE - 1));
        bulk.note(100 * BULKY);
        assert!(!bulk.is_over());
        for _ in 0..4 {
            bulk.note(100);
        }
        assert!(bulk.is_over());
    }
}
