//! Findings of the checks, as they are printed.

use std::fmt;

/// A breach of a rule, at a place that an editor can open.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Violation {
    pub(crate) place: Place,
    pub(crate) message: String,
}

/// A line of a file; the path is relative to the repository's root.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) path: String,
    pub(crate) line: usize,
}

/// Result of one check.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) violations: Vec<Violation>,
    /// One line for a check without violations.
    pub(crate) summary: String,
}

impl Place {
    pub(crate) fn new(path: impl Into<String>, line: usize) -> Self {
        Self { path: path.into(), line }
    }

    /// A violation at this place.
    pub(crate) fn violation(&self, message: impl Into<String>) -> Violation {
        Violation { place: self.clone(), message: message.into() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path, self.line)
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}
