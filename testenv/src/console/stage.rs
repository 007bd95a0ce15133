//! The worlds that pages presuppose, and the machines in them.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;
use tokio::process::Command;

use crate::console::machine::Machine;
use crate::console::worlds;
use crate::lab::Lab;
use crate::plugin::beside;
use crate::process::Process;

/// The world that is this machine itself.
pub const HOST: &str = "host";
/// How long a command may take in a lab.
const IN_LAB: Duration = Duration::from_secs(120);
/// How long one may take on this machine, where pages build and fetch things.
const ON_HOST: Duration = Duration::from_secs(1800);

/// A world that a page is run in. It ends when this is dropped.
#[derive(Debug)]
pub struct Stage(Kind);

#[derive(Debug)]
enum Kind {
    Host(TempDir),
    Lab(Scene),
}

/// A lab with what a page presupposes.
#[derive(Debug)]
pub(crate) struct Scene {
    /// Machines that commands can be typed on; the first is where they are if nothing else is said.
    pub(crate) machines: Vec<Machine>,
    /// What runs in it.
    pub(crate) processes: Vec<Process>,
    /// Last, since fields are dropped in order.
    pub(crate) lab: Lab,
}

impl Stage {
    /// Makes a world of this kind: `host`; `ovn`: one machine, with OVN's central part and a chassis; `machines` and
    /// `machines-tls`: a cluster, see [`worlds`].
    ///
    /// # Errors
    /// There is no such kind, or this machine cannot have one.
    pub async fn start(kind: &str) -> Result<Self> {
        Ok(Self(match kind {
            HOST => Kind::Host(TempDir::new()?),
            "ovn" => Kind::Lab(worlds::ovn().await?),
            "machines" => Kind::Lab(worlds::machines(false).await?),
            "machines-tls" => Kind::Lab(worlds::machines(true).await?),
            _ => bail!("there is no world {kind}"),
        }))
    }

    /// The command that becomes a shell on a machine, in a fresh folder.
    pub(crate) fn shell(&self, machine: Option<&str>) -> Result<Command> {
        match (&self.0, machine) {
            (Kind::Host(_), Some(name)) => bail!("the world {HOST} has no machine {name}"),
            (Kind::Host(folder), None) => {
                let work = folder.path().join("work");
                std::fs::create_dir_all(&work)?;
                symlink(repository()?, work.join("fiberlb"))?;
                let mut bash = Command::new("bash");
                bash.args(["--noprofile", "--norc"]).current_dir(work).env("PATH", path()?);
                // Cargo's own would make programs talkative.
                bash.env_remove("RUST_BACKTRACE").env_remove("RUST_LOG");
                Ok(bash)
            }
            (Kind::Lab(scene), machine) => scene.machine(machine)?.shell(),
        }
    }

    /// A folder for the session's own files, as machines see it.
    pub(crate) fn folder(&self) -> String {
        match &self.0 {
            Kind::Host(folder) => folder.path().display().to_string(),
            Kind::Lab(_) => Machine::FOLDER.to_owned(),
        }
    }

    /// How long a command may take.
    pub(crate) fn limit(&self) -> Duration {
        match self.0 {
            Kind::Host(_) => ON_HOST,
            Kind::Lab(_) => IN_LAB,
        }
    }

    /// Refuses to write outside of a world.
    pub(crate) fn check_path(&self, path: &str) -> Result<()> {
        let is_inside = !path.starts_with('/') && !path.split('/').any(|part| part == "..");
        ensure!(is_inside || matches!(self.0, Kind::Lab(_)), "{path} is not in the working directory");
        Ok(())
    }

    /// Waits until chassis do what is in the northbound database, if a command comes from a tenant's VM: readers take longer
    /// than that to go there.
    pub(crate) async fn settle(&self, machine: Option<&str>, text: &str) -> Result<()> {
        let Kind::Lab(scene) = &self.0 else { return Ok(()) };
        if scene.machine(machine)?.is_vm() || text.contains("ip netns exec ") {
            scene.lab.wait_for_sync().await?;
        }
        Ok(())
    }

    /// Ends it.
    ///
    /// # Errors
    /// A daemon of OVN was not well.
    pub(crate) fn end(self) -> Result<()> {
        match self.0 {
            Kind::Host(_) => Ok(()),
            Kind::Lab(Scene { processes, lab, .. }) => {
                drop(processes);
                Ok(lab.close()?)
            }
        }
    }
}

impl Scene {
    fn machine(&self, name: Option<&str>) -> Result<&Machine> {
        match name {
            None => self.machines.first().context("the world has no machine"),
            Some(name) => {
                let found = self.machines.iter().find(|machine| machine.name() == name);
                found.with_context(|| format!("the world has no machine {name}"))
            }
        }
    }
}

/// Where binaries are looked for on this machine: those of this workspace first.
fn path() -> Result<String> {
    let usual = std::env::var("PATH").unwrap_or_default();
    Ok(format!("{}:{usual}", binaries()?.display()))
}

/// This checkout.
pub(crate) fn repository() -> Result<&'static Path> {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no repository")
}

/// The folder of this workspace's binaries.
pub(crate) fn binaries() -> Result<PathBuf> {
    let folder = beside("fiberlb")?.parent().map(PathBuf::from);
    beside("fiberlb-plugin")?;
    beside("fiberlb-proxy")?;
    folder.context("the binaries have no folder")
}
