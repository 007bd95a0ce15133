//! Health of a backend, merged from the verdicts of the nodes. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Verdict of one node on a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "VerdictRecord", into = "VerdictRecord")]
pub struct BackendVerdict {
    /// True: its probes succeed.
    pub up: bool,
    /// Reason of failing probes.
    pub reason: String,
    /// Milliseconds since 1970 by the node's clock.
    pub since_ms: u64,
}

/// Stored form of a verdict, small where all is well.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum VerdictRecord {
    /// Time since which it is up.
    Up(u64),
    /// Time since which it is down, and the reason.
    Down(u64, String),
}

impl From<VerdictRecord> for BackendVerdict {
    fn from(record: VerdictRecord) -> Self {
        match record {
            VerdictRecord::Up(since_ms) => Self { up: true, reason: String::new(), since_ms },
            VerdictRecord::Down(since_ms, reason) => Self { up: false, reason, since_ms },
        }
    }
}

impl From<BackendVerdict> for VerdictRecord {
    fn from(BackendVerdict { up, reason, since_ms }: BackendVerdict) -> Self {
        if up { Self::Up(since_ms) } else { Self::Down(since_ms, reason) }
    }
}

/// Probes of one node that say nothing about a backend, for a reason of the node's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InconclusiveCheck {
    /// Reason, for people.
    pub reason: String,
    /// Milliseconds since 1970 by the node's clock.
    pub since_ms: u64,
}

/// A backend that a node leaves out of its choice, since connections to it failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EjectedBackend {
    /// Milliseconds since 1970 by the node's clock.
    pub until_ms: u64,
    /// Failure of the latest connection, for people.
    pub reason: String,
}

/// Merged health of a backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Its pool has no enabled check, or it is disabled itself: it takes connections.
    Unchecked,
    /// Checked, without a verdict since the plugin started: rotation is left unchanged.
    #[default]
    Unknown,
    /// Every verdict is up.
    Up,
    /// Verdicts differ; text with the failing ones. It takes connections.
    Degraded(String),
    /// Every live node that checks it says so, but for those that had no verdict in time; text with the reasons.
    Down(String),
    /// New, and no node can check it: it takes connections after a grace period.
    NotChecked,
}

impl Health {
    /// Decides whether the backend takes new connections. `is_in_rotation`, the current state, decides while
    /// the health is unknown.
    pub fn serves(&self, is_in_rotation: bool) -> bool {
        match self {
            Self::Unchecked | Self::Up | Self::Degraded(_) | Self::NotChecked => true,
            Self::Down(_) => false,
            Self::Unknown => is_in_rotation,
        }
    }
}

/// Opinion of a node that checks a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opinion<'a> {
    /// Its verdict.
    Verdict(&'a BackendVerdict),
    /// None yet: it has had no time for one.
    Awaited,
    /// None, although it has had time for one: it is left out.
    Missing,
}

/// Merges the opinions of the live nodes that check a backend. It is down only if each of them that is not left out says
/// so. As long as a verdict is awaited that could contradict, and without any verdict, the previous health is kept: silence
/// takes nothing out of rotation and puts nothing back.
pub(crate) fn merge<'a>(
    opinions: impl IntoIterator<Item = (&'a str, Opinion<'a>)>,
    before: Option<&Health>,
) -> Health {
    let [mut up, mut awaited, mut missing] = [const { Vec::new() }; 3];
    let mut down = Vec::new();
    for (node, opinion) in opinions {
        match opinion {
            Opinion::Verdict(verdict) if verdict.up => up.push(node),
            Opinion::Verdict(verdict) => down.push((node, verdict)),
            Opinion::Awaited => awaited.push(node),
            Opinion::Missing => missing.push(node),
        }
    }
    let texts = || {
        let awaited = (!awaited.is_empty()).then(|| format!("no verdict from {} yet", awaited.join(", ")));
        let left_out = || format!("left out without a verdict in time: {}", missing.join(", "));
        let missing = (!missing.is_empty()).then(left_out);
        [Some(reasons(&down)), awaited, missing].into_iter().flatten().collect::<Vec<_>>().join("; ")
    };
    match (up.as_slice(), down.as_slice(), before) {
        ([], [], _) => before.cloned().unwrap_or_default(),
        (_, [], _) => Health::Up,
        ([], _, _) if awaited.is_empty() => Health::Down(texts()),
        ([], _, Some(Health::Down(_))) => Health::Down(texts()),
        ([], _, Some(Health::Up | Health::Degraded(_))) => Health::Degraded(texts()),
        ([], _, _) => before.cloned().unwrap_or_default(),
        (up, _, _) => Health::Degraded(format!("{}; up from {}", reasons(&down), up.join(", "))),
    }
}

