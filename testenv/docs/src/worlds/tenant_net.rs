//! The tenant's network with its VMs.

use anyhow::Result;
use fiberlb_lab::{Lab, VmSpec};

use crate::machine::Machine;
use crate::worlds::web;

/// VMs that serve something, and the last octet of their addresses.
const SERVERS: [(&str, u8); 3] = [("web-1", 11), ("web-2", 12), ("web-3", 13)];
const CLIENT: (&str, u8) = ("client", 10);

/// Makes the tenant's network, with VMs on these chassis in turn, which commands can be typed on.
pub(crate) async fn tenant_net(lab: &Lab, chassis: &[&str]) -> Result<Vec<Machine>> {
    lab.add_switch("tenant-net", &[("subnet", "10.0.0.0/24")]).await?;
    lab.add_router("tenant-router").await?;
    lab.attach_router("tenant-router", "tenant-net", &["10.0.0.1/24"]).await?;
    let specs = [CLIENT].into_iter().chain(SERVERS).zip(chassis.iter().cycle());
    let specs = specs.map(|((name, octet), chassis)| {
        let gateway = [10, 0, 0, 1].into();
        VmSpec::new(name, chassis, "tenant-net").address(&format!("10.0.0.{octet}/24")).gateway(gateway)
    });
    let vms = lab.add_vms(specs.collect()).await?;
    for vm in vms.iter().filter(|vm| vm.name() != CLIENT.0) {
        web::serve(vm)?;
    }
    Ok(vms.iter().map(|vm| Machine::vm(lab.world(), vm.name())).collect())
}
