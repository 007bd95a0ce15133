//! The one error of all use cases.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::catalog::WriteError;
use crate::resources::{Kind, UserError, Violation, ViolationKind, Violations, truncated};
use fiberlb_store::CommitError;
use uuid::Uuid;

/// Most bytes of a message. It travels in HTTP/2 trailers, of which some clients take 8 KiB, and not ASCII takes three
/// times as much there.
const MESSAGE_BYTES: usize = 768;
/// Most bytes of the violations of one answer, which stand beside the message, in base64.
const VIOLATION_BYTES: usize = 4096;

/// Kind of a failure. The names are those of gRPC's status codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request is wrong in itself.
    InvalidArgument,
    /// The object does not exist, or is not the caller's.
    NotFound,
    /// Something else has what must be unique.
    AlreadyExists,
    /// The state of the object does not allow it.
    FailedPrecondition,
    /// Other writes came first.
    Aborted,
    /// A limit is reached.
    ResourceExhausted,
    /// Known, and not supported by this release.
    Unimplemented,
    /// A dependency cannot be reached.
    Unavailable,
    /// The outcome is not known.
    Unknown,
    /// A fault of FiberLB.
    Internal,
}

impl ErrorKind {
    /// Name of gRPC's status code, in audit lines and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidArgument => "INVALID_ARGUMENT",
            Self::NotFound => "NOT_FOUND",
            Self::AlreadyExists => "ALREADY_EXISTS",
            Self::FailedPrecondition => "FAILED_PRECONDITION",
            Self::Aborted => "ABORTED",
            Self::ResourceExhausted => "RESOURCE_EXHAUSTED",
            Self::Unimplemented => "UNIMPLEMENTED",
            Self::Unavailable => "UNAVAILABLE",
            Self::Unknown => "UNKNOWN",
            Self::Internal => "INTERNAL",
        }
    }
}

/// Declares the reasons, with their names and kinds of failure.
macro_rules! reasons {
    ($($(#[doc = $doc:literal])* $reason:ident => $name:literal, $kind:ident;)*) => {
        /// Stable code of a failure's reason.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum ErrorReason {
            $($(#[doc = $doc])* $reason,)*
        }

        impl ErrorReason {
            /// All reasons.
            pub const ALL: &'static [Self] = &[$(Self::$reason),*];

            /// Their meanings, for `docs/`.
            #[cfg(test)]
            pub(crate) const DOCS: &'static [&'static str] = &[$(concat!($($doc),*)),*];

            /// Name of the code in the API.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$reason => $name,)*
                }
            }

            /// Reason with this name.
            pub fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| reason.as_str() == name)
            }

            /// Kind of failure.
            pub const fn kind(self) -> ErrorKind {
                match self {
                    $(Self::$reason => ErrorKind::$kind,)*
                }
            }
        }
    };
}

reasons! {
    /// Fields have values that can never be valid; the violations name them.
    InvalidFields => "INVALID_FIELDS", InvalidArgument;
    /// Fields have values that do not go with other resources, or with the network, as they are now; the violations name
    /// them.
    UnmetFields => "UNMET_FIELDS", FailedPrecondition;
    /// Fields ask for what this release does not support; the violations name them.
    UnsupportedFields => "UNSUPPORTED_FIELDS", Unimplemented;
    /// Fields have values that another resource has; the violations name them.
    TakenFields => "TAKEN_FIELDS", AlreadyExists;
    /// The object does not exist, or is not the caller's.
    NotFound => "NOT_FOUND", NotFound;
    /// The object is being deleted.
    BeingDeleted => "BEING_DELETED", FailedPrecondition;
    /// The object was changed since the given etag.
    EtagMismatch => "ETAG_MISMATCH", FailedPrecondition;
    /// Another resource uses it.
    InUse => "IN_USE", FailedPrecondition;
    /// It has children, and the request does not cascade.
    HasChildren => "HAS_CHILDREN", FailedPrecondition;
    /// The node does not allow it in its state.
    NodeState => "NODE_STATE", FailedPrecondition;
    /// OVN carries the listener, and knows nothing of its connections.
    NotProxied => "NOT_PROXIED", FailedPrecondition;
    /// A limit of the API would be exceeded.
    LimitExceeded => "LIMIT_EXCEEDED", ResourceExhausted;
    /// The operation runs for somebody else, and runs once at a time.
    Busy => "BUSY", ResourceExhausted;
    /// The reader of a watch took no event for a minute.
    SlowReader => "SLOW_READER", ResourceExhausted;
    /// The store is full, or the write too large for it.
    StoreFull => "STORE_FULL", ResourceExhausted;
    /// Other writes to the same load balancer came first each time.
    Contended => "CONTENDED", Aborted;
    /// The store cannot be reached.
    StoreUnavailable => "STORE_UNAVAILABLE", Unavailable;
    /// The northbound database cannot be reached, or was never seen.
    NorthboundUnavailable => "NORTHBOUND_UNAVAILABLE", Unavailable;
    /// No plugin leads, or the leader cannot be asked.
    LeaderUnavailable => "LEADER_UNAVAILABLE", Unavailable;
    /// The store's answer was lost: the write may have been carried out.
    OutcomeUnknown => "OUTCOME_UNKNOWN", Unknown;
    /// A fault of FiberLB.
    Internal => "INTERNAL", Internal;
}

