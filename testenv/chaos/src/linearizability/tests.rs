use proptest::prelude::*;

use super::*;

/// A register of one number.
struct Register;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Op {
    Write(u8),
    Read(u8),
    /// From the first to the second, told that it succeeded.
    Swap(u8, u8),
}

impl Model for Register {
    type State = u8;
    type Operation = Op;

    fn apply(state: &u8, operation: &Op) -> Option<u8> {
        match operation {
            Op::Write(value) => Some(*value),
            Op::Read(value) => (value == state).then_some(*state),
            Op::Swap(from, to) => (from == state).then_some(*to),
        }
    }
}

fn op(invoked: u64, returned: impl Into<Option<u64>>, operation: Op) -> Timed<Op> {
    Timed { invoked, returned: returned.into(), operation }
}

fn is_linear(history: &[Timed<Op>]) -> bool {
    match check::<Register>(0, history) {
        Ok(()) => true,
        Err(Disorder::None { .. }) => false,
        Err(Disorder::Undecided) => panic!("undecided: {history:?}"),
    }
}

/// Tries every order of every subset that has all answered operations, without any cleverness.
fn is_linear_by_force(history: &[Timed<Op>], state: u8, done: &mut Vec<usize>) -> bool {
    let left: Vec<usize> = (0..history.len()).filter(|index| !done.contains(index)).collect();
    if left.iter().all(|index| history[*index].returned.is_none()) {
        return true;
    }
    left.iter().any(|&next| {
        let waits =
            left.iter().any(|&other| history[other].returned.is_some_and(|end| end < history[next].invoked));
        let Some(state) = Register::apply(&state, &history[next].operation).filter(|_| !waits) else {
            return false;
        };
        done.push(next);
        let found = is_linear_by_force(history, state, done);
        done.pop();
        found
    })
}

#[test]
fn operations_that_overlap_may_take_effect_in_either_order() {
    assert!(is_linear(&[]));
    assert!(is_linear(&[op(0, 10, Op::Write(1)), op(5, 15, Op::Write(2)), op(20, 30, Op::Read(1))]));
    assert!(is_linear(&[op(0, 10, Op::Write(1)), op(5, 6, Op::Read(0)), op(7, 8, Op::Read(1))]));
}

#[test]
fn a_read_of_what_was_overwritten_before_it_is_caught() {
    let history = [op(0, 1, Op::Write(1)), op(2, 3, Op::Write(2)), op(4, 5, Op::Read(1))];
    assert_eq!(check::<Register>(0, &history), Err(Disorder::None { placed: 2, stuck: vec![2] }));
}

#[test]
fn two_swaps_from_the_same_value_are_caught() {
    assert!(!is_linear(&[op(0, 10, Op::Swap(0, 1)), op(0, 10, Op::Swap(0, 2))]));
    assert!(is_linear(&[op(0, 10, Op::Swap(0, 1)), op(0, 10, Op::Swap(1, 2))]));
}

#[test]
fn going_back_in_time_between_two_readers_is_caught() {
    let history = [op(0, 100, Op::Write(1)), op(10, 20, Op::Read(1)), op(30, 40, Op::Read(0))];
    assert!(!is_linear(&history));
}

#[test]
fn what_was_never_answered_may_take_effect_late_or_never_but_not_twice() {
    let unknown = op(0, None, Op::Write(7));
    assert!(is_linear(&[unknown.clone(), op(5, 6, Op::Read(0)), op(50, 60, Op::Read(7))]));
    assert!(is_linear(&[unknown.clone(), op(5, 6, Op::Read(0)), op(50, 60, Op::Read(0))]));
    let twice = [unknown, op(5, 6, Op::Read(7)), op(7, 8, Op::Write(1)), op(9, 10, Op::Read(7))];
    assert!(!is_linear(&twice));
    assert!(
        !is_linear(&[op(5, 6, Op::Read(7)), op(7, None, Op::Write(7))]),
        "it took effect before its call"
    );
}

#[test]
fn many_operations_that_were_never_answered_are_decided() {
    let mut history: Vec<_> = (1..=8).map(|value| op(0, None, Op::Write(value))).collect();
    history.extend((0..40).map(|step| op(100 + 2 * step, 101 + 2 * step, Op::Write(100))));
    history.push(op(1000, 1001, Op::Read(5)));
    assert!(is_linear(&history));
    history.push(op(1002, 1003, Op::Read(200)));
    assert!(!is_linear(&history));
}

fn operation() -> impl Strategy<Value = Op> {
    prop_oneof![
        (0..3u8).prop_map(Op::Write),
        (0..3u8).prop_map(Op::Read),
        (0..3u8, 0..3u8).prop_map(|(from, to)| Op::Swap(from, to)),
    ]
}

fn timed() -> impl Strategy<Value = Timed<Op>> {
    (0..20u64, 0..10u64, any::<bool>(), operation()).prop_map(|(invoked, took, answered, operation)| Timed {
        invoked,
        returned: (answered || matches!(operation, Op::Read(_))).then_some(invoked + took),
        operation,
    })
}

proptest! {
    #[test]
    fn it_says_what_trying_everything_says(history in prop::collection::vec(timed(), 0..7)) {
        prop_assert_eq!(is_linear(&history), is_linear_by_force(&history, 0, &mut Vec::new()));
    }

    /// Each operation takes effect at its place in a row, and its times are stretched around that moment.
    #[test]
    fn what_really_happened_in_an_order_is_never_refused(
        steps in prop::collection::vec((operation(), 0..30u64, 0..30u64, any::<bool>()), 0..60),
    ) {
        let mut state = 0;
        let mut history = Vec::new();
        for (at, (operation, early, late, answered)) in steps.into_iter().enumerate() {
            let operation = if let Op::Read(_) = operation { Op::Read(state) } else { operation };
            let Some(next) = Register::apply(&state, &operation) else { continue };
            state = next;
            let at = 100 + 10 * at as u64;
            let answered = answered || matches!(operation, Op::Read(_));
            history.push(op(at - early, answered.then_some(at + late), operation));
        }
        prop_assert!(is_linear(&history));
    }
}
