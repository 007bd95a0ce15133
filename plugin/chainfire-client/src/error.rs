//! Errors, in words that tell the operator what to do; and the meaning of each answer of a member.

use std::error::Error as StdError;
use std::time::Duration;

use tonic::{Code, Status};

/// A call failed. Only [`Error::Unknown`] leaves open whether something was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A setting cannot be used.
    #[error("{0}")]
    Config(String),
    /// No endpoint could be connected.
    #[error(
        "no endpoint of the cluster can be reached ({0}): check the addresses, that the members run, and, with TLS, that \
         certificates are in date and from the configured CA"
    )]
    Unreachable(String),
    /// The cluster does not know the user or the password is another one.
    #[error("the cluster refuses user {0:?}: check user and password")]
    Credentials(String),
    /// The user may not do this.
    #[error(
        "the cluster denies it ({0}): grant the user's role read and write on the keys, or give other credentials"
    )]
    Denied(String),
    /// A majority of the members is away.
    #[error(
        "the cluster has no leader ({0}): a majority of its members is down or cannot reach each other; bring them back"
    )]
    NoLeader(String),
    /// A read was not answered in time.
    #[error("no answer from the cluster within {} ms ({reason}): is a majority of its members up and reachable?", after.as_millis())]
    Deadline {
        /// The time that the call had.
        after: Duration,
        /// Failure of the last attempt.
        reason: String,
    },
    /// A write was sent and its answer was lost: it may have happened, or happen yet.
    #[error("it is unknown whether it was written: {0}")]
    Unknown(String),
    /// The revision is no longer kept.
    #[error("revisions before {oldest} are compacted: read anew and go on from there")]
    Compacted {
        /// The oldest revision that is still kept; 0 if the member does not report it.
        oldest: u64,
    },
    /// The request is larger than a member takes.
    #[error("the request is too large: {0}")]
    TooLarge(String),
    /// The answer is larger than this client takes.
    #[error("the answer is too large: {0}")]
    AnswerTooLarge(String),
    /// The database's quota is used up.
    #[error(
        "the cluster's database is full ({0}): compact and defragment it, raise its quota, then disarm the alarm"
    )]
    NoSpace(String),
    /// The lease is gone: it expired or was revoked.
    #[error("the lease is gone: it expired or was revoked")]
    LeaseGone,
    /// The request cannot be carried out, now or later.
    #[error("the cluster refuses the request: {0}")]
    Refused(String),
    /// The answer makes no sense.
    #[error("the answer is not one of the etcd v3 API ({0}): is the endpoint a member of the cluster?")]
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
pub(crate) enum Verdict {
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

/// Meaning of `status` for a request of this kind.
pub(crate) fn judge(access: Access, status: &Status) -> Verdict {
    let text = status.message();
    let says = |words: &str| text.contains(words);
    if STALE_TOKEN.iter().any(|words| says(words)) {
        return Verdict::Reauthenticate;
    }
    if NO_LEADER.iter().any(|words| says(words)) {
        return Verdict::Retry(Error::NoLeader(text.to_owned()));
    }
    if was_never_sent(status) {
        return Verdict::Retry(Error::Unreachable(describe(status)));
    }
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated => Verdict::Fail(Error::Denied(text.to_owned())),
        Code::ResourceExhausted if says("database space exceeded") => {
            Verdict::Fail(Error::NoSpace(text.to_owned()))
        }
        Code::ResourceExhausted if says("too many requests") => {
            Verdict::Retry(Error::Deadline { after: Duration::ZERO, reason: text.to_owned() })
        }
        Code::ResourceExhausted => Verdict::Fail(Error::TooLarge(text.to_owned())),
        Code::OutOfRange if says("compacted") => Verdict::Fail(Error::Compacted { oldest: 0 }),
        Code::OutOfRange if says("message length too large") => {
            Verdict::Fail(Error::AnswerTooLarge(text.to_owned()))
        }
        Code::InvalidArgument if says("too large") || says("too many operations") => {
            Verdict::Fail(Error::TooLarge(text.to_owned()))
        }
        Code::InvalidArgument if says("user name is empty") => {
            Verdict::Fail(Error::Denied("the cluster asks for user and password".to_owned()))
        }
        Code::NotFound if says("lease not found") => Verdict::Fail(Error::LeaseGone),
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange | Code::NotFound => {
            Verdict::Fail(Error::Refused(text.to_owned()))
        }
        Code::Unimplemented => Verdict::Fail(Error::Protocol(describe(status))),
        _ => lost(access, describe(status)),
    }
}

/// Meaning of a lost answer.
pub(crate) fn lost(access: Access, reason: String) -> Verdict {
    match access {
        Access::Read => Verdict::Retry(Error::Deadline { after: Duration::ZERO, reason }),
        Access::Write => Verdict::Fail(Error::Unknown(reason)),
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
        match judge(access, &Status::new(code, text)) {
            Verdict::Fail(error) => error,
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
            let read = judge(Access::Read, &Status::new(code, text));
            assert!(matches!(read, Verdict::Retry(Error::Deadline { .. })), "{text}");
        }
    }

    #[test]
    fn what_was_not_carried_out_is_tried_again() {
        for text in ["etcdserver: no leader", "raft proposal dropped"] {
            let verdict = judge(Access::Write, &Status::new(Code::Unavailable, text));
            assert!(matches!(verdict, Verdict::Retry(Error::NoLeader(_))), "{text}");
        }
        let stale = Status::new(Code::Unauthenticated, "etcdserver: invalid auth token");
        assert_eq!(judge(Access::Write, &stale), Verdict::Reauthenticate);
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
