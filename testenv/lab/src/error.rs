//! Errors of a lab, worded for the reader of a failed test.

use std::fmt::Write as _;
use std::io;
use std::process::Output;
use std::time::Duration;

/// An error of the lab itself, never of what is tested in it.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// This machine cannot run a lab.
    #[error("this machine cannot run a lab: {0}")]
    Unavailable(String),
    /// A command ended with a failure.
    #[error("`{command}` failed ({status}): {stderr}")]
    Command {
        /// The command line, for reading and pasting.
        command: String,
        /// Its exit status as the system words it.
        status: String,
        /// Its standard error, or its standard output where that is empty.
        stderr: String,
    },
    /// Something awaited did not come.
    #[error("waited {after:?} in vain for {what}")]
    Timeout {
        /// Awaited event.
        what: String,
        /// For how long.
        after: Duration,
    },
    /// The operating system refused something.
    #[error("{what}: {source}")]
    Io {
        /// Attempted operation.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The test requested something impossible.
    #[error("{what} {value:?}: {reason}")]
    Invalid {
        /// Kind of value, such as "address of VM vm1".
        what: String,
        /// The value as given.
        value: String,
        /// Reason of the refusal.
        reason: String,
    },
    /// A daemon logged an emergency, such as an assertion that failed in ovs-vswitchd.
    #[error("a daemon of the lab logged an emergency:\n{0}")]
    Emergency(String),
}

/// Result of everything in the lab.
pub type Result<T> = std::result::Result<T, LabError>;

impl LabError {
    /// For `map_err` on an `io::Result`.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> LabError {
        let what = what.into();
        move |source| LabError::Io { what, source }
    }

    pub(crate) fn invalid(
        what: impl Into<String>,
        value: impl Into<String>,
        reason: impl Into<String>,
    ) -> LabError {
        LabError::Invalid { what: what.into(), value: value.into(), reason: reason.into() }
    }

    pub(crate) fn command(command: &std::process::Command, output: &Output) -> LabError {
        let said = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
        LabError::Command {
            command: command_line(command),
            status: output.status.to_string(),
            stderr: String::from_utf8_lossy(said).trim().to_owned(),
        }
    }
}

/// The command as one would type it, without any claim to exact quoting.
pub(crate) fn command_line(command: &std::process::Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        // A write to a String cannot fail.
        let _ = write!(line, " {}", argument.to_string_lossy());
    }
    line
}
