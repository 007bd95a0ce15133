//! What the nodes' verdicts on a backend come to together. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What one node says of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it answered as it should.
    pub up: bool,
    /// Why not.
    pub reason: String,
    /// Milliseconds since 1970 by the node's clock.
    pub since_ms: u64,
}

/// What a backend counts as.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Its pool has no check in force, or it is switched off: it takes connections.
    Unchecked,
    /// Checked; nobody has a verdict now or had one since the plugin started: it stays as it is.
    #[default]
    Unknown,
    /// Every node that has a verdict says so.
    Up,
    /// The nodes disagree, with what they say. It takes connections.
    Degraded(String),
    /// Every live node that has a verdict says so, with the reasons.
    Down(String),
    /// New, and no node is there to check it: it takes connections after a while.
    NotChecked,
}

impl Health {
    /// Whether new connections may go to it. `is_in_rotation`: whether they do now, which decides where nothing is known.
    pub fn serves(&self, is_in_rotation: bool) -> bool {
        match self {
            Self::Unchecked | Self::Up | Self::Degraded(_) | Self::NotChecked => true,
            Self::Down(_) => false,
            Self::Unknown => is_in_rotation,
        }
    }
}

/// What the verdicts of live nodes come to. Without one it stays at what it was: silence takes nothing out of rotation and
/// brings nothing back.
pub(crate) fn merge<'a>(
    verdicts: impl IntoIterator<Item = (&'a str, &'a Verdict)>,
    before: Option<&Health>,
) -> Health {
    let (up, down): (Vec<_>, Vec<_>) = verdicts.into_iter().partition(|(_, verdict)| verdict.up);
    match (up.as_slice(), down.as_slice()) {
        ([], []) => before.cloned().unwrap_or_default(),
        (_, []) => Health::Up,
        ([], down) => Health::Down(reasons(down)),
        (up, down) => {
            let nodes: Vec<&str> = up.iter().map(|(node, _)| *node).collect();
            Health::Degraded(format!("{}; up from {}", reasons(down), nodes.join(", ")))
        }
    }
}

/// Each reason once, with the nodes that give it.
fn reasons(down: &[(&str, &Verdict)]) -> String {
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

    fn verdict(up: bool, reason: &str) -> Verdict {
        Verdict { up, reason: reason.to_owned(), since_ms: 0 }
    }

    #[test]
    fn it_is_down_only_when_every_verdict_says_so() {
        let (up, refused) = (verdict(true, ""), verdict(false, "connection refused"));
        assert_eq!(merge([("a", &up), ("b", &up)], None), Health::Up);
        assert_eq!(
            merge([("a", &refused), ("b", &refused)], None),
            Health::Down("connection refused (from a, b)".into())
        );
        assert_eq!(
            merge([("a", &refused), ("b", &up)], None),
            Health::Degraded("connection refused (from a); up from b".into())
        );
        assert_eq!(merge([("a", &refused)], None), Health::Down("connection refused (from a)".into()));
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
