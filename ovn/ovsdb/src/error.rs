//! Errors of transactions.

use serde_json::Value;
use thiserror::Error;

/// Text of a JSON-RPC error: the word alone, or the word with its details (RFC 7047, section 3.1).
pub(crate) fn rpc_error_text(error: &Value) -> String {
    let text = |key| error.get(key).and_then(Value::as_str);
    match (error.as_str(), text("error"), text("details")) {
        (Some(word), ..) | (None, Some(word), None) => word.to_owned(),
        (None, Some(word), Some(details)) => format!("{word} ({details})"),
        (None, None, _) => error.to_string(),
    }
}

/// Reason of a refused operation: the `error` member of its result (RFC 7047, sections 3.1 and 5.2).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DatabaseError {
    /// `duplicate uuid`: a row with this UUID exists, or existed before the transaction deleted it.
    #[error("duplicate uuid")]
    DuplicateUuid,
    /// `constraint violation`: a value or a number of values that the schema forbids, or a second row under a unique index.
    #[error("constraint violation")]
    ConstraintViolation,
    /// `referential integrity violation`: a strong reference would dangle.
    #[error("referential integrity violation")]
    ReferentialIntegrityViolation,
    /// `timed out`: a [`Wait`](crate::operation::Operation::Wait) was not met.
    #[error("timed out")]
    TimedOut,
    /// `resources exhausted`: the server lacks memory or disk space.
    #[error("resources exhausted")]
    ResourcesExhausted,
    /// `I/O error`: the server cannot write its database file.
    #[error("I/O error")]
    Io,
    /// Any other error, as the server names it.
    #[error("{0}")]
    Other(String),
}

impl DatabaseError {
    /// Parses the `error` member of a result.
    pub(crate) fn parse(text: &str) -> Self {
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

/// Failure of a transaction. The database is unchanged, unless the variant is [`TransactError::Unknown`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TransactError {
    /// The transaction was not sent. It may be retried once the client is connected.
    #[error("not connected to the database: {reason}")]
    NotConnected {
        /// Reason why there is no connection, or why the transaction could not be sent.
        reason: String,
    },
    /// The server refused the transaction as a whole; nothing was changed.
    #[error("the database refused the transaction: {error}{}", .details.as_ref().map(|details| format!(" ({details})")).unwrap_or_default())]
    Refused {
        /// Index of the refused operation; `None` for an error at commit (RFC 7047, section 4.1.3), such as a dangling
        /// reference.
        operation: Option<usize>,
        /// Reason.
        error: DatabaseError,
        /// The server's own explanation, for people.
        details: Option<String>,
    },
    /// The transaction was sent and its reply was lost: it may have been carried out. Compare the replica with the desired
    /// state after the next [`Reloaded`](crate::client::Event::Reloaded) before retrying.
    #[error("the outcome of the transaction is unknown: {reason}")]
    Unknown {
        /// Reason why no reply can arrive any more.
        reason: String,
    },
}

impl TransactError {
    /// Parses an error object, `{"error": ..., "details": ...}`.
    pub(crate) fn refused(operation: Option<usize>, object: &Value) -> Self {
        let text = |key| object.get(key).and_then(Value::as_str);
        let error = DatabaseError::parse(text("error").unwrap_or("an error without a name"));
        Self::Refused { operation, error, details: text("details").map(str::to_owned) }
    }

    /// True if the transaction was refused because its first operation is a [`Wait`](crate::operation::Operation::Wait) that
    /// was not met.
    ///
    /// Writers that guard each transaction with a wait on a fencing token learn by this that a newer writer holds it.
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
            assert_eq!(rpc_error_text(&error), shown);
        }
    }
}
