//! Errors, with suggestions for the operator; and the classification of the statuses of members.

use std::error::Error as StdError;
use std::time::Duration;

use tonic::{Code, Status};

/// Failure of a call. Only [`Error::Unknown`] leaves open whether something was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Setting that cannot be used.
    #[error("{0}")]
    Config(String),
    /// No endpoint could be connected.
    #[error(
        "no endpoint of the cluster can be reached ({0}): check the addresses, that the members run, and, with TLS, that \
         certificates are valid and issued by the configured CA"
    )]
    Unreachable(String),
    /// User that the cluster does not know, or whose password differs.
    #[error("the cluster refuses user {0:?}: check user and password")]
    Credentials(String),
    /// Request that the user is not permitted to make.
    #[error(
        "the cluster denies it ({0}): grant the user's role read and write on the keys, or configure other credentials"
    )]
    Denied(String),
    /// Cluster without a majority of members.
    #[error(
        "the cluster has no leader ({0}): a majority of its members is down or cannot reach each other; bring them back"
    )]
    NoLeader(String),
    /// Read that was not answered in time.
    #[error("no answer from the cluster within {} ms ({reason}): check that a majority of its members is up and reachable", after.as_millis())]
    Deadline {
        /// Timeout of the call.
        after: Duration,
        /// Failure of the last attempt.
        reason: String,
    },
    /// Write whose answer was lost: it may have happened, or may happen later.
    #[error("it is unknown whether it was written: {0}")]
    Unknown(String),
    /// Revision that was compacted.
    #[error("revisions before {oldest} are compacted: read a new snapshot and continue from there")]
    Compacted {
        /// Oldest revision that is kept; 0 if the member does not report it.
        oldest: u64,
    },
    /// Request above the limits of a member.
    #[error("the request is too large: {0}")]
    TooLarge(String),
    /// Answer above the limits of this client.
    #[error("the answer is too large: {0}")]
    AnswerTooLarge(String),
    /// Database whose quota is exhausted.
    #[error(
        "the cluster's database is full ({0}): compact and defragment it, raise its quota, then disarm the alarm"
    )]
    NoSpace(String),
    /// Lease that expired or was revoked.
    #[error("the lease is gone: it expired or was revoked")]
    LeaseGone,
    /// Request that cannot succeed, now or later.
    #[error("the cluster refuses the request: {0}")]
    Refused(String),
    /// Answer that the etcd v3 API does not allow.
    #[error(
        "the answer is not one of the etcd v3 API ({0}): check that the endpoint is a member of the cluster"
    )]
    Protocol(String),
}

/// Kind of a request: a write changes something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// Next step after a failed attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Disposition {
    /// Nothing was carried out, or it does not matter: retry, on another member.
    Retry(Error),
    /// The token is no longer valid, nothing was carried out: authenticate and retry.
    Reauthenticate,
    /// The answer is final.
    Fail(Error),
}

/// Messages of members that are sent before a request is carried out.
const NO_LEADER: [&str; 2] = ["etcdserver: no leader", "raft proposal dropped"];
const STALE_TOKEN: [&str; 2] = ["invalid auth token", "revision of auth store is old"];

/// Classifies the status of a request of this kind.
pub(crate) fn classify(access: Access, status: &Status) -> Disposition {
    let text = status.message();
    let says = |words: &str| text.contains(words);
    if STALE_TOKEN.iter().any(|words| says(words)) {
        return Disposition::Reauthenticate;
    }
    if NO_LEADER.iter().any(|words| says(words)) {
        return Disposition::Retry(Error::NoLeader(text.to_owned()));
    }
    if was_never_sent(status) {
        return Disposition::Retry(Error::Unreachable(describe(status)));
    }
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => Disposition::Fail(Error::Denied(text.to_owned())),
        Code::ResourceExhausted if says("database space exceeded") => {
            Disposition::Fail(Error::NoSpace(text.to_owned()))
        }
        Code::ResourceExhausted if says("too many requests") => {
            Disposition::Retry(Error::Deadline { after: Duration::ZERO, reason: text.to_owned() })
        }
        Code::ResourceExhausted => Disposition::Fail(Error::TooLarge(text.to_owned())),
        Code::OutOfRange if says("compacted") => Disposition::Fail(Error::Compacted { oldest: 0 }),
        Code::OutOfRange if says("message length too large") => {
            Disposition::Fail(Error::AnswerTooLarge(text.to_owned()))
        }
        Code::InvalidArgument if says("too large") || says("too many operations") => {
            Disposition::Fail(Error::TooLarge(text.to_owned()))
        }
        Code::InvalidArgument if says("user name is empty") => {
            Disposition::Fail(Error::Denied("the cluster asks for user and password".to_owned()))
        }
        Code::NotFound if says("lease not found") => Disposition::Fail(Error::LeaseGone),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange | Code::NotFound => {
            Disposition::Fail(Error::Refused(text.to_owned()))
        }
        Code::Unimplemented => Disposition::Fail(Error::Protocol(describe(status))),
        _ => lost(access, describe(status)),
    }
}

