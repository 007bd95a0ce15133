//! A process of ours in the lab: in a network namespace of it, and in its mount and process namespaces, so that everything
//! it makes is in the lab and ends with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::run::until;
use crate::world::World;

/// Longest wait for the process to be there. Only a hang meets it.
const STARTED: Duration = Duration::from_secs(60);

/// Program with its place in a lab.
#[derive(Debug, Clone)]
pub struct Program {
    /// Of what it is part.
    pub world: World,
    /// The network namespace, by name.
    pub netns: String,
    /// For people, and for its log, which is `/run/log/NAME.log` in the world.
    pub name: String,
    /// The program's file.
    pub binary: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// A process that runs, or is to run again. It is killed when this is dropped, and when the lab ends.
#[derive(Debug)]
pub struct Process {
    program: Program,
    /// `nsenter`, which waits for the process.
    child: Child,
    /// The process' own pid as the host sees it.
    pid: u32,
}

/// Resources that a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of memory in use (resident set).
    pub memory: u64,
    /// Open file descriptors.
    pub descriptors: u64,
}

impl Process {
    /// Starts it.
    ///
    /// # Errors
    /// It cannot be started, or ends at once.
    pub async fn start(program: Program) -> Result<Self> {
        let (child, pid) = spawn(&program).await?;
        Ok(Self { program, child, pid })
    }

    /// Starts it again with the same arguments.
    ///
    /// # Errors
    /// As [`Process::start`].
    pub async fn start_again(&mut self) -> Result<()> {
        (self.child, self.pid) = spawn(&self.program).await?;
        Ok(())
    }

    /// Has the next [`Process::start_again`] run another file of the same name, as an upgrade does.
    pub fn replace_binary(&mut self, binary: PathBuf) {
        self.program.binary = binary;
    }

    /// Program that it runs.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// Its process id as the host sees it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Kills it (SIGKILL) and waits for its end.
    ///
    /// # Errors
    /// It is not there.
    pub fn kill(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        self.wake_nsenter()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to stop (SIGTERM) and waits for its end.
    ///
    /// # Errors
    /// It is not there, or ends with a failure.
    pub fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "{} ended with {status}", self.program.name);
        Ok(())
    }

    /// Freezes it (SIGSTOP): its sockets stay open, and nobody answers.
    ///
    /// # Errors
    /// It is not there.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets a frozen one go on (SIGCONT).
    ///
    /// # Errors
    /// It is not there.
    pub fn resume(&self) -> Result<()> {
        self.wake_nsenter()?;
        self.signal(Signal::SIGCONT)
    }

    /// True while it runs.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Resources that it holds now.
    ///
    /// # Errors
    /// It is not there.
    pub fn usage(&self) -> Result<Usage> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        let descriptors = fs::read_dir(format!("/proc/{}/fd", self.pid))?.count();
        Ok(Usage { memory: kib * 1024, descriptors: u64::try_from(descriptors)? })
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let sent = kill(Pid::from_raw(i32::try_from(self.pid)?), signal);
        sent.with_context(|| format!("{signal} to {}", self.program.name))
    }

    /// `nsenter` stops when its child does, and would not see its end.
    fn wake_nsenter(&self) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGCONT)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            // It may end on its own just now.
            let _ = self.kill();
        }
    }
}

async fn spawn(program: &Program) -> Result<(Child, u32)> {
    let Program { world, netns, name, binary, arguments } = program;
    let path = world.path(&format!("/run/log/{name}.log"));
    let log = fs::File::options().create(true).append(true).open(&path)?;
    let mut command = world.command(Some(netns), &binary.to_string_lossy()).into_std();
    command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let mut child = command.spawn().with_context(|| format!("cannot start {}", binary.display()))?;
    let started = until("the process", STARTED, || match child.try_wait() {
        Ok(None) => own_pid(child.id(), binary).map(Ok),
        _ => Some(Err(anyhow!("{name} ended at once: {}", end_of(&path)))),
    });
    let pid = started.await??;
    Ok((child, pid))
}

/// The pid of the process, which is the one child of `nsenter` once that has become it.
fn own_pid(nsenter: u32, binary: &Path) -> Option<u32> {
    let children = fs::read_to_string(format!("/proc/{nsenter}/task/{nsenter}/children")).ok()?;
    let pid: u32 = children.split_whitespace().next()?.parse().ok()?;
    let exe = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    (exe.file_name() == binary.file_name()).then_some(pid)
}

/// The last lines of a log.
pub(crate) fn end_of(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(5)..).unwrap_or_default().join("\n")
}
