use proptest::prelude::*;

use super::*;

/// A history under construction: one object, times by hand.
#[derive(Default)]
struct Story(Vec<Event>);

impl Story {
    fn tell(mut self, replica: usize, times: (u64, u64), action: Action, outcome: Outcome) -> Self {
        let (invoked, returned) = times;
        let object = "loadbalancer/a".to_owned();
        self.0.push(Event { client: 0, replica, object, action, invoked, returned, outcome });
        self
    }

    fn wrong(&self) -> Vec<String> {
        check(&self.0).into_iter().map(|violation| violation.what).collect()
    }

    #[track_caller]
    fn is_fine(&self) {
        assert_eq!(self.wrong(), Vec::<String>::new());
    }

    #[track_caller]
    fn is_caught(&self, part: &str) {
        let wrong = self.wrong();
        assert!(wrong.iter().any(|what| what.contains(part)), "{wrong:?}");
    }
}

fn create(value: &str) -> Action {
    Action::Create { value: value.to_owned() }
}

fn update(value: &str) -> Action {
    Action::Update { value: value.to_owned(), expected: None }
}

fn swap(expected: &str, value: &str) -> Action {
    Action::Update { value: value.to_owned(), expected: Some(expected.to_owned()) }
}

fn delete() -> Action {
    Action::Delete { expected: None }
}

fn seen(generation: u64, value: &str) -> Outcome {
    Outcome::Seen(Version { generation, value: value.to_owned(), etag: format!("1-{generation}") })
}

fn unknown() -> Outcome {
    Outcome::Unknown { why: "deadline".to_owned() }
}

fn begun() -> Story {
    Story::default().tell(0, (0, 10), create("a"), seen(1, "a"))
}

#[test]
fn a_life_without_trouble_is_fine() {
    begun()
        .tell(1, (20, 30), update("b"), seen(2, "b"))
        .tell(0, (25, 35), swap("b", "c"), seen(3, "c"))
        .tell(2, (36, 37), Action::Read, seen(2, "b"))
        .tell(0, (40, 50), swap("b", "d"), Outcome::Refused { why: "etag".to_owned() })
        .tell(1, (60, 70), delete(), Outcome::Gone)
        .tell(2, (71, 72), Action::Read, seen(3, "c"))
        .tell(0, (80, 90), delete(), Outcome::Gone)
        .tell(0, (100, 110), Action::LastRead, Outcome::Absent)
        .is_fine();
}

#[test]
fn an_acknowledged_write_that_is_lost_is_caught() {
    begun()
        .tell(0, (20, 30), update("b"), seen(2, "b"))
        .tell(1, (90, 91), Action::LastRead, seen(1, "a"))
        .is_caught("no order explains it");
    begun().tell(1, (90, 91), Action::LastRead, Outcome::Absent).is_caught("no order explains it");
}

#[test]
fn a_write_that_was_overwritten_unseen_is_caught_by_its_generation() {
    begun()
        .tell(0, (20, 30), update("b"), seen(2, "b"))
        .tell(1, (40, 50), update("c"), seen(2, "c"))
        .is_caught("exclude each other");
}

#[test]
fn a_write_that_counts_twice_is_caught() {
    begun()
        .tell(0, (20, 30), update("b"), seen(2, "b"))
        .tell(0, (90, 91), Action::LastRead, seen(3, "b"))
        .is_caught("exclude each other");
    begun().tell(0, (20, 30), update("b"), seen(3, "b")).is_caught("no order explains it");
}

#[test]
fn two_writers_with_one_etag_are_caught() {
    begun()
        .tell(0, (20, 40), swap("a", "b"), seen(2, "b"))
        .tell(1, (20, 40), swap("a", "c"), seen(3, "c"))
        .is_caught("no order explains it");
}

#[test]
fn a_write_after_an_acknowledged_delete_is_caught() {
    begun()
        .tell(0, (20, 30), delete(), Outcome::Gone)
        .tell(1, (40, 50), update("b"), seen(2, "b"))
        .is_caught("no order explains it");
}

#[test]
fn a_refused_write_that_took_effect_is_caught() {
    begun()
        .tell(0, (20, 30), update("b"), Outcome::Refused { why: "etag".to_owned() })
        .tell(0, (40, 50), Action::LastRead, seen(2, "b"))
        .is_caught("no order explains it");
}

