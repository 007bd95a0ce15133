//! Messages between plugins in terms of the use cases, and back.

use fiberlb_proto::v1;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::api::{ApiError, Difference, DifferenceKind, ErrorKind, ErrorReason, Subject, Verification};

/// gRPC's code for a kind of failure.
pub(crate) fn code(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::InvalidArgument => Code::InvalidArgument,
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::AlreadyExists => Code::AlreadyExists,
        ErrorKind::FailedPrecondition => Code::FailedPrecondition,
        ErrorKind::Aborted => Code::Aborted,
        ErrorKind::ResourceExhausted => Code::ResourceExhausted,
        ErrorKind::Unimplemented => Code::Unimplemented,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::Unknown => Code::Unknown,
        ErrorKind::Internal => Code::Internal,
    }
}

/// Status that another plugin gets for a failure here.
pub(crate) fn refusal(error: &ApiError) -> Status {
    Status::new(code(error.kind()), error.message.clone())
}

/// Failure that another plugin answered.
pub(crate) fn refused(status: &Status) -> ApiError {
    let reason = match status.code() {
        Code::NotFound => ErrorReason::NotFound,
        Code::FailedPrecondition => ErrorReason::NodeState,
        Code::ResourceExhausted => ErrorReason::Busy,
        Code::Aborted => ErrorReason::Contended,
        Code::Unknown => ErrorReason::OutcomeUnknown,
        _ => ErrorReason::LeaderUnavailable,
    };
    ApiError::new(reason, status.message())
}

/// Message of a comparison.
pub(crate) fn verification_message(verification: Verification) -> v1::VerifyOvnResponse {
    v1::VerifyOvnResponse {
        differences: verification.differences.into_iter().map(difference_message).collect(),
        total: count(verification.total),
        load_balancers: count(verification.load_balancers),
        waiting: count(verification.waiting),
        northbound: verification.northbound,
    }
}

fn difference_message(difference: Difference) -> v1::OvnDifference {
    let kind = match difference.kind {
        DifferenceKind::Missing => v1::OvnDifferenceKind::Missing,
        DifferenceKind::Unexpected => v1::OvnDifferenceKind::Unexpected,
        DifferenceKind::Different => v1::OvnDifferenceKind::Different,
        DifferenceKind::Blocked => v1::OvnDifferenceKind::Blocked,
    };
    let (load_balancer_id, network) = match difference.subject {
        Subject::LoadBalancer(id) => (id.to_string(), String::new()),
        Subject::Network(switch) => (String::new(), switch.to_string()),
    };
    v1::OvnDifference {
        kind: kind.into(),
        table: difference.table,
        row: difference.row.to_string(),
        load_balancer_id,
        network,
        detail: difference.detail,
    }
}

/// Comparison of a message; differences that cannot be read are left out, and counted.
pub(crate) fn verification_of(message: v1::VerifyOvnResponse) -> Verification {
    Verification {
        differences: message.differences.into_iter().filter_map(difference_of).collect(),
        total: message.total as usize,
        load_balancers: message.load_balancers as usize,
        waiting: message.waiting as usize,
        northbound: message.northbound,
    }
}

fn difference_of(message: v1::OvnDifference) -> Option<Difference> {
    let kind = match message.kind() {
        v1::OvnDifferenceKind::Unspecified => return None,
        v1::OvnDifferenceKind::Missing => DifferenceKind::Missing,
        v1::OvnDifferenceKind::Unexpected => DifferenceKind::Unexpected,
        v1::OvnDifferenceKind::Different => DifferenceKind::Different,
        v1::OvnDifferenceKind::Blocked => DifferenceKind::Blocked,
    };
    let subject = match message.load_balancer_id.parse::<Uuid>() {
        Ok(id) => Subject::LoadBalancer(id),
        Err(_) => Subject::Network(message.network.parse().ok()?),
    };
    let row = message.row.parse().ok()?;
    Some(Difference { subject, kind, table: message.table, row, detail: message.detail })
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_survives_the_way_between_plugins() {
        let difference = |subject, kind| Difference {
            subject,
            kind,
            table: "Load_Balancer".to_owned(),
            row: Uuid::from_u128(3),
            detail: "vips".to_owned(),
        };
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let verification = Verification {
            differences: vec![
                difference(Subject::LoadBalancer(one), DifferenceKind::Missing),
                difference(Subject::Network(two), DifferenceKind::Blocked),
            ],
            total: 2,
            load_balancers: 7,
            waiting: 1,
            northbound: "connected".to_owned(),
        };
        assert_eq!(verification_of(verification_message(verification.clone())), verification);
        assert_eq!(difference_of(v1::OvnDifference::default()), None);
    }
}
