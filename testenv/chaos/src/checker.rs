//! Checks of a history: no write is lost, and none is applied twice. Pure.
//!
//! Writes are linearizable: those of one object can be put into one order, in which each acknowledged one has exactly the
//! generation that it was told, and the last one is what all plugins show when all is quiet. Reads are not: a plugin answers
//! from its own memory, which may be behind. What is asked of them is that they show what was written, and that one plugin
//! never goes back behind what it has shown or acknowledged before. A refusal comes from the same memory, so nothing follows
//! from it but that nothing was written.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::history::{Action, Event, Outcome, Version};
use crate::linearizability::{self, Disorder, Timed};
use crate::register::{Operation, RegisterModel, State};

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The object.
    pub object: String,
    /// Description of the violation.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.object, self.what)
    }
}

/// Judges a whole history.
#[must_use]
pub fn check(events: &[Event]) -> Vec<Violation> {
    let mut objects: BTreeMap<&str, Vec<&Event>> = BTreeMap::new();
    for event in events {
        objects.entry(&event.object).or_default().push(event);
    }
    let of_object = |(object, events): (&str, Vec<&Event>)| {
        let found = [versions(&events), order(&events), sessions(&events)].concat();
        found.into_iter().map(|what| Violation { object: object.to_owned(), what }).collect::<Vec<_>>()
    };
    objects.into_iter().flat_map(of_object).collect()
}

/// One value is one generation is one etag, and was written before it was seen.
fn versions(events: &[&Event]) -> Vec<String> {
    let mut found = BTreeSet::new();
    let mut by_generation: BTreeMap<u64, &Version> = BTreeMap::new();
    let mut by_value: BTreeMap<&str, &Version> = BTreeMap::new();
    for version in events.iter().filter_map(|event| event.version()) {
        for other in [
            *by_generation.entry(version.generation).or_insert(version),
            *by_value.entry(&version.value).or_insert(version),
        ] {
            if other != version {
                found.insert(format!(
                    "two versions that exclude each other were seen: {other:?} and {version:?}"
                ));
            }
        }
    }
    found.into_iter().chain(invented(events)).collect()
}

/// Values that were seen before anybody wrote them.
fn invented(events: &[&Event]) -> Vec<String> {
    let asked: BTreeMap<&str, u64> =
        events.iter().filter_map(|event| Some((event.action.value()?, event.invoked))).collect();
    let seen = events.iter().filter_map(|event| Some((event.version()?, event.returned)));
    let invented =
        seen.filter(|(version, at)| asked.get(version.value.as_str()).is_none_or(|asked| asked > at));
    invented
        .map(|(version, at)| format!("{version:?} was seen at {at} us, before anybody asked for it"))
        .collect()
}

/// Writes, and the last reads, in one order.
fn order(events: &[&Event]) -> Vec<String> {
    let history: Vec<Timed<Operation>> = events.iter().filter_map(|event| timed(event, events)).collect();
    match linearizability::check::<RegisterModel>(State::Absent, &history) {
        Ok(()) => Vec::new(),
        Err(Disorder::Undecided) => vec!["its history is too tangled to be judged".to_owned()],
        Err(Disorder::None { placed, stuck }) => {
            let stuck: Vec<_> = stuck.iter().filter_map(|index| history.get(*index)).take(4).collect();
            let all = history.len();
            vec![format!(
                "no order explains it: at most {placed} of {all} operations fit, and none of {stuck:?} is next"
            )]
        }
    }
}

/// An event as the checker takes it; none for what has no effect.
fn timed(event: &Event, events: &[&Event]) -> Option<Timed<Operation>> {
    let refused = matches!(event.outcome, Outcome::Refused { .. } | Outcome::Absent);
    let look = matches!(event.action, Action::LastRead);
    if (refused && !look) || event.action == Action::Read {
        return None;
    }
    let operation = operation(event, events)?;
    Some(Timed { invoked: event.invoked, returned: effective(event, events), operation })
}

/// Latest moment of its effect: its answer, or the first read that shows its value.
fn effective(event: &Event, events: &[&Event]) -> Option<u64> {
    let value = event.action.value();
    let sightings =
        events.iter().filter(|other| value.is_some() && value == other.version().map(|it| it.value.as_str()));
    sightings.map(|other| other.returned).chain(event.known_at()).min()
}

fn operation(event: &Event, events: &[&Event]) -> Option<Operation> {
    Some(match &event.action {
        Action::Create { value } => Operation::Create { value: value.clone() },
        Action::Update { value, expected } => {
            let mut versions = events.iter().filter_map(|event| event.version());
            let generation =
                versions.find(|version| version.value == *value).map(|version| version.generation);
            Operation::Update { value: value.clone(), expected: expected.clone(), generation }
        }
        Action::Delete { expected } => Operation::Delete { expected: expected.clone() },
        Action::Read | Action::LastRead => Operation::Look { seen: seen(&event.outcome)? },
    })
}

/// Content of a last read; `None` if it failed.
fn seen(outcome: &Outcome) -> Option<Option<(u64, String)>> {
    match outcome {
        Outcome::Seen(Version { generation, value, .. }) => Some(Some((*generation, value.clone()))),
        Outcome::Gone | Outcome::Absent => Some(None),
        Outcome::Refused { .. } | Outcome::Unknown { .. } => None,
    }
}

/// Each plugin, by real time: what it has shown or acknowledged, it never goes back behind.
fn sessions(events: &[&Event]) -> Vec<String> {
    let replicas: BTreeSet<usize> = events.iter().map(|event| event.replica).collect();
    // One that has gone back shows it again and again.
    replicas.into_iter().flat_map(|replica| backward(replica, events).into_iter().take(2)).collect()
}

fn backward(replica: usize, events: &[&Event]) -> Vec<String> {
    let told = |event: &&&Event| event.replica == replica && progress(event, events).is_some();
    let mut by_answer: Vec<&Event> = events.iter().filter(told).copied().collect();
    let mut by_call = by_answer.clone();
    by_answer.sort_by_key(|event| event.returned);
    by_call.sort_by_key(|event| event.invoked);
    let (mut answers, mut furthest): (_, Option<&Event>) = (by_answer.into_iter().peekable(), None);
    let mut found = Vec::new();
    for event in by_call {
        while let Some(earlier) = answers.next_if(|earlier| earlier.returned < event.invoked) {
            if furthest.is_none_or(|furthest| progress(furthest, events) < progress(earlier, events)) {
                furthest = Some(earlier);
            }
        }
        if let Some(furthest) =
            furthest.filter(|furthest| progress(event, events) < progress(furthest, events))
        {
            found.push(format!("plugin {replica} went back: {furthest:?}, and after that {event:?}"));
        }
    }
    found
}

/// Progress of an object's life in an event; `None` if that cannot be told.
fn progress(event: &Event, events: &[&Event]) -> Option<u64> {
    match &event.outcome {
        Outcome::Seen(version) => Some(version.generation),
        Outcome::Gone => Some(u64::MAX),
        // Not made yet, unless a delete was invoked by then: it may be gone already.
        Outcome::Absent => {
            let ends = |other: &&&Event| matches!(other.action, Action::Delete { .. });
            let asked = events.iter().filter(ends).any(|other| other.invoked <= event.returned);
            (!asked).then_some(0)
        }
        Outcome::Refused { .. } | Outcome::Unknown { .. } => None,
    }
}

#[cfg(test)]
mod tests;
