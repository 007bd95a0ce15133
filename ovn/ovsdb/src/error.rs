//! How a transaction fails.

use serde_json::Value;
use thiserror::Error;

/// What a JSON-RPC error says: the words alone, or the words with their details (RFC 7047, section 3.1).
pub(crate) fn words(error: &Value) -> String {
    let text = |key| error.get(key).and_then(Value::as_str);
    match (error.as_str(), text("error"), text("details")) {
        (Some(words), ..) | (None, Some(words), None) => words.to_owned(),
        (None, Some(words), Some(details)) => format!("{words} ({details})"),
        (None, None, _) => error.to_string(),
    }
}

/// Why the database refused an operation (RFC 7047, sections 3.1 and 5.2).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DatabaseError {
    /// A row with this UUID is there already.
    #[error("duplicate uuid")]
    DuplicateUuid,
    /// A value or a number of them that the schema forbids, or an index that is not unique.
    #[error("constraint violation")]
    ConstraintViolation,
    /// A strong reference would dangle.
    #[error("referential integrity violation")]
    ReferentialIntegrityViolation,
    /// A `wait` did not come true.
    #[error("timed out")]
    TimedOut,
    /// The server has no memory or disk for it.
    #[error("resources exhausted")]
    ResourcesExhausted,
    /// The server cannot write its file.
    #[error("I/O error")]
    Io,
    /// Anything else, in the server's words.
    #[error("{0}")]
    Other(String),
}

impl DatabaseError {
    /// Reads the server's word for it.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text {
            "duplicate uuid" | "duplicate uuid name" => Self::DuplicateUuid,
            "constraint violation" => Self::ConstraintViolation,
            "referential integrity violation" => Self::ReferentialIntegrityViolation,
            "timed out" => Self::TimedOut,
            "resources exhausted" => Self::ResourcesExhausted,
            "I/O error" => Self::Io,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// How a transaction fails.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TransactError {
    /// It was not sent.
    #[error("not connected to the database: {reason}")]
    NotConnected {
        /// Why there is no connection.
        reason: String,
    },
    /// The database refused it; nothing of it was done.
    #[error("the database refused it: {error}{}", .details.as_ref().map(|details| format!(" ({details})")).unwrap_or_default())]
    Refused {
        /// Which operation; `None`: the transaction as a whole, at its commit.
        operation: Option<usize>,
        /// Why.
        error: DatabaseError,
        /// More of it, in the server's words.
        details: Option<String>,
    },
    /// It was sent, and nobody knows whether it was done: look at the database before doing anything.
    #[error("its outcome is not known: {reason}")]
    Unknown {
        /// Why.
        reason: String,
    },
}

impl TransactError {
    /// Reads an error object (`{"error": ..., "details": ...}`).
    #[must_use]
    pub fn refused(operation: Option<usize>, object: &Value) -> Self {
        let text = |key| object.get(key).and_then(Value::as_str);
        let error = DatabaseError::parse(text("error").unwrap_or("an error without a name"));
        Self::Refused { operation, error, details: text("details").map(str::to_owned) }
    }

    /// Whether a [`wait`](super::operation::Operation::Wait) at the head of the transaction was not met: nothing was done,
    /// because the database is not as the sender thought. With a fence ahead: another one has taken over.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        matches!(self, Self::Refused { operation: Some(0), error: DatabaseError::TimedOut, .. })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_an_unmet_wait_at_the_head_is_a_fence() {
        let refused = |operation, error| TransactError::refused(operation, &json!({"error": error}));
        assert!(refused(Some(0), "timed out").is_fenced());
        for other in [
            refused(Some(1), "timed out"),
            refused(None, "timed out"),
            refused(Some(0), "constraint violation"),
            TransactError::Unknown { reason: "timed out".to_owned() },
        ] {
            assert!(!other.is_fenced(), "{other:?}");
        }
    }

    #[test]
    fn errors_are_shown_without_the_notation_of_json() {
        for (error, shown) in [
            (json!("unknown method"), "unknown method"),
            (json!({"error": "unknown database", "details": "no X"}), "unknown database (no X)"),
            (json!({"error": "not owner"}), "not owner"),
            (json!(5), "5"),
        ] {
            assert_eq!(words(&error), shown);
        }
    }
}
