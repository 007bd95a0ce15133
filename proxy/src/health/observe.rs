//! From probes to verdicts: one pure step.

use super::check::Check;
use super::outcome::{ProbeOutcome, Reason};

/// Numbers of probes in a row that change a verdict, 1 to 10 each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Good probes after which a backend is up.
    pub rise: u32,
    /// Bad probes after which it is down.
    pub fall: u32,
}

/// Verdict on a target, and its progress towards the opposite one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetState {
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
        /// Reason of the latest bad probe.
        reason: Reason,
        /// Good probes in a row.
        good: u32,
    },
}

/// Inconclusive probes in a row, and what was reported of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Doubt {
    row: u32,
    reported: Option<String>,
}

impl Doubt {
    /// Reason that was reported; `None`: its probes say something.
    #[must_use]
    pub(super) fn reason(&self) -> Option<&str> {
        self.reported.as_deref()
    }

    /// Applies one outcome. Returns true if there is something to report. A reason is reported after as many
    /// inconclusive probes as a verdict takes bad ones, so that neither comes with each probe.
    pub(super) fn observe(&mut self, outcome: &ProbeOutcome, fall: u32) -> bool {
        let ProbeOutcome::Inconclusive(failure) = outcome else {
            self.row = 0;
            return self.reported.take().is_some();
        };
        self.row = self.row.saturating_add(1);
        if self.row < fall {
            return false;
        }
        self.row = 0;
        let is_news = self.reported.as_ref() != Some(&failure.text);
        if is_news {
            self.reported = Some(failure.text.clone());
        }
        is_news
    }
}

/// A new verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flip {
    /// Up from now on.
    Up,
    /// Down from now on.
    Down(Reason),
}

impl TargetState {
    /// State of a target that was never probed.
    pub const NEW: Self = Self::Unknown { bad: 0 };
}

impl From<&Check> for Thresholds {
    fn from(check: &Check) -> Self {
        Self { rise: check.rise(), fall: check.fall() }
    }
}

/// Applies one outcome.
///
/// The first good probe of a target is its verdict at once, so that a new backend need not wait for `rise` of
/// them; the first verdict Down takes `fall` bad ones like any other. An inconclusive probe neither lengthens
/// nor ends a row.
#[must_use]
pub fn observe(
    state: TargetState,
    outcome: &ProbeOutcome,
    thresholds: Thresholds,
) -> (TargetState, Option<Flip>) {
    match outcome {
        ProbeOutcome::Good => observe_good(state, thresholds.rise),
        ProbeOutcome::Bad(reason) => observe_bad(state, *reason, thresholds.fall),
        ProbeOutcome::Inconclusive(_) => (state, None),
    }
}

fn observe_good(state: TargetState, rise: u32) -> (TargetState, Option<Flip>) {
    match state {
        TargetState::Up { .. } => (TargetState::Up { bad: 0 }, None),
        TargetState::Unknown { .. } => (TargetState::Up { bad: 0 }, Some(Flip::Up)),
        TargetState::Down { good, .. } if good.saturating_add(1) >= rise => {
            (TargetState::Up { bad: 0 }, Some(Flip::Up))
        }
        TargetState::Down { reason, good } => {
            (TargetState::Down { reason, good: good.saturating_add(1) }, None)
        }
    }
}

