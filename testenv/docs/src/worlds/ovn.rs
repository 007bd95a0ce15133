//! One machine with all of OVN.

use std::os::unix::fs::symlink;

use anyhow::Result;
use fiberlb_lab::Lab;
use fiberlb_lab::run::{COMMAND_LIMIT, run};

use crate::machine::Machine;
use crate::worlds::LabWorld;
use crate::worlds::prepare;
use crate::worlds::tenant::tenant;

const NODE: &str = "node-1";
const NETNS: &str = "chassis.node-1";

/// Makes it.
pub(crate) async fn ovn() -> Result<LabWorld> {
    let lab = Lab::start("docs-ovn").await?;
    lab.add_chassis(NODE).await?;
    let vms = tenant(&lab, &[NODE]).await?;
    let world = lab.world();
    let mut address = world.command(Some(NETNS), "ip");
    address.args(["address", "add", "192.0.2.1/32", "dev", "lo"]);
    run(address, COMMAND_LIMIT).await?;
    prepare(world, "192.0.2.1 plugin.example\n")?;
    for database in ["nb", "sb"] {
        symlink(format!("{database}.sock"), world.path(&format!("/run/central/ovn{database}_db.sock")))?;
    }
    let machine = Machine::new(world, NETNS, NODE, true);
    Ok(LabWorld { machines: [machine].into_iter().chain(vms).collect(), processes: Vec::new(), lab })
}
