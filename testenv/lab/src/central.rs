//! Stopping, pausing and starting the daemons of OVN's central part, for tests of what happens then.
//! `cluster` has what concerns members of a clustered database alone.

use std::fs;

use crate::daemons::{Central, Stop};
use crate::error::{LabError, Result};
use crate::lab::Lab;
use crate::run::{self, COMMAND_LIMIT, run, until};

impl Lab {
    /// Stops a daemon and returns when its process is gone. Its database file stays.
    ///
    /// # Errors
    /// [`LabError`] if it does not run, or will not end.
    pub async fn stop(&self, daemon: Central, how: Stop) -> Result<()> {
        let pid = self.central_pid(daemon)?;
        match how {
            Stop::Graceful => self.ask_to_exit(daemon).await?,
            Stop::Kill => self.signal(&pid, "KILL").await?,
        }
        self.wait_until_gone(daemon, &pid).await?;
        // A killed one leaves its pid file, by which it would count as running.
        match fs::remove_file(self.pid_file(daemon)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(LabError::Io { what: format!("pid file of {}", daemon.name()), source: error })
            }
            _ => Ok(()),
        }
    }

    /// Starts a daemon that was stopped, on the same database file and socket. It serves when this returns; a member of a
    /// cluster may still be on its way into it ([`Lab::wait_for_member`]).
    ///
    /// # Errors
    /// [`LabError::Command`] with what it said.
    pub async fn restart(&self, daemon: Central) -> Result<()> {
        self.world().script("central.sh", &[daemon.name()]).await.map(drop)
    }

    /// Freezes a daemon (SIGSTOP): its connections stay open and nobody answers.
    ///
    /// # Errors
    /// [`LabError`] if it does not run.
    pub async fn pause(&self, daemon: Central) -> Result<()> {
        self.signal(&self.central_pid(daemon)?, "STOP").await
    }

    /// Lets a frozen daemon go on (SIGCONT).
    ///
    /// # Errors
    /// [`LabError`] if it does not run.
    pub async fn resume(&self, daemon: Central) -> Result<()> {
        self.signal(&self.central_pid(daemon)?, "CONT").await
    }

    /// True while northd is connected to the northbound database. Its reconnect backoff grows to 8 s.
    pub async fn northd_is_connected(&self) -> bool {
        let control = self.world().path("/run/central/northd.ctl");
        let mut command = run::command("ovs-appctl");
        command.arg(format!("--target={}", control.display())).args(["--timeout=1", "nb-connection-status"]);
        run(command, COMMAND_LIMIT).await.is_ok_and(|status| status.trim() == "connected")
    }

    /// The daemon's pid within the lab.
    fn central_pid(&self, daemon: Central) -> Result<String> {
        let path = self.pid_file(daemon);
        let pid =
            fs::read_to_string(&path).map_err(LabError::io(format!("{} does not run", daemon.name())))?;
        Ok(pid.trim().to_owned())
    }

    fn pid_file(&self, daemon: Central) -> std::path::PathBuf {
        self.world().path(&format!("/run/central/{}.pid", daemon.name()))
    }

    async fn ask_to_exit(&self, daemon: Central) -> Result<()> {
        let control = self.world().path(&format!("/run/central/{}.ctl", daemon.name()));
        let mut command = run::command("ovs-appctl");
        command.arg(format!("--target={}", control.display())).args(["--timeout=60", "exit"]);
        run(command, COMMAND_LIMIT).await.map(drop)
    }

    async fn wait_until_gone(&self, daemon: Central, pid: &str) -> Result<()> {
        let process = self.world().path(&format!("/proc/{pid}"));
        let what = format!("the end of {}", daemon.name());
        until(&what, COMMAND_LIMIT, || (!process.exists()).then_some(())).await
    }
}
