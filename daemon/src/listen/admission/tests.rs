use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn admission(total: usize, per_source: usize, pending: usize) -> Admission<u64> {
    Admission::new(&ConnectionSettings { total, per_source, pending, ..ConnectionSettings::default() })
}

fn source(number: u8) -> Source {
    Source::of([127, 0, 0, number].into())
}

/// Admits a connection whose value is its own number.
fn admit(admission: &mut Admission<u64>, number: u8) -> Result<(ConnectionId, Vec<u64>), Refusal> {
    let value = admission.next;
    admission.admit(source(number), false, value)
}

#[test]
fn sources_are_addresses_or_networks_of_64_bits() {
    let of = |text: &str| Source::of(text.parse().unwrap());
    assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    assert_ne!(of("10.0.0.1"), of("10.0.0.2"));
    assert_eq!(of("fd00:1:2:3::1"), of("fd00:1:2:3:ffff::2"));
    assert_ne!(of("fd00:1:2:3::1"), of("fd00:1:2:4::1"));
}

#[test]
fn a_flood_displaces_itself_and_nobody_else() {
    let mut admission = admission(100, 100, 10);
    let (honest, _) = admit(&mut admission, 1).unwrap();
    for _ in 0..1000 {
        let (_, displaced) = admit(&mut admission, 2).unwrap();
        assert!(!displaced.contains(&honest));
    }
    assert_eq!((admission.len(), admission.phase(honest)), (10, Some(Phase::Pending)));
}

#[test]
fn a_source_that_is_full_gives_up_its_own_oldest() {
    let mut admission = admission(100, 3, 100);
    let now = Instant::now();
    let ids: Vec<ConnectionId> = (0..3).map(|_| admit(&mut admission, 1).unwrap().0).collect();
    admission.begin(ids[0]);
    assert_eq!(admit(&mut admission, 1).unwrap(), (3, vec![ids[1]]));
    for id in [ids[2], 3] {
        admission.begin(id);
    }
    assert_eq!(admit(&mut admission, 1), Err(Refusal::Source));
    admission.end(3, now);
    admission.end(ids[2], now + Duration::from_secs(1));
    assert_eq!(admit(&mut admission, 1).unwrap(), (4, vec![3]), "idle for the longest");
    assert!(admit(&mut admission, 2).unwrap().1.is_empty());
}

#[test]
fn a_shared_source_may_have_more_than_others() {
    let mut admission = admission(10, 1, 10);
    for _ in 0..10 {
        assert_eq!(admission.admit(source(1), true, 0).unwrap().1, Vec::<u64>::new());
    }
    assert_eq!(admission.admit(source(1), true, 0).unwrap().1.len(), 1);
}

#[test]
fn busy_connections_are_never_cut() {
    let mut admission = admission(2, 2, 2);
    for number in [1, 2] {
        let (id, _) = admit(&mut admission, number).unwrap();
        admission.begin(id);
        admission.begin(id);
        admission.end(id, Instant::now());
    }
    assert_eq!(admit(&mut admission, 3), Err(Refusal::Total));
    assert_eq!(admission.shed(), None);
}

#[derive(Clone, Debug)]
enum Step {
    Admit { source: u8, is_shared: bool },
    Begin(usize),
    End(usize),
    Remove(usize),
    Shed,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..5_u8, prop::bool::weighted(0.1)).prop_map(|(source, is_shared)| Step::Admit { source, is_shared }),
        3 => (0..40_usize).prop_map(Step::Begin),
        2 => (0..40_usize).prop_map(Step::End),
        1 => (0..40_usize).prop_map(Step::Remove),
        1 => Just(Step::Shed),
    ]
}

/// Number of connections of a source in a phase.
fn count(admission: &Admission<u64>, of: Source, is_so: fn(Phase) -> bool) -> usize {
    let connections = admission.connections.values();
    connections.filter(|connection| connection.source == of && is_so(connection.phase)).count()
}

fn is_pending(phase: Phase) -> bool {
    phase == Phase::Pending
}

fn is_idle(phase: Phase) -> bool {
    matches!(phase, Phase::Idle(_))
}

