//! Spans in which requests to proxies may fail. Pure; milliseconds from the beginning of the run.
//!
//! A proxy node that dies, or freezes, is still in OVN's rows for a moment. The plugin misses it after 2 s of silence and has
//! rewritten the rows within 3 s of its death, if it can: while the plugins or what they need is in trouble too, it takes
//! until they are well again, a leader is there and has sessions with the nodes. Requests on OVN's own path may never fail.

use std::time::Duration;

use crate::schedule::{Fault, Harm, Kind};

/// A dead node is out of OVN's rows after so long.
const OUT: u64 = 3_000;
/// It takes so long until all chassis do what the rows say, and a connection is there or refused.
const CONNECT: u64 = 1_000;
/// After trouble of the control plane: another leader (5 s), and the detection of nodes without a session.
const TAKE_OVER: u64 = 5_000 + OUT;
/// A request that was under way when its node died, or began just before its death was noted.
const UNDER_WAY: u64 = 1_000;
/// After an abort of Open vSwitch its flows are there again within so long.
pub const FLOWS_ARE_BACK: Duration = Duration::from_secs(10);
/// The connections that went with it are noticed within so long: longer than a session waits for an answer.
pub const NOTICED: Duration = Duration::from_secs(25);

/// Spans in which requests to proxies may begin and fail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tolerances(Vec<(u64, u64)>);

impl Tolerances {
    /// Tolerances for faults that took place at these times. `northd_away`: spans without a northbound database for northd,
    /// whose reconnect backoff grows to 8 s, and which then begins with servers that do not lead.
    #[must_use]
    pub fn of(faults: &[Fault], northd_away: &[(u64, u64)]) -> Self {
        let troubles = troubles(faults, northd_away);
        Self(
            faults
                .iter()
                .filter(|fault| kills_a_node(fault))
                .map(|fault| tolerance(fault, &troubles))
                .collect(),
        )
    }

    /// Tolerances for aborts of Open vSwitch at these times, for so long after each.
    #[must_use]
    pub fn of_aborts(aborts: &[Duration], long: Duration) -> Self {
        let excuse = |abort: &Duration| (millis(*abort).saturating_sub(UNDER_WAY), millis(*abort + long));
        Self(aborts.iter().map(excuse).collect())
    }

    /// Milliseconds before `end` in which nothing is excused.
    #[must_use]
    pub fn rest(&self, end: u64) -> u64 {
        let mut spans = self.0.clone();
        spans.sort_unstable();
        let (mut free, mut at) = (0, 0);
        for (begin, until) in spans {
            free += begin.min(end).saturating_sub(at);
            at = at.max(until);
        }
        free + end.saturating_sub(at)
    }

    /// True if a request that began then may fail.
    #[must_use]
    pub fn has(&self, began: Duration) -> bool {
        let at = millis(began);
        self.0.iter().any(|(begin, end)| (*begin..=*end).contains(&at))
    }

    /// The spans.
    #[must_use]
    pub fn spans(&self) -> &[(u64, u64)] {
        &self.0
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn kills_a_node(fault: &Fault) -> bool {
    fault.unit.kind == Kind::Proxy && matches!(fault.harm, Harm::Kill | Harm::Pause)
}

fn tolerance(fault: &Fault, troubles: &[(u64, u64)]) -> (u64, u64) {
    let mut out = fault.begin + OUT;
    for (begin, end) in troubles {
        // In the order of their beginnings: one may lead into the next.
        if *begin <= out && *end + TAKE_OVER >= fault.begin {
            out = out.max(end + TAKE_OVER);
        }
    }
    (fault.begin.saturating_sub(UNDER_WAY), out + CONNECT)
}

/// Spans of faults in the control plane: all but the death of a node. A node that is merely cut off from the plugins
/// counts too, since they miss it, and then drop or learn the other one's state.
fn troubles(faults: &[Fault], northd_away: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let others = faults.iter().filter(|fault| !kills_a_node(fault)).map(|fault| (fault.begin, fault.end));
    let mut troubles: Vec<(u64, u64)> = others.chain(northd_away.iter().copied()).collect();
    troubles.sort_unstable();
    troubles
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::Unit;

    fn fault(kind: Kind, harm: Harm, begin: u64, end: u64) -> Fault {
        Fault { begin, end, unit: Unit { kind, index: 0 }, harm }
    }

    #[test]
    fn a_node_that_dies_alone_is_excused_for_four_seconds() {
        let excuses = Tolerances::of(&[fault(Kind::Proxy, Harm::Kill, 10_000, 30_000)], &[]);
        assert_eq!(excuses.spans(), [(9_000, 14_000)]);
        assert!(excuses.has(Duration::from_millis(13_999)) && !excuses.has(Duration::from_millis(14_001)));
        assert!(!excuses.has(Duration::from_millis(8_999)));
    }

    #[test]
    fn what_is_not_excused_is_counted() {
        let excuses = Tolerances::of_aborts(&[50, 10, 20].map(Duration::from_secs), Duration::from_secs(25));
        assert_eq!(excuses.rest(100_000), 9_000 + 4_000 + 25_000);
        assert_eq!((excuses.rest(15_000), Tolerances::default().rest(7)), (9_000, 7));
    }

    #[test]
    fn nothing_else_excuses_anything() {
        let faults = [
            fault(Kind::Plugin, Harm::Kill, 0, 9_000),
            fault(Kind::Etcd, Harm::Pause, 0, 9_000),
            fault(Kind::Proxy, Harm::Cut, 0, 9_000),
        ];
        assert_eq!(Tolerances::of(&faults, &[(0, 9_000)]), Tolerances::default());
    }

    #[test]
    fn trouble_of_the_control_plane_excuses_for_longer() {
        let node = fault(Kind::Proxy, Harm::Pause, 10_000, 30_000);
        let during = Tolerances::of(&[node, fault(Kind::Plugin, Harm::Kill, 12_000, 15_000)], &[]);
        assert_eq!(during.spans(), [(9_000, 24_000)]);
        let chain =
            [fault(Kind::Plugin, Harm::Kill, 12_000, 15_000), fault(Kind::Etcd, Harm::Cut, 20_000, 21_000)];
        assert_eq!(Tolerances::of(&[chain.as_slice(), &[node]].concat(), &[]).spans(), [(9_000, 30_000)]);
        let later = Tolerances::of(&[node, fault(Kind::Plugin, Harm::Kill, 13_500, 15_000)], &[]);
        assert_eq!(later.spans(), [(9_000, 14_000)]);
        assert_eq!(Tolerances::of(&[node], &[(2_000, 16_000)]).spans(), [(9_000, 25_000)]);
    }
}
