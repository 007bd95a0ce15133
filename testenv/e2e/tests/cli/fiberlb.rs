//! The command, and what a run of it leaves.

use std::path::Path;
use std::process::Stdio;

use fiberlb_lab::workspace_binary;
use serde_json::Value;
use tokio::process::Command;

/// Result of a run of the command.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    /// Its output, if it succeeded.
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// Its output as JSON, if it succeeded.
    pub(crate) fn json(self) -> Value {
        serde_json::from_str(&self.ok()).unwrap()
    }

    /// The lines of its standard error, if it failed with `code` and without a result.
    pub(crate) fn failed(self, code: i32) -> Vec<String> {
        assert_eq!((self.code, self.out.as_str()), (code, ""), "{self:?}");
        self.err.lines().map(str::to_owned).collect()
    }
}

/// The command, for a plugin at this URL, with nothing of its surroundings.
pub(crate) fn command(url: &str, args: &[&str]) -> Command {
    let mut command = Command::new(workspace_binary("fiberlb").unwrap());
    command.env_clear().env("FIBERLB_ENDPOINT", url).args(args);
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs the command to its end.
pub(crate) async fn run(url: &str, args: &[&str]) -> Ran {
    finish(command(url, args)).await
}

/// Runs the command with a file as its standard input.
pub(crate) async fn run_with_input(url: &str, args: &[&str], input: &Path) -> Ran {
    let mut command = command(url, args);
    command.stdin(std::fs::File::open(input).unwrap());
    finish(command).await
}

async fn finish(mut command: Command) -> Ran {
    let output = command.output().await.unwrap();
    Ran {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}
