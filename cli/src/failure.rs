//! Failures and exit codes. Turns the statuses of the server into lines that a person can act on.

use std::io;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Exit code of a failure. 0 is success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 1: refusal of the server, or unreachable server.
    Error = 1,
    /// 2: invalid command line, or invalid file.
    Usage = 2,
    /// 3: the write is stored, but `--wait` timed out.
    TimedOut = 3,
    /// 4: `diff` has found differences.
    Different = 4,
}

/// All exit codes with their meanings, as the help and `docs/configuration.md` list them.
pub(crate) const EXIT_CODES: [(u8, &str); 5] = [
    (0, "done"),
    (
        Exit::Error as u8,
        "the server refused it, or is not reached; nothing or several have a name;
     what `--wait` waits for cannot come; `ovn verify`: there are differences",
    ),
    (Exit::Usage as u8, "the command line, or a file named on it, cannot be right; nothing was written"),
    (Exit::TimedOut as u8, "stored, but what `--wait` waits for did not come in time"),
    (Exit::Different as u8, "`diff`, `apply --dry-run --diff`: apply would change something"),
];

/// The end of a command that did not do what was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Exit code.
    pub(crate) exit: Exit,
    /// Messages, without trailing newlines.
    pub(crate) lines: Vec<String>,
}

impl Failure {
    /// Failure with [`Exit::Error`].
    pub(crate) fn error(line: impl Into<String>) -> Self {
        Self { exit: Exit::Error, lines: vec![line.into()] }
    }

    /// Failure with [`Exit::Usage`].
    pub(crate) fn usage(line: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, lines: vec![line.into()] }
    }

    /// Failure with [`Exit::TimedOut`].
    pub(crate) fn timed_out(lines: Vec<String>) -> Self {
        Self { exit: Exit::TimedOut, lines }
    }

    /// The same failure, each line prefixed with `what` it is about.
    pub(crate) fn about(mut self, what: &str) -> Self {
        for line in &mut self.lines {
            *line = format!("{what}: {line}");
        }
        self
    }

    /// Failure of a status, with a line for each field violation. `flag_of` maps a field path to the flag that sets it.
    pub(crate) fn of_status(status: &Status, flag_of: impl Fn(&str) -> Option<String>) -> Self {
        let violations = field_violations(status);
        let lines = if violations.is_empty() {
            vec![plain(status)]
        } else {
            let line = |field: &str, why: &str| match flag_of(field) {
                Some(flag) => format!("{flag}: {why}"),
                None if field.is_empty() => why.to_owned(),
                None => format!("{field}: {why}"),
            };
            violations.iter().map(|(field, why)| line(field, why)).collect()
        };
        Self { exit: Exit::Error, lines }
    }

    /// Failure to connect to `endpoint`.
    pub(crate) fn unreachable(endpoint: &str, error: &dyn std::error::Error) -> Self {
        let cause = innermost(error);
        Self::error(format!(
            "cannot reach the FiberLB plugin at {endpoint} ({cause}): check that it is running and that its API is there, or \
             set --endpoint or FIBERLB_ENDPOINT"
        ))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        // A reader such as `head` may close the pipe early.
        let is_closed = error.kind() == io::ErrorKind::BrokenPipe;
        let lines = if is_closed { Vec::new() } else { vec![format!("cannot write the output: {error}")] };
        Self { exit: Exit::Error, lines }
    }
}

/// Part of the text of tonic about an answer that HTTP has a status of its own for, and gRPC none.
const NO_GRPC: &str = "while receiving response with status: ";

/// Reason of violations of fields by the state of other resources or of the network.
const UNMET: &str = "UNMET_FIELDS";

/// Fields that the server refuses, with their descriptions.
fn field_violations(status: &Status) -> Vec<(String, String)> {
    let details = status.get_error_details();
    let wrong = details.bad_request().into_iter().flat_map(|it| &it.field_violations);
    let wrong = wrong.map(|it| (it.field.clone(), it.description.clone()));
    let unmet = details.precondition_failure().into_iter().flat_map(|it| &it.violations);
    let unmet = unmet.filter(|it| it.r#type == UNMET).map(|it| (it.subject.clone(), it.description.clone()));
    wrong.chain(unmet).collect()
}

/// Status without field violations, as one line with the kind of the error.
fn plain(status: &Status) -> String {
    let message = if status.message().is_empty() { "the server gave no reason" } else { status.message() };
    match status.code() {
        Code::NotFound => format!("not found: {message}"),
        Code::AlreadyExists => format!("already exists: {message}"),
        Code::Unimplemented => format!("not supported by this server: {message}"),
        Code::Unavailable => format!("the server is unavailable, try again: {message}"),
        Code::DeadlineExceeded => format!("no response within --timeout: {message}"),
        Code::FailedPrecondition => format!("refused: {message}"),
        Code::ResourceExhausted => format!("limit reached: {message}"),
        Code::Unauthenticated => format!("not authenticated: {message}"),
        Code::PermissionDenied => format!("not permitted: {message}"),
        Code::InvalidArgument => format!("invalid: {message}"),
        _ if message.contains(NO_GRPC) => {
            "what answers there is not FiberLB's API: check --endpoint and FIBERLB_ENDPOINT".to_owned()
        }
        code => format!("{code:?}: {message}"),
    }
}

/// Root cause: the outer errors are only "transport error".
fn innermost(error: &dyn std::error::Error) -> String {
    let mut current = error;
    while let Some(next) = current.source() {
        current = next;
    }
    current.to_string()
}

#[cfg(test)]
mod tests {
    use tonic_types::{ErrorDetails, FieldViolation};

    use super::*;

    #[test]
    fn each_violation_is_a_line_with_its_flag_or_its_field() {
        let mut details = ErrorDetails::new();
        details.set_bad_request(vec![
            FieldViolation::new("port", "must be 1 to 65535"),
            FieldViolation::new("x", "bad"),
        ]);
        let status = Status::with_error_details(Code::InvalidArgument, "two things", details);
        let failure = Failure::of_status(&status, |field| (field == "port").then(|| "--port".to_owned()));
        assert_eq!(failure.lines, ["--port: must be 1 to 65535", "x: bad"]);
        assert_eq!(failure.exit, Exit::Error);
    }

    #[test]
    fn a_status_without_details_names_its_kind() {
        let failure = Failure::of_status(&Status::not_found("load balancer 1"), |_| None);
        assert_eq!(failure.lines, ["not found: load balancer 1"]);
    }
}
