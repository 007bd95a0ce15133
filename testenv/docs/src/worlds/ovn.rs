//! One machine with all of OVN, and with FiberLB where the page wants it.

use std::os::unix::fs::symlink;

use anyhow::Result;
use fiberlb_lab::Lab;
use fiberlb_lab::run::{COMMAND_LIMIT, run};

use crate::machine::Machine;
use crate::worlds::LabWorld;
use crate::worlds::prepare;
use crate::worlds::tenant_net::tenant_net;

const NODE: &str = "node-1";
const NETNS: &str = "chassis.node-1";
/// Starts FiberLB as an operator of one machine does.
const OPERATOR: [&str; 3] = [
    "mkdir -p /var/lib/fiberlb",
    "fiberlb-plugin --northbound unix:/var/run/ovn/ovnnb_db.sock --store /var/lib/fiberlb/store.redb",
    "fiberlb-proxy",
];

/// Makes it, without FiberLB.
pub(crate) async fn ovn() -> Result<LabWorld> {
    let lab = Lab::start("docs-ovn").await?;
    lab.add_chassis(NODE).await?;
    let vms = tenant_net(&lab, &[NODE]).await?;
    let world = lab.world();
    let mut address = world.command(Some(NETNS), "ip");
    address.args(["address", "add", "192.0.2.1/32", "dev", "lo"]);
    run(address, COMMAND_LIMIT).await?;
    prepare(world, "192.0.2.1 plugin.example\n")?;
    for database in ["nb", "sb"] {
        symlink(format!("{database}.sock"), world.path(&format!("/run/central/ovn{database}_db.sock")))?;
    }
    let machine = Machine::new(world, NETNS, NODE, true);
    let machines = [machine].into_iter().chain(vms).collect();
    Ok(LabWorld { machines, opening: &[], processes: Vec::new(), lab })
}

/// Makes it, with a plugin and a node agent that run.
pub(crate) async fn tenant() -> Result<LabWorld> {
    Ok(LabWorld { opening: &OPERATOR, ..ovn().await? })
}
