//! A bash that is given one command after another, as at a terminal, and tells how each one ends.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

use crate::sockets::children;

/// Stands around the status that is printed when a command has ended: no program prints it.
const MARK: char = '\u{1e}';
/// Longest wait for the end of an interrupted command.
const INTERRUPTED: Duration = Duration::from_secs(10);
/// Time between two interrupts.
const AGAIN: Duration = Duration::from_millis(300);

/// A session.
#[derive(Debug)]
pub(crate) struct Shell {
    child: Child,
    input: ChildStdin,
    pipe: pipe::Receiver,
    /// Output since the last command was typed.
    said: Vec<u8>,
    /// Of bash, as the host sees it.
    pid: u32,
}

/// Result of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) status: i32,
    /// Standard output and standard error together.
    pub(crate) output: String,
}

/// Predicate that tells from its output that a command has printed enough.
type Enough<'a> = &'a (dyn Fn(&str) -> bool + Sync);

impl Shell {
    /// Starts one. `command` ends in becoming bash, with or without processes that wait for it.
    pub(crate) async fn start(mut command: Command) -> Result<Self> {
        let (pipe, end) = std::io::pipe()?;
        command.stdin(std::process::Stdio::piped()).stdout(end.try_clone()?).stderr(end).kill_on_drop(true);
        let mut child = command.spawn().context("cannot start bash")?;
        drop(command);
        let input = child.stdin.take().context("bash has no standard input")?;
        let pipe = pipe::Receiver::from_owned_fd(OwnedFd::from(pipe))?;
        let outermost = child.id().context("bash has ended")?;
        let mut shell = Self { child, input, pipe, said: Vec::new(), pid: outermost };
        let begun = shell.run(":", Duration::from_secs(30)).await.context("bash does not begin")?;
        if begun.status != 0 {
            bail!("bash does not begin: {}", begun.output);
        }
        // nsenter waits for what it has started in another process namespace.
        shell.pid = children(outermost).first().copied().unwrap_or(outermost);
        Ok(shell)
    }

    /// The pid of bash, as the host sees it.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&mut self, text: &str, limit: Duration) -> Result<Ended> {
        self.type_in(text).await?;
        match self.read(limit, None).await? {
            Some(status) => Ok(Ended { status, output: self.output() }),
            None => bail!("it has not ended after {limit:?}; until then it said:\n{}", self.output()),
        }
    }

    /// Runs a command until it has printed enough, and interrupts it. Whatever it started is interrupted too, but for the
    /// processes in `spared`.
    pub(crate) async fn run_until(
        &mut self,
        text: &str,
        limit: Duration,
        enough: Enough<'_>,
        spared: &[u32],
    ) -> Result<Ended> {
        self.type_in(text).await?;
        let mut status = self.read(limit, Some(enough)).await?;
        if let Some(status) = status {
            bail!("it ended by itself with {status}, and said:\n{}", self.output());
        }
        let was_enough = enough(&self.output());
        let began = Instant::now();
        while status.is_none() && began.elapsed() < INTERRUPTED {
            // Once may be too early for what has not become its own program yet.
            self.interrupt(spared);
            status = self.read(AGAIN, None).await?;
        }
        match status {
            Some(status) if was_enough => Ok(Ended { status, output: self.output() }),
            Some(_) => bail!("it did not print that within {limit:?}; it said:\n{}", self.output()),
            None => bail!("it goes on {INTERRUPTED:?} after it was interrupted; it said:\n{}", self.output()),
        }
    }

    async fn type_in(&mut self, text: &str) -> Result<()> {
        self.said.clear();
        let line = format!("eval {} </dev/null\nprintf '\\n\\036%s\\036' \"$?\"\n", quoted(text));
        self.input.write_all(line.as_bytes()).await.context("bash has ended")?;
        Ok(self.input.flush().await?)
    }

    /// Reads until the command has ended, or has printed enough, or the time is over. Gives its status in the first case.
    async fn read(&mut self, limit: Duration, enough: Option<Enough<'_>>) -> Result<Option<i32>> {
        let whole = async {
            loop {
                let (status, output) = told(&self.said);
                if status.is_some() || enough.is_some_and(|enough| enough(&output)) {
                    return Ok(status);
                }
                if self.pipe.read_buf(&mut self.said).await? == 0 {
                    bail!("bash has ended: {output}");
                }
            }
        };
        timeout(limit, whole).await.unwrap_or(Ok(None))
    }

    fn output(&self) -> String {
        told(&self.said).1
    }

    fn interrupt(&self, spared: &[u32]) {
        for pid in descendants(self.pid, spared) {
            // One that ends just now needs no signal.
            let _ = i32::try_from(pid).map(|pid| kill(Pid::from_raw(pid), Signal::SIGINT));
        }
    }

    /// Ends it.
    pub(crate) async fn end(mut self) {
        drop(self.input);
        // One that does not end is killed when it is dropped.
        let _ = timeout(INTERRUPTED, self.child.wait()).await;
    }
}

/// Status of a command, once its mark is there, and its output.
fn told(said: &[u8]) -> (Option<i32>, String) {
    let text = String::from_utf8_lossy(said);
    let Some((output, rest)) = text.split_once(MARK) else { return (None, text.into_owned()) };
    let status = rest.split_once(MARK).and_then(|(status, _)| status.parse().ok());
    (status, output.strip_suffix('\n').unwrap_or(output).to_owned())
}

/// A word that bash takes as it is.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn descendants(pid: u32, spared: &[u32]) -> Vec<u32> {
    let own = children(pid).into_iter().filter(|child| !spared.contains(child));
    own.flat_map(|child| [child].into_iter().chain(descendants(child, spared))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    async fn bash() -> Shell {
        let mut command = Command::new("bash");
        command.args(["--noprofile", "--norc"]);
        Shell::start(command).await.unwrap()
    }

    #[tokio::test]
    async fn commands_are_one_session() {
        let mut shell = bash().await;
        assert_eq!(shell.run("export A='it'\\''s'; cd /", SOON).await.unwrap().status, 0);
        let ended = shell.run("echo \"$A $PWD\" # a comment", SOON).await.unwrap();
        assert_eq!(ended, Ended { status: 0, output: "it's /\n".to_owned() });
        let ended = shell.run("echo said >&2; printf end; (exit 3)", SOON).await.unwrap();
        assert_eq!(ended, Ended { status: 3, output: "said\nend".to_owned() });
        assert_ne!(shell.run("if", SOON).await.unwrap().status, 0);
        assert_eq!(shell.run("cat", SOON).await.unwrap().output, "");
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_given_up() {
        let failure = bash().await.run("echo begun; sleep 100", Duration::from_millis(300)).await;
        assert!(failure.unwrap_err().to_string().ends_with("begun\n"));
    }

    #[tokio::test]
    async fn a_command_is_interrupted_when_it_has_said_enough() {
        let mut shell = bash().await;
        let enough = |output: &str| output.contains("ready\n");
        let ended = shell.run_until("echo ready; sleep 100", SOON, &enough, &[]).await.unwrap();
        assert_eq!((ended.status, &*ended.output), (130, "ready\n"));
        assert_eq!(shell.run("echo on", SOON).await.unwrap().output, "on\n");
        let limit = Duration::from_millis(300);
        assert!(shell.run_until("sleep 100", limit, &enough, &[]).await.is_err());
        assert!(shell.run_until("false", SOON, &enough, &[]).await.is_err());
    }
}
