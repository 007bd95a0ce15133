//! From probes to verdicts: one pure step.

use super::check::Check;
use super::outcome::{Outcome, Reason};

/// Probes in a row that turn a verdict, 1 to 10 each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Good ones that bring a backend back.
    pub rise: u32,
    /// Bad ones that take it out.
    pub fall: u32,
}

/// What is known of a target, and how far it is from the opposite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No verdict yet.
    Unknown {
        /// Bad probes so far, without a good one.
        bad: u32,
    },
    /// Good.
    Up {
        /// Bad probes in a row.
        bad: u32,
    },
    /// Bad.
    Down {
        /// Of the latest bad probe.
        reason: Reason,
        /// Good probes in a row.
        good: u32,
    },
}

/// A new verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flip {
    /// Up from now on.
    Up,
    /// Down from now on.
    Down(Reason),
}

impl State {
    /// What is known of a target that was never probed.
    pub const NEW: Self = Self::Unknown { bad: 0 };
}

impl From<&Check> for Thresholds {
    fn from(check: &Check) -> Self {
        Self { rise: check.rise(), fall: check.fall() }
    }
}

/// Takes one outcome in.
///
/// The first good probe of a target is its verdict at once, so that a new backend need not wait for `rise` of them; the
/// first verdict Down takes `fall` bad ones like any other. An inconclusive probe neither lengthens nor ends a row.
#[must_use]
pub fn observe(state: State, outcome: &Outcome, thresholds: Thresholds) -> (State, Option<Flip>) {
    match outcome {
        Outcome::Good => observe_good(state, thresholds.rise),
        Outcome::Bad(reason) => observe_bad(state, *reason, thresholds.fall),
        Outcome::Inconclusive(_) => (state, None),
    }
}

fn observe_good(state: State, rise: u32) -> (State, Option<Flip>) {
    match state {
        State::Up { .. } => (State::Up { bad: 0 }, None),
        State::Unknown { .. } => (State::Up { bad: 0 }, Some(Flip::Up)),
        State::Down { good, .. } if good.saturating_add(1) >= rise => (State::Up { bad: 0 }, Some(Flip::Up)),
        State::Down { reason, good } => (State::Down { reason, good: good.saturating_add(1) }, None),
    }
}

fn observe_bad(state: State, reason: Reason, fall: u32) -> (State, Option<Flip>) {
    let down = State::Down { reason, good: 0 };
    match state {
        State::Down { .. } => (down, None),
        State::Unknown { bad } | State::Up { bad } if bad.saturating_add(1) >= fall => {
            (down, Some(Flip::Down(reason)))
        }
        State::Unknown { bad } => (State::Unknown { bad: bad.saturating_add(1) }, None),
        State::Up { bad } => (State::Up { bad: bad.saturating_add(1) }, None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn outcomes() -> impl Strategy<Value = Vec<Outcome>> {
        let reason =
            prop_oneof![Just(Reason::Refused), Just(Reason::NoAnswer), (500u16..505).prop_map(Reason::Code)];
        let outcome = prop_oneof![
            4 => Just(Outcome::Good),
            4 => reason.prop_map(Outcome::Bad),
            1 => Just(Outcome::Inconclusive("no descriptors".to_owned())),
        ];
        prop::collection::vec(outcome, 0..60)
    }

    fn thresholds() -> impl Strategy<Value = Thresholds> {
        (1u32..=10, 1u32..=10).prop_map(|(rise, fall)| Thresholds { rise, fall })
    }

    /// The flips of a history, each with the number of outcomes that it took.
    fn flips(outcomes: &[Outcome], thresholds: Thresholds) -> Vec<(usize, Flip)> {
        let mut state = State::NEW;
        let mut flips = Vec::new();
        for (index, outcome) in outcomes.iter().enumerate() {
            let (next, flip) = observe(state, outcome, thresholds);
            state = next;
            flips.extend(flip.map(|flip| (index + 1, flip)));
        }
        flips
    }

    /// Length of the row of outcomes like the last one.
    fn row(seen: &[Outcome]) -> u32 {
        let conclusive = || seen.iter().rev().filter(|o| !matches!(o, Outcome::Inconclusive(_)));
        let good = conclusive().next() == Some(&Outcome::Good);
        u32::try_from(conclusive().take_while(|o| (**o == Outcome::Good) == good).count()).unwrap()
    }

    proptest! {
        /// The verdict as the documentation defines it, looking back over the whole history.
        #[test]
        fn verdicts_are_what_the_rows_say(outcomes in outcomes(), thresholds in thresholds()) {
            let mut verdict: Option<bool> = None;
            let mut expected = Vec::new();
            for (index, outcome) in outcomes.iter().enumerate() {
                let row = row(&outcomes[..=index]);
                let turned = match outcome {
                    Outcome::Good if verdict.is_none() || (verdict == Some(false) && row >= thresholds.rise) => Flip::Up,
                    Outcome::Bad(reason) if verdict != Some(false) && row >= thresholds.fall => Flip::Down(*reason),
                    _ => continue,
                };
                verdict = Some(turned == Flip::Up);
                expected.push((index + 1, turned));
            }
            prop_assert_eq!(flips(&outcomes, thresholds), expected);
        }

        #[test]
        fn flips_alternate(outcomes in outcomes(), thresholds in thresholds()) {
            let flips = flips(&outcomes, thresholds);
            prop_assert!(flips.windows(2).all(|pair| (pair[0].1 == Flip::Up) != (pair[1].1 == Flip::Up)));
        }

        #[test]
        fn inconclusive_probes_change_nothing(outcomes in outcomes(), thresholds in thresholds()) {
            let conclusive: Vec<_> =
                outcomes.iter().filter(|o| !matches!(o, Outcome::Inconclusive(_))).cloned().collect();
            let what = |flips: Vec<(usize, Flip)>| flips.into_iter().map(|(_, flip)| flip).collect::<Vec<_>>();
            prop_assert_eq!(what(flips(&outcomes, thresholds)), what(flips(&conclusive, thresholds)));
        }
    }

    #[test]
    fn a_state_down_tells_the_latest_reason() {
        let thresholds = Thresholds { rise: 2, fall: 1 };
        let (state, _) = observe(State::NEW, &Outcome::Bad(Reason::Refused), thresholds);
        let (state, flip) = observe(state, &Outcome::Bad(Reason::NoAnswer), thresholds);
        assert_eq!((state, flip), (State::Down { reason: Reason::NoAnswer, good: 0 }, None));
    }
}
