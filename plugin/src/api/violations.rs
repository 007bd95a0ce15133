//! Everything that is wrong with a request, collected before it is answered.

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

/// Kind of a violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Invalid,
    Unsupported,
    Taken,
}

/// The violations of one request.
#[derive(Debug, Default)]
pub(crate) struct Violations {
    found: Vec<(Kind, FieldViolation)>,
}

impl Violations {
    /// Records a value that can never be valid.
    pub(crate) fn invalid(&mut self, field: impl Into<String>, why: impl Into<String>) {
        self.found.push((Kind::Invalid, FieldViolation::new(field, why)));
    }

    /// Records a value that is known but not implemented yet.
    pub(crate) fn unsupported(&mut self, field: impl Into<String>, what: &str) {
        let why = format!("{what} is not supported yet");
        self.found.push((Kind::Unsupported, FieldViolation::new(field, why)));
    }

    /// Records a value that would be valid if nobody else had it.
    pub(crate) fn taken(&mut self, field: impl Into<String>, why: impl Into<String>) {
        self.found.push((Kind::Taken, FieldViolation::new(field, why)));
    }

    /// Adds those of `others` that are neither at nor below the field `path`.
    pub(crate) fn extend_outside(&mut self, path: &str, others: Self) {
        let is_outside = |field: &str| {
            let below = field.strip_prefix(path);
            !below.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        self.found.extend(others.found.into_iter().filter(|(_, violation)| is_outside(&violation.field)));
    }

    /// Returns true if the request can go on.
    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Rejects the request if there are violations.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` if anything is plainly wrong, else `UNIMPLEMENTED` if anything is not supported,
    /// else
    /// `ALREADY_EXISTS`; always with all violations as `google.rpc.BadRequest`.
    pub(crate) fn check(self) -> Result<(), Status> {
        let has = |kind| self.found.iter().any(|(found, _)| *found == kind);
        let code = if has(Kind::Invalid) {
            Code::InvalidArgument
        } else if has(Kind::Unsupported) {
            Code::Unimplemented
        } else if has(Kind::Taken) {
            Code::AlreadyExists
        } else {
            return Ok(());
        };
        let violations: Vec<FieldViolation> =
            self.found.into_iter().map(|(_, violation)| violation).collect();
        let lines: Vec<String> = violations
            .iter()
            .map(|violation| format!("{}: {}", violation.field, violation.description))
            .collect();
        let mut details = ErrorDetails::new();
        details.set_bad_request(violations);
        Err(Status::with_error_details(code, lines.join("; "), details))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_violations_come_back_with_their_fields() {
        let mut violations = Violations::default();
        violations.invalid("port", "must be 1 to 65535");
        violations.unsupported("tls", "TLS");
        let status = violations.check().unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        let fields = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!(
            fields.iter().map(|violation| violation.field.as_str()).collect::<Vec<_>>(),
            ["port", "tls"]
        );
    }

    #[test]
    fn only_unsupported_is_unimplemented_and_only_taken_already_exists() {
        let mut violations = Violations::default();
        violations.taken("port", "taken");
        assert_eq!(violations.check().unwrap_err().code(), Code::AlreadyExists);
        let mut violations = Violations::default();
        violations.taken("port", "taken");
        violations.unsupported("protocol", "HTTP");
        assert_eq!(violations.check().unwrap_err().code(), Code::Unimplemented);
        assert!(Violations::default().check().is_ok());
    }
}
