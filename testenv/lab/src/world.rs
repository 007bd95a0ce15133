//! The private world of a lab: a process, mount and network namespace of its own, held by one pipe.
//!
//! The child of the test, `unshare`, starts a shell as PID 1 of the new world. The shell reads from a pipe that the
//! test process alone can write to. However the test process ends, the pipe ends too, the shell with it, and with
//! PID 1 the kernel takes every process, mount, namespace and link of the world away. Nobody has to clean up.
//!
//! `/run` is a private tmpfs: databases, sockets, logs and named network namespaces live there. From outside they are
//! `/proc/PID/root/run/...`, unix sockets too. Knows of OVN only that commands find its programs.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Stdio};

use fiberlb_node::netns::Netns;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::unix::pipe;
use tokio::process::Command;
use tokio::time::timeout;

use crate::error::{LabError, Result};
use crate::run::{self, COMMAND_LIMIT, run};
use crate::{procfs, scripts};

/// `$0` of PID 1 of each world, by which worlds are found in `/proc`.
pub(crate) const MARK: &str = "fiberlb-lab";

/// A world that exists, named by the host's pid of its PID 1. Having one does not keep it alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct World {
    name: String,
    init: u32,
}

impl World {
    pub(crate) fn new(name: &str, init: u32) -> World {
        World { name: name.to_owned(), init }
    }

    /// The lab's name. Two labs may have the same one.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The host's pid of the world's PID 1.
    #[must_use]
    pub fn init(&self) -> u32 {
        self.init
    }

    /// A path of the world (absolute, such as `/run/log`) as the host reaches it.
    #[must_use]
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.init))
    }

    /// The arguments of `nsenter` that lead into the world: into the named network namespace, or without one into the
    /// central's.
    #[must_use]
    pub fn nsenter(&self, netns: Option<&str>) -> Vec<String> {
        let net = match netns {
            Some(name) => format!("--net={}", self.path("/run/netns").join(name).display()),
            None => "--net".to_owned(),
        };
        vec![format!("--target={}", self.init), "--mount".to_owned(), "--pid".to_owned(), net]
    }

    /// A command in the world. It is killed if the one who waits for it goes away.
    #[must_use]
    pub fn command(&self, netns: Option<&str>, program: &str) -> Command {
        let mut command = run::command("nsenter");
        // nsenter waits for its child outside of the world's pid namespace: to kill nsenter must kill the child.
        command.args(self.nsenter(netns)).args(["setpriv", "--pdeathsig", "KILL", "--", program]);
        command
    }

    /// Opens a named network namespace of the world.
    ///
    /// # Errors
    /// [`LabError::Io`] if there is none of that name.
    pub fn netns(&self, name: &str) -> Result<Netns> {
        let path = self.path("/run/netns").join(name);
        Netns::open(&path).map_err(LabError::io(path.display().to_string()))
    }

    /// Runs one of the lab's own scripts in the world's central namespace.
    pub(crate) async fn script(&self, name: &str, arguments: &[&str]) -> Result<String> {
        let mut command = self.command(None, "sh");
        command.arg(format!("/run/lib/{name}")).args(arguments);
        run(command, COMMAND_LIMIT).await
    }

    /// Writes a script to `/run/lib/NAME` in the world.
    ///
    /// # Errors
    /// [`LabError::Io`] if it cannot be written.
    pub fn install_script(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path("/run/lib").join(name);
        fs::write(&path, text).map_err(LabError::io(path.display().to_string()))
    }
}

/// Keeps a world alive. On drop the world ends, and is gone when drop returns.
#[derive(Debug)]
pub(crate) struct Keeper {
    unshare: Child,
    /// The end of the pipe. Close-on-exec, so no other child of this process keeps the world alive.
    hold: Option<ChildStdin>,
}

impl Keeper {
    /// Makes a world of this name.
    pub(crate) async fn start(name: &str) -> Result<(Keeper, World)> {
        let mut unshare = spawn(name)?;
        let hold = unshare.stdin.take();
        let stdout = unshare.stdout.take().map(OwnedFd::from);
        // From here on, an early return takes the world down again.
        let keeper = Keeper { unshare, hold };
        let init = match stdout {
            Some(stdout) => ready(stdout).await?,
            None => return Err(LabError::Unavailable("unshare has no standard output".to_owned())),
        };
        let world = World::new(name, init);
        for (name, text) in scripts::ALL {
            world.install_script(name, text)?;
        }
        Ok((keeper, world))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        drop(self.hold.take());
        // unshare ends after PID 1, and PID 1 after every other process of the world.
        let _ = self.unshare.wait();
    }
}

fn spawn(name: &str) -> Result<Child> {
    let owner = std::process::id();
    let owner_start = procfs::start_time(owner).unwrap_or_default();
    std::process::Command::new("unshare")
        .args(["--mount", "--pid", "--net", "--fork", "--kill-child=SIGKILL"])
        .args(["sh", "-c", scripts::WORLD, MARK, name])
        .args([owner.to_string(), owner_start.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        // A Ctrl-C at the terminal is for the owner, who then ends the world in order.
        .process_group(0)
        .spawn()
        .map_err(LabError::io("unshare"))
}

async fn ready(stdout: OwnedFd) -> Result<u32> {
    let limit = COMMAND_LIMIT;
    let stdout = pipe::Receiver::from_owned_fd(stdout).map_err(LabError::io("pipe from unshare"))?;
    let mut line = String::new();
    let mut reader = BufReader::new(stdout);
    timeout(limit, reader.read_line(&mut line))
        .await
        .map_err(|_| LabError::Timeout { what: "the lab's PID 1".to_owned(), after: limit })?
        .map_err(LabError::io("pipe from unshare"))?;
    line.trim()
        .strip_prefix("ready ")
        .and_then(|pid| pid.parse().ok())
        .ok_or_else(|| LabError::Unavailable(format!("its PID 1 did not start (said {line:?}; see above)")))
}
