//! Running a command to its end, with a limit on its time. Knows no lab.

use std::time::Duration;

use fiberlb_ovn_release::Release;
use tokio::process::Command;
use tokio::time::timeout;

use crate::error::{LabError, Result, command_line};

/// The longest that a command of the lab may take. Far above what one needs, so that only a hang meets it.
pub const COMMAND_LIMIT: Duration = Duration::from_secs(90);

/// A command that finds OVN's programs: those of the chosen release.
pub fn command(program: &str) -> Command {
    // Without a release nothing was started that could be asked.
    Release::chosen().map_or_else(|_| Command::new(program), |release| release.command(program).into())
}

/// Runs `command` and gives its standard output. A status other than 0 is an error with what it said.
pub async fn run(mut command: Command, limit: Duration) -> Result<String> {
    command.stdin(std::process::Stdio::null()).kill_on_drop(true);
    let output = match timeout(limit, command.output()).await {
        Ok(output) => output.map_err(LabError::io(command_line(command.as_std())))?,
        Err(_) => {
            return Err(LabError::Timeout { what: command_line(command.as_std()), after: limit });
        }
    };
    if !output.status.success() {
        return Err(LabError::command(command.as_std(), &output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Waits until `condition` gives something, looking every few milliseconds.
pub async fn until<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Result<T> {
    let poll = async {
        loop {
            if let Some(found) = condition() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let late = |_| LabError::Timeout { what: what.to_owned(), after: limit };
    timeout(limit, poll).await.map_err(late)
}

/// The same for a condition that must itself be waited for.
pub async fn until_async<T>(
    what: &str,
    limit: Duration,
    mut condition: impl AsyncFnMut() -> Option<T>,
) -> Result<T> {
    let poll = async {
        loop {
            if let Some(found) = condition().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let late = |_| LabError::Timeout { what: what.to_owned(), after: limit };
    timeout(limit, poll).await.map_err(late)
}
