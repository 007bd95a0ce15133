//! Properties of the schedule, on random histories.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const TICK: Duration = Duration::from_millis(10);

fn network(number: u8) -> Uuid {
    Uuid::from_u128(u128::from(number))
}

fn admit(schedule: &mut Schedule, now: Instant) -> Vec<Id> {
    let mut started = Vec::new();
    schedule.admit(now, usize::MAX, &mut started);
    started.into_iter().map(|(id, _)| id).collect()
}

/// Operation on a schedule.
#[derive(Clone, Debug)]
enum ScheduleStep {
    Add(Id, u8, u64),
    Remove(Id),
    Ended(Id, u64),
    Admit(u64),
}

fn steps() -> impl Strategy<Value = Vec<ScheduleStep>> {
    let step = prop_oneof![
        (0u64..30, 0u8..4, 0u64..50).prop_map(|(id, network, due)| ScheduleStep::Add(id, network, due)),
        (0u64..30).prop_map(ScheduleStep::Remove),
        (0u64..30, 0u64..50).prop_map(|(id, due)| ScheduleStep::Ended(id, due)),
        (0u64..50).prop_map(ScheduleStep::Admit),
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    /// Against a model that is a plain map: nothing starts twice, early, beyond the slots, or after its
    /// removal; and whatever is due starts unless its lane has as much in flight as is free.
    #[test]
    fn the_schedule_agrees_with_a_plain_map(steps in steps(), slots in 1usize..10) {
        let epoch = Instant::now();
        let at = |number: u64| epoch + TICK * u32::try_from(number).unwrap();
        let mut schedule = Schedule::new(slots);
        let mut model: BTreeMap<Id, (u8, Option<u64>)> = BTreeMap::new();
        for step in steps {
            match step {
                ScheduleStep::Add(id, lane, due) => {
                    schedule.add(id, network(lane), at(due));
                    model.insert(id, (lane, Some(due)));
                }
                ScheduleStep::Remove(id) => {
                    schedule.remove(id);
                    model.remove(&id);
                }
                ScheduleStep::Ended(id, due) => {
                    schedule.ended(id, at(due));
                    if let Some((_, waits @ None)) = model.get_mut(&id) {
                        *waits = Some(due);
                    }
                }
                ScheduleStep::Admit(now) => {
                    for id in admit(&mut schedule, at(now)) {
                        let waits = model.get_mut(&id).map(|(_, waits)| waits.take());
                        prop_assert!(waits.flatten().is_some_and(|due| due <= now), "{} started", id);
                    }
                    let in_flight = |lane: Option<u8>| {
                        model.values().filter(|(l, w)| w.is_none() && lane.is_none_or(|lane| lane == *l)).count()
                    };
                    prop_assert!(in_flight(None) <= slots);
                    for (lane, waits) in model.values() {
                        let starved = waits.is_some_and(|due| due <= now);
                        prop_assert!(!starved || in_flight(Some(*lane)) >= slots - in_flight(None));
                    }
                }
            }
            prop_assert_eq!(schedule.next_due(), model.values().filter_map(|(_, waits)| *waits).min().map(at));
        }
    }

    /// However few the slots, and however slow the probes, each target has its turn within a bounded time.
    #[test]
    fn no_target_starves(lanes in prop::collection::vec(1u64..12, 1..5), slots in 2usize..6, length in 1u32..4) {
        let epoch = Instant::now();
        let mut schedule = Schedule::new(slots);
        let mut id = 0;
        for (lane, targets) in lanes.iter().enumerate() {
            for _ in 0..*targets {
                schedule.add(id, network(u8::try_from(lane).unwrap()), epoch);
                id += 1;
            }
        }
        let mut runs = vec![0u32; usize::try_from(id).unwrap()];
        let mut flying: VecDeque<(u32, Id)> = VecDeque::new();
        for tick in 0..u32::try_from(id).unwrap() * length * 4 + 8 {
            let now = epoch + TICK * tick;
            while flying.front().is_some_and(|(end, _)| *end <= tick) {
                schedule.ended(flying.pop_front().unwrap().1, now);
            }
            for id in admit(&mut schedule, now) {
                runs[usize::try_from(id).unwrap()] += 1;
                flying.push_back((tick + length, id));
            }
        }
        prop_assert!(runs.iter().all(|runs| *runs >= 2), "{:?}", runs);
    }
}

#[test]
fn a_network_of_silent_backends_leaves_room_for_others() {
    let now = Instant::now();
    let mut schedule = Schedule::new(100);
    (0..1000).for_each(|id| schedule.add(id, network(0), now));
    assert_eq!(admit(&mut schedule, now).len(), 50);
    schedule.add(2000, network(1), now);
    assert_eq!(admit(&mut schedule, now), [2000]);
}

#[test]
fn networks_take_turns() {
    let now = Instant::now();
    let mut schedule = Schedule::new(9);
    for id in 0..20 {
        schedule.add(id, network(u8::try_from(id / 10).unwrap()), now);
    }
    assert_eq!(admit(&mut schedule, now), [0, 10, 1, 11, 2, 12]);
}

#[test]
fn what_is_over_the_limit_starts_later() {
    let now = Instant::now();
    let mut schedule = Schedule::new(1000);
    (0..5).for_each(|id| schedule.add(id, network(0), now));
    let mut started = Vec::new();
    schedule.admit(now, 3, &mut started);
    assert_eq!(started.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(schedule.next_due(), Some(now));
    assert_eq!(admit(&mut schedule, now), [3, 4]);
}
