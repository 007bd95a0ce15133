//! The worlds that pages presuppose, and the machines in them.

use std::os::unix::fs::symlink;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use tempfile::TempDir;
use tokio::process::Command;

use crate::command_line::is_on_client;
use crate::machine::Machine;
use crate::workspace::{binaries, repository};
use crate::worlds::{self, LabWorld};

/// The world that is this machine itself.
pub const HOST: &str = "host";
/// Limit of a command's time in a lab.
const IN_LAB: Duration = Duration::from_secs(120);
/// Limit of a command's time on this machine, where pages build and fetch things.
const ON_HOST: Duration = Duration::from_secs(1800);

/// A world that a page is run in. It ends when this is dropped.
#[derive(Debug)]
pub struct PageWorld(Kind);

#[derive(Debug)]
enum Kind {
    Host(TempDir),
    Lab(LabWorld),
}

impl PageWorld {
    /// Makes a world of this kind: `host`; `ovn`: one machine, with OVN's central part and a chassis; `tenant`: with FiberLB,
    /// too; `machines` and `machines-tls`: a cluster, see [`worlds`].
    ///
    /// # Errors
    /// There is no such kind, or this machine cannot have one.
    pub async fn start(kind: &str) -> Result<Self> {
        Ok(Self(match kind {
            HOST => Kind::Host(TempDir::new()?),
            "ovn" => Kind::Lab(worlds::ovn().await?),
            "tenant" => Kind::Lab(worlds::tenant().await?),
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
                for entry in std::fs::read_dir(repository()?)? {
                    let entry = entry?;
                    symlink(entry.path(), work.join(entry.file_name()))?;
                }
                let mut bash = Command::new("bash");
                bash.args(["--noprofile", "--norc"]).current_dir(work).env("PATH", path()?);
                // Cargo's own would make programs talkative.
                bash.env_remove("RUST_BACKTRACE").env_remove("RUST_LOG");
                Ok(bash)
            }
            (Kind::Lab(lab_world), machine) => lab_world.machine(machine)?.shell(),
        }
    }

    /// Names of its machines, the first one first; none on this machine.
    pub(crate) fn machines(&self) -> Vec<String> {
        match &self.0 {
            Kind::Host(_) => Vec::new(),
            Kind::Lab(lab_world) => {
                lab_world.machines.iter().map(|machine| machine.name().to_owned()).collect()
            }
        }
    }

    /// Commands that are typed on the first machine before anything else.
    pub(crate) fn opening(&self) -> &'static [&'static str] {
        match &self.0 {
            Kind::Host(_) => &[],
            Kind::Lab(lab_world) => lab_world.opening,
        }
    }

    /// A folder for the session's own files, as machines see it.
    pub(crate) fn folder(&self) -> String {
        match &self.0 {
            Kind::Host(folder) => folder.path().display().to_string(),
            Kind::Lab(_) => Machine::FOLDER.to_owned(),
        }
    }

    /// Limit of a command's time.
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
        let Kind::Lab(lab_world) = &self.0 else { return Ok(()) };
        if lab_world.machine(machine)?.is_vm() || is_on_client(text) {
            lab_world.lab.wait_for_sync().await?;
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
            Kind::Lab(LabWorld { processes, lab, .. }) => {
                drop(processes);
                Ok(lab.close()?)
            }
        }
    }
}

/// Search path on this machine: this workspace's binaries first.
fn path() -> Result<String> {
    let usual = std::env::var("PATH").unwrap_or_default();
    Ok(format!("{}:{usual}", binaries()?.display()))
}
