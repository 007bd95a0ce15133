//! Record of API calls on objects with their outcomes, for the checkers. Pure.
//!
//! Each write gives its object a value that no other write gives, so that whoever reads a value knows which write made it.

use serde::{Deserialize, Serialize};

/// One operation of one client, from its call to its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The client, from 0. It has one operation under way at a time.
    pub client: usize,
    /// The plugin that was asked, from 0.
    pub replica: usize,
    /// The object, such as `loadbalancer/UUID`. It is created at most once.
    pub object: String,
    /// Requested action.
    pub action: Action,
    /// Microseconds from the beginning of the run to the call.
    pub invoked: u64,
    /// Microseconds from the beginning of the run to the answer, or until the client gave up.
    pub returned: u64,
    /// Outcome of the call.
    pub outcome: Outcome,
}

/// Action on an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Make the object.
    Create {
        /// Its first value.
        value: String,
    },
    /// Give it another value.
    Update {
        /// The value.
        value: String,
        /// Only if it still has this one, told by the etag that was read with it.
        expected: Option<String>,
    },
    /// Delete it.
    Delete {
        /// Only if it still has this value.
        expected: Option<String>,
    },
    /// Say what it is.
    Read,
    /// The same when all is quiet and all faults are mended: this one must show the last write.
    LastRead,
}

/// Outcome of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The object as it is, after the write if it was one.
    Seen(Version),
    /// It is deleted, or being deleted.
    Gone,
    /// There is none of that id.
    Absent,
    /// Nothing was written, for certain.
    Refused {
        /// In the plugin's words.
        why: String,
    },
    /// It may take effect at any later moment, or never.
    Unknown {
        /// In words of whoever gave up.
        why: String,
    },
}

/// State of an object, as a plugin returns it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Version {
    /// Its generation: 1 for the create, one more for each update.
    pub generation: u64,
    /// Its value.
    pub value: String,
    /// Its etag.
    pub etag: String,
}

impl Action {
    /// The value that it gives to the object.
    #[must_use]
    pub fn value(&self) -> Option<&str> {
        match self {
            Self::Create { value } | Self::Update { value, .. } => Some(value),
            Self::Delete { .. } | Self::Read | Self::LastRead => None,
        }
    }
}

impl Event {
    /// Microseconds from the beginning of the run until it was known what came of it; `None`: it never was.
    #[must_use]
    pub fn known_at(&self) -> Option<u64> {
        (!matches!(self.outcome, Outcome::Unknown { .. })).then_some(self.returned)
    }

    /// State of the object that it shows.
    #[must_use]
    pub fn version(&self) -> Option<&Version> {
        match &self.outcome {
            Outcome::Seen(version) => Some(version),
            _ => None,
        }
    }
}

/// A history as lines of JSON, one for each event.
#[must_use]
pub fn to_lines(events: &[Event]) -> String {
    // A write of these types to JSON cannot fail; a line that did would be missed by whoever reads it.
    let lines = events.iter().map(|event| serde_json::to_string(event).unwrap_or_else(|why| why.to_string()));
    lines.map(|line| line + "\n").collect()
}

/// Reads what [`to_lines`] wrote.
///
/// # Errors
/// The line that cannot be read, and why.
pub fn from_lines(text: &str) -> Result<Vec<Event>, String> {
    let read = |(number, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| format!("line {}: {error}", number + 1))
    };
    text.lines().enumerate().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_read_as_it_is_written() {
        let version = Version { generation: 2, value: "v".to_owned(), etag: "1-2".to_owned() };
        let event = |action, outcome| Event {
            client: 1,
            replica: 2,
            object: "backend/x".to_owned(),
            action,
            invoked: 10,
            returned: 20,
            outcome,
        };
        let events = [
            event(Action::Create { value: "v".to_owned() }, Outcome::Seen(version)),
            event(
                Action::Delete { expected: Some("v".to_owned()) },
                Outcome::Unknown { why: "?".to_owned() },
            ),
            event(Action::LastRead, Outcome::Gone),
        ];
        assert_eq!(from_lines(&to_lines(&events)).unwrap(), events);
        assert!(from_lines("{}").unwrap_err().starts_with("line 1"));
    }
}
