//! Chassis: hypervisors with their own OVS and ovn-controller.

use std::fs;

use futures_util::future::try_join_all;
use tokio::process::Command;

use crate::error::{LabError, Result};
use crate::lab::Lab;
use crate::names::check_name;
use crate::run::{self, COMMAND_LIMIT, run, until};

impl Lab {
    /// Adds a chassis and waits until OVN knows it. Its `system-id` is its name.
    ///
    /// # Errors
    /// [`LabError`] if the name is taken or a daemon does not start.
    pub async fn add_chassis(&self, name: &str) -> Result<()> {
        check_name("chassis", name)?;
        let index = self.take_index();
        if index > 65_000 {
            return Err(LabError::invalid("chassis", name, "the underlay has no address left"));
        }
        self.world().script("chassis.sh", &[name, &index.to_string()]).await?;
        self.sbctl(&["wait-until", "Chassis", name]).await.map(drop)
    }

    /// Adds several chassis at once.
    ///
    /// # Errors
    /// As [`Lab::add_chassis`].
    pub async fn add_all_chassis(&self, names: &[&str]) -> Result<()> {
        try_join_all(names.iter().map(|name| self.add_chassis(name))).await.map(drop)
    }

    /// A command in the network namespace of a chassis, where node agents run. It sees the lab's `/run`.
    #[must_use]
    pub fn chassis_command(&self, chassis: &str, program: &str) -> Command {
        self.world().command(Some(&format!("chassis.{chassis}")), program)
    }

    /// Waits until the current content of NB is in force on all chassis, and their datapaths have dropped older flows.
    /// A packet that comes in between may still be handled by those.
    ///
    /// # Errors
    /// As [`Lab::wait_for_sync`].
    pub async fn wait_for_datapaths(&self, chassis: &[&str]) -> Result<()> {
        self.wait_for_sync().await?;
        for name in chassis {
            let control = self.world().path(&format!("/run/chassis/{name}/vswitchd.ctl"));
            let mut command = run::command("ovs-appctl");
            command.arg(format!("--target={}", control.display())).args(["--timeout=30", "revalidator/wait"]);
            run(command, COMMAND_LIMIT).await?;
        }
        Ok(())
    }

    /// Makes the ovs-vswitchd of a chassis abort, as a failed assertion does, and returns when its monitor has started
    /// a new one. Traffic returns once that one has its flows again: await it by [`Lab::wait_for_sync`] and a retry.
    ///
    /// # Errors
    /// [`LabError::Timeout`] if none is started.
    pub async fn abort_vswitchd(&self, chassis: &str) -> Result<()> {
        let pid_file = self.world().path(&format!("/run/chassis/{chassis}/vswitchd.pid"));
        let read = || fs::read_to_string(&pid_file).ok().filter(|pid| pid.ends_with('\n'));
        let old = read().ok_or_else(|| LabError::invalid("chassis", chassis, "it has no ovs-vswitchd"))?;
        self.signal(old.trim(), "ABRT").await?;
        let restarted = || read().filter(|pid| *pid != old).map(drop);
        until("a new ovs-vswitchd", COMMAND_LIMIT, restarted).await
    }
}
