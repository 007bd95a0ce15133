//! OVN for FiberLB: a client of OVSDB, typed rows of the northbound database, and the pure planner that turns a desired
//! state into OVSDB operations.
//!
//! Layers, each of which knows nothing of those after it: [`ovsdb`] speaks the protocol, [`nb`] gives rows and columns
//! types, [`plan`] decides what to write. Nothing here knows gRPC or FiberLB's resources.
//!
//! For nodes: [`netns`] (network namespaces, entered and left safely), [`netlink`] (their links, addresses and routes) and
//! [`ovs`] (the local Open vSwitch: rows, and the plan that plugs a link into a bridge). The first two know nothing of
//! OVSDB, and `ovs` borrows no more from them than the name of a link.

pub mod nb;
pub mod netlink;
pub mod netns;
pub mod ovs;
pub mod ovsdb;
pub mod plan;
