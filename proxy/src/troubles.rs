//! Troubles of the node at this moment: what it fails at although it carries out its configuration, by counters that grow.
//! Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::dataplane::ListenerCounters;
use crate::shortage::NodeResource;

/// Time for which a trouble is told after it was last met.
const SHOWN: Duration = Duration::from_secs(60);

/// Most troubles that are told; of the node's own none is left out.
const MOST: usize = 1_000;

/// Kind of a trouble, and whose it is. Of those of one listener the first kind is told: it may be the cause of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TroubleKind {
    /// The node is short of a resource.
    Shortage(NodeResource),
    /// A backend of a listener leads back to it.
    Loop(Uuid),
    /// The network of a listener has used up its share of the node's connections.
    Share(Uuid),
    /// A trusted proxy of a listener does not begin with a header.
    Header(Uuid),
    /// The table of a listener's clients is full.
    Clients(Uuid),
    /// No backend of a listener accepts connections. Where the check goes to the same addresses, it says so, and when they do again.
    NoBackend(Uuid),
}

/// A trouble, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The listener; None: the node as a whole.
    pub listener: Option<Uuid>,
    /// A sentence.
    pub text: String,
}

impl Trouble {
    /// A trouble of the node as a whole.
    #[must_use]
    pub fn of_node(text: &str) -> Self {
        Self { listener: None, text: text.to_owned() }
    }
}

impl From<TroubleKind> for Trouble {
    fn from(kind: TroubleKind) -> Self {
        let (listener, text) = match kind {
            TroubleKind::Shortage(resource) => (None, resource.text()),
            TroubleKind::Share(listener) => (
                Some(listener),
                "clients are turned away, since the network has used up its share of the node's connections",
            ),
            TroubleKind::Loop(listener) => (
                Some(listener),
                "connections are turned away that came back from a backend to the node which made them",
            ),
            TroubleKind::Header(listener) => (
                Some(listener),
                "connections of trusted proxies are turned away for want of a valid header of PROXY protocol",
            ),
            TroubleKind::Clients(listener) => (
                Some(listener),
                "the limits of single clients do not hold for some, since more are there than the node can count",
            ),
            TroubleKind::NoBackend(listener) => {
                (Some(listener), "clients are turned away, since no backend accepts their connections")
            }
        };
        Self { listener, text: text.to_owned() }
    }
}

/// Counters of failures, and when each has grown last.
#[derive(Clone, Debug, Default)]
pub struct TroubleWatch {
    seen: BTreeMap<TroubleKind, (u64, Option<Instant>)>,
}

impl TroubleWatch {
    /// Records the current counters, and returns the present troubles, the node's own first. `is_checked` is true for
    /// listeners whose check goes to the addresses that clients are sent to.
    pub fn observe(
        &mut self,
        totals: impl Iterator<Item = (TroubleKind, u64)>,
        is_checked: impl Fn(Uuid) -> bool,
        now: Instant,
    ) -> Vec<Trouble> {
        let before = std::mem::take(&mut self.seen);
        self.seen = totals
            .filter(|(_, total)| *total > 0)
            .map(|(kind, total)| {
                let (last, grown) = before.get(&kind).copied().unwrap_or_default();
                (kind, (total, if total == last { grown } else { Some(now) }))
            })
            .collect();
        let is_shown =
            |grown: Option<Instant>| grown.is_some_and(|at| now.saturating_duration_since(at) < SHOWN);
        let is_said = |kind: &TroubleKind| matches!(kind, TroubleKind::NoBackend(it) if is_checked(*it));
        let shown = self.seen.iter().filter(|(kind, (_, grown))| is_shown(*grown) && !is_said(kind));
        let mut told = BTreeSet::new();
        let shown = shown
            .map(|(kind, _)| Trouble::from(*kind))
            .filter(|trouble| trouble.listener.is_none_or(|listener| told.insert(listener)));
        shown.take(MOST).collect()
    }
}

/// Counters of a listener that tell of troubles.
pub fn of_listener(id: Uuid, counters: &ListenerCounters) -> impl Iterator<Item = (TroubleKind, u64)> {
    let share = (TroubleKind::Share(id), counters.refused_by_share);
    let header = (TroubleKind::Header(id), counters.refused_headers.iter().sum());
    let clients = (TroubleKind::Clients(id), counters.clients_uncounted);
    let loops = (TroubleKind::Loop(id), counters.refused_loops);
    // What the node was short of is a trouble of its own.
    let no_backend = counters.no_backend.saturating_sub(counters.exhausted);
    [loops, share, header, clients, (TroubleKind::NoBackend(id), no_backend)].into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_told_for_a_minute_after_it_was_last_met() {
        let mut watch = TroubleWatch::default();
        let start = Instant::now();
        let listener = Uuid::from_u128(7);
        let mut told = |ports: u64, refused_by_share: u64, seconds: u64| -> Vec<Option<Uuid>> {
            let counters = ListenerCounters { refused_by_share, ..ListenerCounters::default() };
            let ports = (TroubleKind::Shortage(NodeResource::Ports), ports);
            let totals = of_listener(listener, &counters).chain([ports]);
            let now = start + Duration::from_secs(seconds);
            watch.observe(totals, |_| false, now).into_iter().map(|trouble| trouble.listener).collect()
        };
        assert_eq!(told(0, 0, 0), []);
        assert_eq!(told(3, 0, 1), [None]);
        assert_eq!(told(3, 1, 30), [None, Some(listener)]);
        assert_eq!(told(3, 2, 61), [Some(listener)]);
        assert_eq!(told(4, 2, 100), [None, Some(listener)]);
        assert_eq!(told(4, 2, 121), [None]);
        assert_eq!(told(4, 2, 160), []);
    }

    #[test]
    fn a_listener_whose_backends_accept_nothing_tells_so_unless_another_trouble_is_the_cause() {
        let listener = Uuid::from_u128(7);
        let told_of = |counters: ListenerCounters, is_checked: bool| -> Vec<String> {
            let totals = of_listener(listener, &counters);
            let told = TroubleWatch::default().observe(totals, |_| is_checked, Instant::now());
            told.into_iter().map(|trouble| trouble.text).collect()
        };
        let told = |counters| told_of(counters, false);
        let counters = ListenerCounters { no_backend: 3, exhausted: 3, ..ListenerCounters::default() };
        assert_eq!(told(counters), [""; 0]);
        let counters = ListenerCounters { no_backend: 4, ..counters };
        let text = "clients are turned away, since no backend accepts their connections";
        assert_eq!(told(counters), [text]);
        assert_eq!(told_of(counters, true), [""; 0], "the check says it, and when it is over");
        let looped = told(ListenerCounters { refused_loops: 1, ..counters });
        assert_eq!(looped, [Trouble::from(TroubleKind::Loop(listener)).text]);
    }

    #[test]
    fn what_is_gone_is_forgotten_and_what_is_told_is_bounded() {
        let mut watch = TroubleWatch::default();
        let now = Instant::now();
        let many = (0..5000).map(|number| (TroubleKind::Share(Uuid::from_u128(number)), 1));
        let node = (TroubleKind::Shortage(NodeResource::Descriptors), 1);
        let told = watch.observe(many.chain([node]), |_| false, now);
        assert_eq!((told.len(), told[0].listener), (MOST, None));
        assert!(watch.observe(std::iter::empty(), |_| false, now).is_empty() && watch.seen.is_empty());
    }
}
