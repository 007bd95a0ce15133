//! Frame of a daemon's `main`: the log and the signals that are there before its work begins, and the status with which it ends.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Command;

use super::logs::{LogSettings, print_failure};
use super::settings;
use super::signals::{ReloadSignal, StopSignals};

/// Exit status for settings that cannot be right, as clap has it for the command line: systemd does not start the daemon again.
const UNUSABLE: u8 = 2;

/// Reason why a daemon, or one of its commands, ends.
#[derive(Debug)]
pub enum Failure {
    /// Its settings cannot be right: status 2.
    Unusable(anyhow::Error),
    /// Its work failed: status 1.
    Failed(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// Exit status for an outcome. Prints the reason of a failure on standard error.
pub fn end(outcome: Result<ExitCode, Failure>) -> ExitCode {
    let (status, error) = match outcome {
        Ok(status) => return status,
        Err(Failure::Unusable(error)) => (ExitCode::from(UNUSABLE), error),
        Err(Failure::Failed(error)) => (ExitCode::FAILURE, error),
    };
    print_failure(&format!("{error:#}"));
    status
}

/// Variables of the environment that a daemon reads: settings without one are logged when it starts.
#[derive(Debug)]
pub struct Variables<'a> {
    /// Command line, whose options name the variables that there are.
    pub command: Command,
    /// Beginning of their names.
    pub prefix: &'a str,
    /// Beginnings that are other programs'.
    pub others: &'a [&'a str],
}

/// Starts to log, and to handle signals: SIGHUP sets the log filter that `load` returns. `file` is the settings file that was read.
///
/// Must be called on a tokio runtime with signals.
///
/// # Errors
/// The log filter cannot be read, logging has started already, or the kernel refuses a handler.
pub fn start<E: std::fmt::Display>(
    log: &LogSettings,
    file: Option<&Path>,
    variables: &Variables<'_>,
    load: impl Fn() -> Result<LogSettings, E> + Send + 'static,
) -> anyhow::Result<StopSignals> {
    let logs = log.start()?;
    settings::log_source(file);
    settings::log_unknown_variables(&variables.command, variables.prefix, variables.others);
    let reload = ReloadSignal::install().context("cannot handle signals")?;
    tokio::spawn(logs.reload_on(reload, move || load().map_err(|error| format!("{error:#}"))));
    StopSignals::install().context("cannot handle signals")
}