impl ErrorReason {
    /// Time after which the same call can succeed, if it can without any other change.
    pub const fn retry_after(self) -> Option<Duration> {
        match self {
            Self::Contended => Some(Duration::from_millis(100)),
            Self::Busy | Self::StoreUnavailable | Self::NorthboundUnavailable | Self::LeaderUnavailable => {
                Some(Duration::from_secs(1))
            }
            _ => None,
        }
    }
}

/// Object of a failure that no field of the request is to blame for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ErrorObject {
    /// A resource.
    Resource(Kind, Uuid),
    /// A proxy node, by its id.
    Node(String),
    /// A limit, by its name in the settings.
    Limit(Cow<'static, str>),
}

/// Failure of a use case.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// Stable code.
    pub reason: ErrorReason,
    /// Sentence for the caller: what failed, and what to do.
    pub message: String,
    /// Everything that is wrong with the request, with its field; empty where that is not the reason.
    pub violations: Vec<Violation>,
    /// Object of the failure, where there is one.
    pub concern: Option<ErrorObject>,
}

impl ApiError {
    /// An error without violations.
    pub fn new(reason: ErrorReason, message: impl Into<String>) -> Self {
        let message = truncated(&message.into(), MESSAGE_BYTES).into_owned();
        Self { reason, message, violations: Vec::new(), concern: None }
    }

    /// An error about a resource.
    pub fn about(reason: ErrorReason, kind: Kind, id: Uuid, message: impl Into<String>) -> Self {
        Self { concern: Some(ErrorObject::Resource(kind, id)), ..Self::new(reason, message) }
    }

    /// Error for a limit that would be exceeded, by its name in the settings.
    pub fn limit(name: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        let concern = Some(ErrorObject::Limit(name.into()));
        Self { concern, ..Self::new(ErrorReason::LimitExceeded, message) }
    }

    /// Error for a resource that does not exist, or is not the principal's.
    pub fn not_found(kind: Kind, id: Uuid) -> Self {
        Self::about(ErrorReason::NotFound, kind, id, format!("there is no {} {id}", kind.words()))
    }

    /// Kind of failure.
    pub fn kind(&self) -> ErrorKind {
        self.reason.kind()
    }

    /// Rejects a request with violations, for the worst kind among them: invalid, then unmet, taken, unsupported. All of
    /// them are in the error.
    ///
    /// # Errors
    /// The violations.
    pub fn check(violations: Violations) -> Result<(), Self> {
        let Some(worst) = violations.worst() else { return Ok(()) };
        let reason = match worst {
            ViolationKind::Invalid => ErrorReason::InvalidFields,
            ViolationKind::Unmet => ErrorReason::UnmetFields,
            ViolationKind::Taken => ErrorReason::TakenFields,
            ViolationKind::Unsupported => ErrorReason::UnsupportedFields,
        };
        let mut others = violations.others();
        let found = violations.into_vec();
        let count = fitting(found.iter().map(|it| it.field.len() + it.description.len()), VIOLATION_BYTES);
        let lines: Vec<String> = found.iter().map(|it| format!("{}: {}", it.field, it.description)).collect();
        let shown = fitting(lines.iter().map(String::len), MESSAGE_BYTES);
        others += lines.len() - shown;
        let more = (others > 0).then(|| format!("and {others} more"));
        let message = lines.into_iter().take(shown).chain(more).collect::<Vec<_>>().join("; ");
        let violations = found.into_iter().take(count).collect();
        Err(Self { reason, message, violations, concern: None })
    }

