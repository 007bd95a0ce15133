//! A machine of a lab that commands are typed on: a network namespace, and a view of the file system in which Open vSwitch, OVN
//! and FiberLB have their usual places and nothing is the host's that a page could change.

use anyhow::Result;
use fiberlb_lab::World;
use tokio::process::Command;

use crate::workspace::{binaries, repository};

/// One.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    world: World,
    netns: String,
    name: String,
    has_central: bool,
    is_vm: bool,
}

impl Machine {
    /// The folder of the session's own files.
    pub(crate) const FOLDER: &str = "/run/session";

    /// A machine of this name in a network namespace. One with the central part has OVN's databases in their places.
    pub(crate) fn new(world: &World, netns: &str, name: &str, has_central: bool) -> Self {
        Self {
            world: world.clone(),
            netns: netns.to_owned(),
            name: name.to_owned(),
            has_central,
            is_vm: false,
        }
    }

    /// A tenant's VM.
    pub(crate) fn vm(world: &World, name: &str) -> Self {
        Self { is_vm: true, ..Self::new(world, &format!("vm.{name}"), name, false) }
    }

    /// True for a tenant's VM.
    pub(crate) fn is_vm(&self) -> bool {
        self.is_vm
    }

    /// Its name, which its kernel tells too.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The command that becomes a shell on it, in a fresh folder.
    pub(crate) fn shell(&self) -> Result<Command> {
        let mut command = self.world.command(Some(&self.netns), "unshare");
        command.args(["--mount", "--uts", "sh", "/run/lib/machine.sh", &self.name]);
        command.arg(if self.has_central { "/run/central" } else { "" });
        command.arg(binaries()?).arg(repository()?);
        Ok(command)
    }
}