#[test]
fn an_unknown_write_may_take_effect_later_or_never() {
    let unsure = || begun().tell(0, (20, 30), update("b"), unknown());
    unsure().tell(0, (90, 91), Action::LastRead, seen(1, "a")).is_fine();
    unsure().tell(0, (90, 91), Action::LastRead, seen(2, "b")).is_fine();
    let later = || unsure().tell(0, (40, 50), update("c"), seen(2, "c"));
    later().tell(0, (90, 91), Action::LastRead, seen(3, "b")).is_fine();
    later().tell(0, (90, 91), Action::LastRead, seen(2, "c")).is_fine();
    // Nobody saw it, and somebody counted it.
    unsure()
        .tell(0, (40, 50), update("c"), seen(3, "c"))
        .tell(0, (90, 91), Action::LastRead, seen(3, "c"))
        .is_fine();
    unsure().tell(0, (40, 50), update("c"), seen(4, "c")).is_caught("no order explains it");
}

#[test]
fn an_unknown_write_that_was_seen_has_its_place() {
    begun()
        .tell(0, (20, 30), update("b"), unknown())
        .tell(2, (32, 33), Action::Read, seen(2, "b"))
        .tell(1, (40, 50), swap("a", "c"), seen(3, "c"))
        .is_caught("no order explains it");
}

#[test]
fn an_unknown_create_and_an_unknown_delete_are_fine() {
    let story = || Story::default().tell(0, (0, 10), create("a"), unknown());
    story().tell(0, (90, 91), Action::LastRead, Outcome::Absent).is_fine();
    story().tell(0, (90, 91), Action::LastRead, seen(1, "a")).is_fine();
    begun()
        .tell(0, (20, 30), delete(), unknown())
        .tell(0, (90, 91), Action::LastRead, seen(1, "a"))
        .is_fine();
    begun()
        .tell(0, (20, 30), delete(), unknown())
        .tell(0, (90, 91), Action::LastRead, Outcome::Gone)
        .is_fine();
}

#[test]
fn a_plugin_that_goes_back_is_caught_and_another_that_lags_is_not() {
    let written = || begun().tell(0, (20, 30), update("b"), seen(2, "b"));
    written().tell(1, (40, 50), Action::Read, seen(1, "a")).is_fine();
    written().tell(0, (40, 50), Action::Read, seen(1, "a")).is_caught("plugin 0 went back");
    written().tell(0, (40, 50), Action::Read, Outcome::Absent).is_caught("plugin 0 went back");
    written().tell(0, (25, 50), Action::Read, seen(1, "a")).is_fine();
    let read = || written().tell(1, (40, 50), Action::Read, seen(2, "b"));
    read().tell(1, (60, 70), Action::Read, seen(1, "a")).is_caught("plugin 1 went back");
    let deleted = || read().tell(0, (55, 56), delete(), Outcome::Gone);
    deleted().tell(0, (60, 70), Action::Read, seen(2, "b")).is_caught("plugin 0 went back");
    deleted().tell(1, (60, 70), Action::Read, Outcome::Absent).is_fine();
}

#[test]
fn a_value_that_nobody_wrote_or_not_yet_is_caught() {
    begun().tell(0, (20, 30), Action::Read, seen(2, "x")).is_caught("before anybody asked for it");
    begun()
        .tell(0, (20, 30), Action::Read, seen(2, "b"))
        .tell(0, (40, 50), update("b"), seen(2, "b"))
        .is_caught("before anybody asked for it");
}

proptest! {
    /// A register that really is one, asked by clients that lose some answers, is never accused; and when an acknowledged
    /// write is taken out of the end, that is always seen.
    #[test]
    fn a_true_history_is_fine_and_a_lost_write_is_seen(
        steps in prop::collection::vec((0..3usize, any::<bool>(), any::<bool>(), 0..9u64), 1..60),
    ) {
        let (mut story, mut generation, mut value) = (begun(), 1, "a".to_owned());
        let mut acknowledged = false;
        for (step, (replica, swaps, answered, early)) in steps.into_iter().enumerate() {
            let at = 100 + 10 * step as u64;
            let next = format!("v{step}");
            let action = if swaps { swap(&value, &next) } else { update(&next) };
            (generation, value) = (generation + 1, next);
            let outcome = if answered { seen(generation, &value) } else { unknown() };
            story = story.tell(replica, (at - early, at + 5), action, outcome);
            acknowledged = answered;
        }
        let end = (10_000, 10_001);
        let whole = Story(story.0.clone()).tell(3, end, Action::LastRead, seen(generation, &value));
        prop_assert_eq!(whole.wrong(), Vec::<String>::new());
        if acknowledged {
            let lost = story.tell(3, end, Action::LastRead, seen(generation - 1, "a"));
            prop_assert!(!lost.wrong().is_empty());
        }
    }
}
