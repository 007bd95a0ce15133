use proptest::prelude::*;

use super::*;

const WHOLE: Population = Population { etcd: 3, plugins: 3, northbound: 3, proxies: 3 };

/// Units of a kind that are away at a moment.
fn away(schedule: &Schedule, kind: Kind, at: u64) -> usize {
    let is_away = |fault: &&Fault| {
        fault.unit.kind == kind && fault.harm != Harm::Slow && (fault.begin..fault.end).contains(&at)
    };
    schedule.faults.iter().filter(is_away).count()
}

#[test]
fn a_long_run_has_every_harm_of_every_kind() {
    let schedule = Schedule::new(1, 1200, &WHOLE);
    for kind in [Kind::Etcd, Kind::Plugin, Kind::Northbound, Kind::Proxy, Kind::Northd] {
        for harm in Population::harms(Unit { kind, index: 0 }) {
            let found = schedule.faults.iter().any(|fault| (fault.unit.kind, fault.harm) == (kind, *harm));
            assert!(found, "no {harm:?} of {kind:?}");
        }
    }
    let themes: Vec<Theme> = schedule.acts.iter().map(|act| act.0).collect();
    assert!(themes.contains(&Theme::QuorumLost(Kind::Etcd)) && themes.contains(&Theme::Nodes));
}

proptest! {
    #[test]
    fn it_follows_from_its_seed_alone(seed: u64, seconds in 1..300u64) {
        let schedule = Schedule::new(seed, seconds, &WHOLE);
        prop_assert_eq!(&schedule, &Schedule::new(seed, seconds, &WHOLE));
        prop_assert!(schedule.end < (seconds + 30) * 1000, "it has no end: {}", schedule.end);
        prop_assert!(schedule.faults.iter().all(|fault| fault.end < schedule.end));
    }

    #[test]
    fn a_process_has_one_fault_at_a_time(seed: u64) {
        let schedule = Schedule::new(seed, 200, &WHOLE);
        for (index, one) in schedule.faults.iter().enumerate() {
            for other in schedule.faults.iter().skip(index + 1) {
                prop_assert!(one.unit != other.unit || one.end < other.begin, "{one:?} and {other:?}");
            }
        }
    }

    #[test]
    fn a_quorum_is_lost_only_where_that_is_wanted(seed: u64) {
        let schedule = Schedule::new(seed, 200, &WHOLE);
        for fault in &schedule.faults {
            let act = schedule.acts.iter().find(|(_, begin, end)| (*begin..=*end).contains(&fault.begin));
            let theme = act.unwrap().0;
            let lost = |kind| theme == Theme::QuorumLost(kind);
            for kind in [Kind::Etcd, Kind::Northbound] {
                prop_assert_eq!(away(&schedule, kind, fault.begin) > 1, lost(kind), "at {}", fault.begin);
            }
            prop_assert!(away(&schedule, Kind::Plugin, fault.begin) < 3);
            prop_assert!(away(&schedule, Kind::Proxy, fault.begin) < 2);
            prop_assert!(theme != Theme::Nodes || fault.unit.kind == Kind::Proxy);
        }
    }
}