/// Compares the indexes with the connections themselves.
fn check_indexes(admission: &Admission<u64>) {
    for (phase, ranking) in
        [(is_pending as fn(Phase) -> bool, &admission.pending), (is_idle, &admission.idle)]
    {
        let counts = admission.sources.keys().map(|source| (count(admission, *source, phase), *source));
        let expected: BTreeSet<_> = counts.filter(|(count, _)| *count > 0).collect();
        assert_eq!(ranking.sources, expected);
        assert_eq!(ranking.count, expected.iter().map(|(count, _)| count).sum::<usize>());
    }
    let total: usize = admission.sources.values().map(|connections| connections.count).sum();
    assert_eq!(total, admission.len());
    assert!(admission.sources.values().all(|connections| connections.count > 0));
}

proptest! {
    #[test]
    fn limits_hold_and_the_right_ones_give_way(
        steps in prop::collection::vec(step(), 1..200),
        (total, per_source, most_pending) in (1..12_usize, 1..6_usize, 1..8_usize),
    ) {
        let mut admission = admission(total, per_source, most_pending);
        // Sources, whether they were taken as shared.
        let mut shared: HashMap<Source, bool> = HashMap::new();
        let mut now = Instant::now();
        for step in steps {
            now += Duration::from_millis(1);
            match step {
                Step::Admit { source: number, is_shared } => {
                    let of = source(number);
                    *shared.entry(of).or_default() |= is_shared;
                    let before: HashMap<_, _> =
                        admission.connections.iter().map(|(id, it)| (*id, (it.source, it.phase))).collect();
                    let most = |phase: fn(Phase) -> bool| {
                        admission.sources.keys().map(|source| count(&admission, *source, phase)).max()
                    };
                    let (most_pending_before, most_idle_before) = (most(is_pending), most(is_idle));
                    let value = admission.next;
                    match admission.admit(of, is_shared, value) {
                        Ok((id, displaced)) => {
                            prop_assert_eq!(admission.phase(id), Some(Phase::Pending));
                            for gone in displaced {
                                let (victim, phase) = before[&gone];
                                prop_assert!(!matches!(phase, Phase::Busy(_)));
                                let of_victim = |phase| before.values().filter(|it| it.0 == victim && it.1 == phase).count();
                                let is_of_the_largest = match phase {
                                    Phase::Pending => Some(of_victim(Phase::Pending)) == most_pending_before,
                                    _ => Some(before.values().filter(|it| it.0 == victim && is_idle(it.1)).count()) == most_idle_before,
                                };
                                prop_assert!(victim == of || is_of_the_largest);
                            }
                        }
                        Err(Refusal::Source) => {
                            prop_assert!(!is_shared);
                            prop_assert!(before.values().all(|it| it.0 != of || matches!(it.1, Phase::Busy(_))));
                        }
                        Err(Refusal::Total) => {
                            prop_assert_eq!(before.len(), total);
                            prop_assert!(before.values().all(|it| matches!(it.1, Phase::Busy(_))));
                        }
                    }
                }
                Step::Begin(at) => {
                    let id = admission.connections.keys().copied().nth(at);
                    id.into_iter().for_each(|id| admission.begin(id));
                }
                Step::End(at) => {
                    let id = admission.connections.keys().copied().nth(at);
                    id.into_iter().for_each(|id| admission.end(id, now));
                }
                Step::Remove(at) => {
                    let id = admission.connections.keys().copied().nth(at);
                    id.into_iter().for_each(|id| assert_eq!(admission.remove(id), Some(id)));
                }
                Step::Shed => {
                    let all_busy = admission.connections.values().all(|it| matches!(it.phase, Phase::Busy(_)));
                    prop_assert_eq!(admission.shed().is_none(), all_busy);
                }
            }
            prop_assert!(admission.len() <= total);
            prop_assert!(admission.pending.count <= most_pending);
            for (of, connections) in &admission.sources {
                prop_assert!(shared[of] || connections.count <= per_source);
            }
            check_indexes(&admission);
        }
    }

    #[test]
    fn a_newcomer_finds_a_place_unless_all_are_busy(others in 0..50_u8, total in 1..20_usize) {
        let mut admission = admission(total, 256, 1024);
        for number in 0..others {
            prop_assert!(admit(&mut admission, number).is_ok());
        }
        prop_assert!(admit(&mut admission, 255).is_ok());
        let id = admission.next - 1;
        prop_assert_eq!(admission.phase(id), Some(Phase::Pending));
    }
}
