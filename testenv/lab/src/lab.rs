//! A running lab: OVN's central part, and the handle by which tests add to it and ask it.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fiberlb_ovn_release::Release;

use crate::daemons::Member;
use crate::error::{LabError, Result};
use crate::names::check_name;
use crate::requirements::requirements;
use crate::run::{self, COMMAND_LIMIT, run};
use crate::world::{Keeper, World};
use crate::{logs, names};

/// Above any `--timeout` that a test gives to an OVSDB tool, which ends it sooner.
const TOOL_LIMIT: Duration = Duration::from_secs(120);

/// OVN in a private world. Dropping it ends everything in it; so does the death of the process that holds it.
///
/// Dropped while its thread panics, it first copies all logs to a folder that it names on standard error.
#[derive(Debug)]
pub struct Lab {
    world: World,
    /// For chassis, VMs and router ports: gives each its own address and interface name.
    next_index: AtomicU32,
    // Last, since fields are dropped in order: nothing of the lab outlives it.
    _keeper: Keeper,
}

impl Lab {
    /// Starts a lab with its central part: both databases and northd.
    ///
    /// `name` is for people: several labs of one name may run side by side.
    ///
    /// # Errors
    /// [`LabError::Unavailable`] if the machine lacks something; else what went wrong.
    pub async fn start(name: &str) -> Result<Lab> {
        let lab = Self::empty(name).await?;
        lab.world.script("central.sh", &["nb", "sb", "northd"]).await?;
        lab.ready().await
    }

    /// A lab in which nothing runs yet.
    pub(crate) async fn empty(name: &str) -> Result<Lab> {
        check_name("lab", name)?;
        requirements().map_err(LabError::Unavailable)?;
        let (keeper, world) = Keeper::start(name).await?;
        // 2, since the central part has the first address of the underlay.
        Ok(Lab { world, next_index: AtomicU32::new(2), _keeper: keeper })
    }

    pub(crate) async fn ready(self) -> Result<Lab> {
        self.nbctl(&["init"]).await?;
        let release = Release::chosen().map_err(|why| LabError::Unavailable(why.to_string()))?;
        eprintln!("lab {}: {release}: {}", self.world.name(), self.nsenter_line());
        Ok(self)
    }

    /// The world that the lab runs in, for commands and paths of its own.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// The line to type for a shell in the lab (add `--net=/run/netns/vm.NAME` for a VM's view).
    #[must_use]
    pub fn nsenter_line(&self) -> String {
        format!("nsenter {}", self.world.nsenter(None).join(" "))
    }

    /// Runs `ovn-nbctl` against this lab and gives its output. It may wait for a minute; an own `--timeout` overrides that.
    ///
    /// # Errors
    /// [`LabError::Command`] with what it said, [`LabError::Timeout`].
    pub async fn nbctl(&self, arguments: &[&str]) -> Result<String> {
        self.database_tool("ovn-nbctl", &self.nb_endpoint(), arguments).await
    }

    /// Runs `ovn-sbctl` against this lab and gives its output. Otherwise as [`Lab::nbctl`].
    ///
    /// # Errors
    /// As [`Lab::nbctl`].
    pub async fn sbctl(&self, arguments: &[&str]) -> Result<String> {
        let endpoint = self.endpoint("/run/central/sb.sock");
        self.database_tool("ovn-sbctl", &endpoint, arguments).await
    }

    /// Runs `ovs-vsctl` against the OVS of a chassis. Otherwise as [`Lab::nbctl`].
    ///
    /// # Errors
    /// As [`Lab::nbctl`].
    pub async fn ovs_vsctl(&self, chassis: &str, arguments: &[&str]) -> Result<String> {
        self.database_tool("ovs-vsctl", &self.ovs_endpoint(chassis), arguments).await
    }

    /// Endpoint of the northbound database, such as `unix:/proc/4711/root/run/central/nb.sock`, for processes outside
    /// of the lab. It survives restarts. Of a cluster: all members' endpoints, separated by commas.
    #[must_use]
    pub fn nb_endpoint(&self) -> String {
        if self.is_clustered() {
            return Member::ALL.map(|member| self.member_endpoint(member)).join(",");
        }
        self.endpoint("/run/central/nb.sock")
    }

    /// Endpoint of one member of the cluster, for processes outside of the lab. It survives restarts.
    #[must_use]
    pub fn member_endpoint(&self, member: Member) -> String {
        self.endpoint(&format!("/run/central/{}.sock", member.name()))
    }

    /// Endpoint of a chassis' Open_vSwitch database, for processes outside of the lab.
    #[must_use]
    pub fn ovs_endpoint(&self, chassis: &str) -> String {
        self.endpoint(&format!("/run/chassis/{chassis}/db.sock"))
    }

    /// Waits until all that is in NB now is in force on all chassis.
    ///
    /// # Errors
    /// [`LabError::Command`] if that takes more than a minute: a chassis is cut off, or a daemon is stopped.
    /// [`LabError::Emergency`] if a daemon aborted.
    pub async fn wait_for_sync(&self) -> Result<()> {
        let synced = self.nbctl(&["--wait=hv", "sync"]).await;
        logs::check_for_emergencies(&self.world)?;
        synced.map(drop)
    }

    /// Ends the lab as drop does, and tells whether its daemons were well until now.
    ///
    /// # Errors
    /// [`LabError::Emergency`] if a daemon logged an emergency. The logs are kept then.
    pub fn close(self) -> Result<()> {
        logs::check_for_emergencies(&self.world)
    }

    /// Sends a signal to a process by its pid within the lab.
    pub(crate) async fn signal(&self, pid: &str, signal: &str) -> Result<()> {
        let mut command = self.world().command(None, "sh");
        command.args(["-c", "kill -\"$1\" \"$2\"", "kill", signal, pid]);
        run(command, COMMAND_LIMIT).await.map(drop)
    }

    /// True if this lab's northbound database is clustered.
    pub(crate) fn is_clustered(&self) -> bool {
        fs::exists(self.world().path("/run/central/nb1.db")).unwrap_or(false)
    }

    pub(crate) fn take_index(&self) -> u32 {
        self.next_index.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn new_router_mac(&self) -> names::Mac {
        names::Mac::numbered(0xaa, self.take_index())
    }

    pub(crate) fn endpoint(&self, socket: &str) -> String {
        format!("unix:{}", self.world.path(socket).display())
    }

    async fn database_tool(&self, tool: &str, endpoint: &str, arguments: &[&str]) -> Result<String> {
        let mut command = run::command(tool);
        command.arg(format!("--db={endpoint}")).arg("--timeout=60").args(arguments);
        run(command, TOOL_LIMIT).await
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let emergency = logs::check_for_emergencies(&self.world);
        if let Err(emergency) = &emergency {
            eprintln!("lab {}: {emergency}", self.world.name());
        }
        if !std::thread::panicking() && emergency.is_ok() {
            return;
        }
        match logs::save(&self.world) {
            Ok(folder) => eprintln!("lab {}: logs are in {}", self.world.name(), folder.display()),
            Err(error) => eprintln!("lab {}: logs are lost: {error}", self.world.name()),
        }
    }
}