/// Meaning of a lost answer.
pub(crate) fn lost(access: Access, reason: String) -> Disposition {
    match access {
        Access::Read => Disposition::Retry(Error::Deadline { after: Duration::ZERO, reason }),
        Access::Write => Disposition::Fail(Error::Unknown(reason)),
    }
}

/// Returns true if the connection could not be made, so that no byte of the request was sent.
fn was_never_sent(status: &Status) -> bool {
    chain(status).any(|error| error.is::<tonic::ConnectError>())
}

/// The status with all its causes: the cause of a failed connection is among them.
pub(crate) fn describe(status: &Status) -> String {
    let own =
        if status.message().is_empty() { status.code().to_string() } else { status.message().to_owned() };
    with_causes(own, chain(status))
}

/// An error with all its causes.
pub(crate) fn describe_error(error: &(dyn StdError + 'static)) -> String {
    let causes = std::iter::successors(error.source(), cause);
    with_causes(error.to_string(), causes)
}

fn chain(status: &Status) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    std::iter::successors(status.source(), cause)
}

fn cause<'a>(error: &&'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    let error: &'a (dyn StdError + 'static) = *error;
    error.source()
}

fn with_causes<'a>(own: String, causes: impl Iterator<Item = &'a (dyn StdError + 'static)>) -> String {
    causes
        .map(ToString::to_string)
        .fold(own, |text, cause| if text.contains(&cause) { text } else { format!("{text}: {cause}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(access: Access, code: Code, text: &str) -> Error {
        match classify(access, &Status::new(code, text)) {
            Disposition::Fail(error) => error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_a_lost_answer_of_a_write_is_unknown() {
        for (code, text) in [
            (Code::Unavailable, "etcdserver: request timed out"),
            (Code::Unavailable, "etcdserver: leader changed"),
            (Code::Unavailable, "etcdserver: server stopped"),
            (Code::Unknown, "h2 protocol error"),
            (Code::Cancelled, "gone"),
            (Code::Internal, "what"),
        ] {
            assert!(matches!(fails(Access::Write, code, text), Error::Unknown(_)), "{text}");
            let read = classify(Access::Read, &Status::new(code, text));
            assert!(matches!(read, Disposition::Retry(Error::Deadline { .. })), "{text}");
        }
    }

    #[test]
    fn what_was_not_carried_out_is_tried_again() {
        for text in ["etcdserver: no leader", "raft proposal dropped"] {
            let disposition = classify(Access::Write, &Status::new(Code::Unavailable, text));
            assert!(matches!(disposition, Disposition::Retry(Error::NoLeader(_))), "{text}");
        }
        let stale = Status::new(Code::Unauthenticated, "etcdserver: invalid auth token");
        assert_eq!(classify(Access::Write, &stale), Disposition::Reauthenticate);
    }

    #[test]
    fn refusals_have_their_names() {
        let write = |code, text| fails(Access::Write, code, text);
        assert!(matches!(
            write(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
            Error::NoSpace(_)
        ));
        assert!(matches!(
            write(Code::InvalidArgument, "etcdserver: request is too large"),
            Error::TooLarge(_)
        ));
        assert!(matches!(
            write(Code::InvalidArgument, "etcdserver: too many operations in txn request"),
            Error::TooLarge(_)
        ));
        assert!(matches!(write(Code::PermissionDenied, "etcdserver: permission denied"), Error::Denied(_)));
        assert!(matches!(write(Code::NotFound, "etcdserver: requested lease not found"), Error::LeaseGone));
        assert!(matches!(write(Code::Unimplemented, "unknown service"), Error::Protocol(_)));
        let compacted =
            fails(Access::Read, Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted");
        assert!(matches!(compacted, Error::Compacted { .. }));
    }
}