/// Each distinct reason once, with the nodes that report it.
fn reasons(down: &[(&str, &BackendVerdict)]) -> String {
    let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (node, verdict) in down {
        by_reason.entry(&verdict.reason).or_default().push(node);
    }
    let words: Vec<String> = by_reason
        .into_iter()
        .map(|(reason, nodes)| format!("{reason} (from {})", nodes.join(", ")))
        .collect();
    words.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(up: bool, reason: &str) -> BackendVerdict {
        BackendVerdict { up, reason: reason.to_owned(), since_ms: 0 }
    }

    #[test]
    fn it_is_down_only_when_every_verdict_says_so() {
        let (up, refused) = (verdict(true, ""), verdict(false, "connection refused"));
        let (up, refused) = (Opinion::Verdict(&up), Opinion::Verdict(&refused));
        assert_eq!(merge([("a", up), ("b", up)], None), Health::Up);
        assert_eq!(
            merge([("a", refused), ("b", refused)], None),
            Health::Down("connection refused (from a, b)".into())
        );
        assert_eq!(
            merge([("a", refused), ("b", up)], None),
            Health::Degraded("connection refused (from a); up from b".into())
        );
        assert_eq!(merge([("a", refused)], None), Health::Down("connection refused (from a)".into()));
    }

    #[test]
    fn it_is_not_down_while_a_verdict_is_awaited_and_names_who_was_left_out() {
        let refused = verdict(false, "connection refused");
        let waiting = [("a", Opinion::Verdict(&refused)), ("b", Opinion::Awaited)];
        let text = "connection refused (from a); no verdict from b yet".to_owned();
        assert_eq!(merge(waiting, None), Health::Unknown);
        assert_eq!(merge(waiting, Some(&Health::Up)), Health::Degraded(text.clone()));
        assert_eq!(merge(waiting, Some(&Health::Down("x".into()))), Health::Down(text), "it stays out");
        let over = [("a", Opinion::Verdict(&refused)), ("b", Opinion::Missing)];
        let text = "connection refused (from a); left out without a verdict in time: b".to_owned();
        assert_eq!(merge(over, Some(&Health::Up)), Health::Down(text));
        let up = verdict(true, "");
        for silent in [Opinion::Awaited, Opinion::Missing] {
            assert_eq!(merge([("a", Opinion::Verdict(&up)), ("b", silent)], None), Health::Up);
            assert_eq!(merge([("b", silent)], None), Health::Unknown);
        }
    }

    #[test]
    fn a_stored_verdict_is_small_and_reads_the_same() {
        let stored = |verdict: &BackendVerdict| serde_json::to_string(verdict).unwrap();
        let (up, down) = (BackendVerdict { since_ms: 7, ..verdict(true, "") }, verdict(false, "timeout"));
        assert_eq!((stored(&up).as_str(), stored(&down).as_str()), ("7", r#"[0,"timeout"]"#));
        for verdict in [up, down] {
            assert_eq!(serde_json::from_str::<BackendVerdict>(&stored(&verdict)).unwrap(), verdict);
        }
    }

    #[test]
    fn silence_changes_nothing() {
        let down = Health::Down("x".into());
        assert_eq!(merge([], Some(&down)), down);
        assert_eq!(merge([], Some(&Health::Up)), Health::Up);
        assert_eq!(merge([], None), Health::Unknown);
        assert!(Health::Unknown.serves(true) && !Health::Unknown.serves(false));
    }
}
