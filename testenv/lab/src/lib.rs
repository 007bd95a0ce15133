//! The lab: real OVN (northd, ovn-controller, OVS with its userspace datapath) in namespaces on one machine, for
//! end-to-end tests, the demo and benchmarks.
//!
//! A [`Lab`] is a private world that ends with the process that holds it, however that ends: see [`world`]. It has any
//! number of chassis, logical switches and routers, and [`Vm`]s with addresses of the test's choosing. The test process
//! itself makes sockets inside the VMs ([`Vm::tcp_connect`], [`Vm::with_netns`]); [`workload`] has servers that say who they are
//! and clients that count who answered. Many labs run side by side; the host's own network gets nothing.
//!
//! The lab itself knows nothing of FiberLB: it speaks of OVN's things only. [`plugin`] runs FiberLB's control plane
//! against it, [`proxy`] its node agents on the chassis. Where several of them run, as in a real cloud, each is on a
//! [`Host`] of its own, whose link can be cut: [`etcd`] has a cluster for their store, [`replica`] the plugins.
//!
//! ```no_run
//! # async fn example() -> fiberlb_lab::Result<()> {
//! use fiberlb_lab::{Lab, VmSpec};
//! let lab = Lab::start("example").await?;
//! lab.add_all_chassis(&["ch1", "ch2"]).await?;
//! lab.add_switch("sw0", &[]).await?;
//! let vm = lab.add_vm(VmSpec::new("vm1", "ch1", "sw0").address("10.0.0.1/24")).await?;
//! println!("{}", vm.exec("ip", &["address"]).await?);
//! # Ok(())
//! # }
//! ```

pub mod abort;
pub mod authority;
mod binaries;
mod central;
mod chassis;
mod cluster;
mod daemons;
mod discovery;
mod error;
pub mod etcd;
mod host;
mod lab;
pub mod logs;
mod names;
mod network;
pub mod plugin;
pub mod process;
mod procfs;
mod provisioning;
pub mod proxy;
pub mod replica;
mod requirements;
pub mod run;
pub mod scrape;
mod scripts;
mod vm;
pub mod workload;
pub mod world;

pub use binaries::workspace_binary;
pub use daemons::{Central, Member, Stop};
pub use discovery::{FoundLab, find_labs};
pub use error::{LabError, Result};
pub use fiberlb_ovn_release::{Release, Version};
pub use host::{Host, Link};
pub use lab::Lab;
pub use logs::FAILURES_ENV;
pub use names::Mac;
pub use procfs::cpu;
pub use requirements::{can_run, can_run_on, can_run_with, requirements};
pub use vm::{LspAddresses, Vm, VmSpec};
pub use world::World;