fn observe_bad(state: TargetState, reason: Reason, fall: u32) -> (TargetState, Option<Flip>) {
    let down = TargetState::Down { reason, good: 0 };
    match state {
        TargetState::Down { .. } => (down, None),
        TargetState::Unknown { bad } | TargetState::Up { bad } if bad.saturating_add(1) >= fall => {
            (down, Some(Flip::Down(reason)))
        }
        TargetState::Unknown { bad } => (TargetState::Unknown { bad: bad.saturating_add(1) }, None),
        TargetState::Up { bad } => (TargetState::Up { bad: bad.saturating_add(1) }, None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::outcome::NodeFailure;
    use super::*;

    fn outcomes() -> impl Strategy<Value = Vec<ProbeOutcome>> {
        let reason =
            prop_oneof![Just(Reason::Refused), Just(Reason::NoAnswer), (500u16..505).prop_map(Reason::Code)];
        let outcome = prop_oneof![
            4 => Just(ProbeOutcome::Good),
            4 => reason.prop_map(ProbeOutcome::Bad),
            1 => Just(ProbeOutcome::Inconclusive(NodeFailure { text: "no descriptors".to_owned(), resource: None })),
        ];
        prop::collection::vec(outcome, 0..60)
    }

    fn thresholds() -> impl Strategy<Value = Thresholds> {
        (1u32..=10, 1u32..=10).prop_map(|(rise, fall)| Thresholds { rise, fall })
    }

    /// The flips of a history, each with the number of outcomes that it took.
    fn flips(outcomes: &[ProbeOutcome], thresholds: Thresholds) -> Vec<(usize, Flip)> {
        let mut state = TargetState::NEW;
        let mut flips = Vec::new();
        for (index, outcome) in outcomes.iter().enumerate() {
            let (next, flip) = observe(state, outcome, thresholds);
            state = next;
            flips.extend(flip.map(|flip| (index + 1, flip)));
        }
        flips
    }

    /// Length of the row of outcomes like the last one.
    fn row(seen: &[ProbeOutcome]) -> u32 {
        let conclusive = || seen.iter().rev().filter(|o| !matches!(o, ProbeOutcome::Inconclusive(_)));
        let good = conclusive().next() == Some(&ProbeOutcome::Good);
        u32::try_from(conclusive().take_while(|o| (**o == ProbeOutcome::Good) == good).count()).unwrap()
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
                    ProbeOutcome::Good if verdict.is_none() || (verdict == Some(false) && row >= thresholds.rise) => Flip::Up,
                    ProbeOutcome::Bad(reason) if verdict != Some(false) && row >= thresholds.fall => Flip::Down(*reason),
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
                outcomes.iter().filter(|o| !matches!(o, ProbeOutcome::Inconclusive(_))).cloned().collect();
            let what = |flips: Vec<(usize, Flip)>| flips.into_iter().map(|(_, flip)| flip).collect::<Vec<_>>();
            prop_assert_eq!(what(flips(&outcomes, thresholds)), what(flips(&conclusive, thresholds)));
        }
    }

    #[test]
    fn a_reason_of_the_node_is_reported_once_and_taken_back_by_the_first_probe_that_says_something() {
        let outcome =
            |text: &str| ProbeOutcome::Inconclusive(NodeFailure { text: text.to_owned(), resource: None });
        let mut doubt = Doubt::default();
        let news: Vec<bool> = (0..6).map(|_| doubt.observe(&outcome("no descriptors"), 3)).collect();
        assert_eq!(news, [false, false, true, false, false, false]);
        assert!(!doubt.observe(&outcome("no memory"), 3));
        assert!(!doubt.observe(&outcome("no memory"), 3));
        assert!(doubt.observe(&outcome("no memory"), 3));
        assert_eq!(doubt.reason(), Some("no memory"));
        assert!(doubt.observe(&ProbeOutcome::Bad(Reason::Refused), 3));
        assert_eq!(doubt, Doubt::default());
        assert!(!doubt.observe(&ProbeOutcome::Good, 3));
    }

    #[test]
    fn a_state_down_tells_the_latest_reason() {
        let thresholds = Thresholds { rise: 2, fall: 1 };
        let (state, _) = observe(TargetState::NEW, &ProbeOutcome::Bad(Reason::Refused), thresholds);
        let (state, flip) = observe(state, &ProbeOutcome::Bad(Reason::NoAnswer), thresholds);
        assert_eq!((state, flip), (TargetState::Down { reason: Reason::NoAnswer, good: 0 }, None));
    }
}
