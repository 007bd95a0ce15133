//! A cloud of several machines on a management network.

use anyhow::Result;
use fiberlb_lab::Lab;

use crate::machine::Machine;
use crate::worlds::LabWorld;
use crate::worlds::control::{address, control};
use crate::worlds::prepare;
use crate::worlds::tenant_net::tenant_net;

const PLUGINS: [(&str, u8); 2] = [("plugin-1", 11), ("plugin-2", 12)];
const NODES: [(&str, u8); 2] = [("node-1", 21), ("node-2", 22)];
const CONTROL: [&str; 3] = ["control-1", "control-2", "control-3"];

/// Makes it. With `tls`, the northbound database takes nothing else.
pub(crate) async fn machines(tls: bool) -> Result<LabWorld> {
    let lab = Lab::start_clustered(if tls { "docs-machines-tls" } else { "docs-machines" }).await?;
    lab.add_all_chassis(&NODES.map(|(name, _)| name)).await?;
    let vms = tenant_net(&lab, &NODES.map(|(name, _)| name)).await?;
    let processes = control(&lab, tls).await?;
    for (name, octet) in PLUGINS {
        address(&lab.add_host(name).await?, octet).await?;
    }
    for (name, octet) in NODES {
        address(&lab.manage_chassis(name).await?, octet).await?;
    }
    let line = |(name, octet): (&str, u8)| format!("10.0.0.{octet} {name} {name}.example\n");
    let lines: String =
        PLUGINS.into_iter().chain(NODES).chain(CONTROL.into_iter().zip(1..)).map(line).collect();
    prepare(lab.world(), &lines)?;

    let plugins = PLUGINS.map(|(name, _)| (format!("host.{name}"), name));
    let nodes = NODES.map(|(name, _)| (format!("chassis.{name}"), name));
    let control = ["nb1", "nb2", "nb3"].map(str::to_owned).into_iter().zip(CONTROL);
    let all = plugins.into_iter().chain(nodes).chain(control);
    let machines =
        all.map(|(netns, name)| Machine::new(lab.world(), &netns, name, false)).chain(vms).collect();
    Ok(LabWorld { machines, opening: &[], processes, lab })
}
