//! Errors of the use cases as gRPC statuses.

use std::collections::HashMap;

use tonic::Status;
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use crate::agents::code;
use crate::api::ApiError;

/// Domain of the reasons in `google.rpc.ErrorInfo`.
const DOMAIN: &str = "fiberlb";

/// Status of a failed use case: the violations as `google.rpc.BadRequest`, the reason as `google.rpc.ErrorInfo`.
pub(super) fn status(error: ApiError) -> Status {
    let code = code(error.kind());
    let mut details = ErrorDetails::new();
    details.set_error_info(error.reason.as_str(), DOMAIN, HashMap::new());
    if !error.violations.is_empty() {
        let field = |violation: crate::resources::Violation| {
            FieldViolation::new(violation.field, violation.description)
        };
        details.set_bad_request(error.violations.into_iter().map(field).collect::<Vec<_>>());
    }
    Status::with_error_details(code, error.message, details)
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;
    use crate::api::ErrorReason;
    use crate::resources::{Form, Violations};

    #[test]
    fn violations_and_reason_are_in_the_details() {
        let mut violations = Violations::default();
        let mut form = Form::new("pool", &mut violations);
        form.invalid("port", "must be 1 to 65535");
        form.unsupported("tls", "TLS");
        let status = status(ApiError::check(violations).unwrap_err());
        assert_eq!(status.code(), Code::InvalidArgument);
        let fields = status.get_details_bad_request().unwrap().field_violations;
        let fields: Vec<&str> = fields.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["pool.port", "pool.tls"]);
        assert_eq!(status.get_details_error_info().unwrap().reason, "INVALID_FIELDS");
    }

    #[test]
    fn the_kinds_of_failure_are_named_as_the_codes_are() {
        let name = |code: Code| format!("{code:?}").to_uppercase();
        for reason in ErrorReason::ALL {
            let status = status(ApiError::new(*reason, "why"));
            assert_eq!(reason.kind().as_str().replace('_', ""), name(status.code()), "{reason}");
            assert!(status.get_details_bad_request().is_none());
        }
    }
}