    /// Rejects one field.
    pub fn invalid(field: &str, why: impl Into<String>) -> Self {
        let mut violations = Violations::default();
        violations.push(ViolationKind::Invalid, field, why);
        let invalid = Self::new(ErrorReason::InvalidFields, String::new());
        Self::check(violations).err().unwrap_or(invalid)
    }
}

/// Number of the first texts, at least one, that together have at most so many bytes.
fn fitting(lengths: impl Iterator<Item = usize>, most: usize) -> usize {
    let sums = lengths.scan(0_usize, |sum, length| {
        *sum = sum.saturating_add(length);
        Some(*sum)
    });
    sums.zip(0..).take_while(|(sum, index)| *sum <= most || *index == 0).count()
}

impl fmt::Display for ErrorReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<WriteError> for ApiError {
    fn from(error: WriteError) -> Self {
        match &error {
            WriteError::Contended => Self::new(ErrorReason::Contended, error.to_string()),
            WriteError::User(UserError::InUse { .. }) => Self::new(ErrorReason::InUse, error.to_string()),
            WriteError::User(UserError::Missing { .. }) => {
                Self::new(ErrorReason::NotFound, error.to_string())
            }
            WriteError::Encode { .. } | WriteError::User(UserError::Malformed { .. }) => {
                Self::new(ErrorReason::Internal, error.to_string())
            }
            WriteError::Store(failed) => failed.into(),
        }
    }
}

impl From<&CommitError> for ApiError {
    fn from(error: &CommitError) -> Self {
        let reason = match error {
            CommitError::Conflict { .. } => ErrorReason::Contended,
            CommitError::Invalid(_) | CommitError::Full(_) => ErrorReason::StoreFull,
            CommitError::Unavailable(_) => ErrorReason::StoreUnavailable,
            CommitError::Unknown(_) => ErrorReason::OutcomeUnknown,
        };
        Self::new(reason, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::resources::Form;

    fn checked(record: impl FnOnce(&mut Form<'_>)) -> Result<(), ApiError> {
        let mut violations = Violations::default();
        record(&mut Form::new("", &mut violations));
        ApiError::check(violations)
    }

    #[test]
    fn all_violations_come_back_with_their_fields() {
        let error = checked(|form| {
            form.invalid("port", "must be 1 to 65535");
            form.unsupported("tls", "TLS");
        });
        let error = error.unwrap_err();
        assert_eq!(error.reason, ErrorReason::InvalidFields);
        assert_eq!(error.message, "port: must be 1 to 65535; tls: TLS is not supported yet");
        assert_eq!(error.violations.len(), 2);
    }

    #[test]
    fn as_many_violations_are_shown_as_fit() {
        let many =
            checked(|form| (0..60).for_each(|_| form.invalid("port", "must be 1 to 65535"))).unwrap_err();
        assert!(many.message.ends_with("; and 28 more"), "{}", many.message);
        assert_eq!(many.violations.len(), 50);
    }

    #[test]
    fn the_worst_violation_gives_the_code() {
        let unmet = checked(|form| {
            form.unmet("network", "there is none");
            form.taken("port", "taken");
        });
        assert_eq!(unmet.unwrap_err().kind(), ErrorKind::FailedPrecondition);
        let invalid = checked(|form| {
            form.unmet("network", "there is none");
            form.invalid("port", "must be 1 to 65535");
        });
        assert_eq!(invalid.unwrap_err().kind(), ErrorKind::InvalidArgument);
        let taken = checked(|form| form.taken("port", "taken")).unwrap_err();
        assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
        let mixed = checked(|form| {
            form.taken("port", "taken");
            form.unsupported("protocol", "HTTP");
        });
        assert_eq!(mixed.unwrap_err().kind(), ErrorKind::AlreadyExists);
        let unsupported = checked(|form| form.unsupported("protocol", "HTTP"));
        assert_eq!(unsupported.unwrap_err().kind(), ErrorKind::Unimplemented);
        assert_eq!(checked(|_| {}), Ok(()));
    }

    #[test]
    fn no_two_reasons_share_a_name() {
        let names: BTreeSet<&str> = ErrorReason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(names.len(), ErrorReason::ALL.len());
    }
}
