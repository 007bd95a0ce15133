//! Worlds that pages presuppose.
//!
//! | world | machines | what runs there |
//! |---|---|---|
//! | `ovn` | `node-1` (192.0.2.1, `plugin.example`) | OVN's central part and a chassis |
//! | `tenant` | the same | a plugin and a node agent, too |
//! | `machines` | `plugin-1`, `plugin-2` (10.0.0.11, .12; `plugin-1.example`, ...) | nothing |
//! | | `node-1`, `node-2` (10.0.0.21, .22) | a chassis each |
//! | | `control-1` to `control-3` (10.0.0.1 to .3) | a member each of etcd (port 2379), and of the northbound database (`tcp:`, port 6641) |
//! | `machines-tls` | the same | the northbound database speaks TLS; `/etc/fiberlb/nb/` has `ca.pem`, `plugin.pem`, `plugin.key` |
//!
//! In all of them the logical switch `tenant-net` (10.0.0.0/24, with the router `tenant-router` at 10.0.0.1) has the VMs `client`
//! (10.0.0.10) and `web-1` to `web-3` (10.0.0.11 to .13). These answer each HTTP request on port 8080 with 200 and their name,
//! and echo what comes to 5353 by UDP. Commands can be typed on them (`# on client`), and
//! `client COMMAND` runs on that one. The working directory is the checkout, but for what commands make there; its
//! `target/release` has the binaries under test, and so has PATH. In the world `host` its `target` is the real one.

mod control;
mod machines;
mod ovn;
mod tenant_net;
mod web;

pub(crate) use machines::machines;
pub(crate) use ovn::{ovn, tenant};

use std::fs;

use anyhow::{Context as _, Result};
use fiberlb_lab::process::Process;
use fiberlb_lab::{Lab, World};

use crate::machine::Machine;
use crate::scripts;

/// A lab with what a page presupposes.
#[derive(Debug)]
pub(crate) struct LabWorld {
    /// Machines that commands can be typed on; the first is where they are if nothing else is said.
    pub(crate) machines: Vec<Machine>,
    /// Commands that are typed on the first machine before anything else.
    pub(crate) opening: &'static [&'static str],
    /// Processes that run in it.
    pub(crate) processes: Vec<Process>,
    /// Last, since fields are dropped in order.
    pub(crate) lab: Lab,
}

impl LabWorld {
    /// The machine of this name; without one, the first.
    pub(crate) fn machine(&self, name: Option<&str>) -> Result<&Machine> {
        match name {
            None => self.machines.first().context("the world has no machine"),
            Some(name) => {
                let found = self.machines.iter().find(|machine| machine.name() == name);
                found.with_context(|| format!("the world has no machine {name}"))
            }
        }
    }
}

/// Installs the scripts of machines, and adds lines to `/etc/hosts` of all of them.
fn prepare(world: &World, hosts: &str) -> Result<()> {
    scripts::install(world)?;
    Ok(fs::write(world.path("/run/lib/hosts"), hosts)?)
}
