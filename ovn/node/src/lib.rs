//! Node side of OVN: [`netns`] (network namespaces, entered and left safely), [`netlink`] (their links, addresses and routes) and
//! [`ovs`] (the local Open vSwitch: rows, and the plan that plugs a link into a bridge).
//!
//! `netns` and `netlink` know nothing of OVSDB; `ovs` uses nothing of them but the name of a link. Nothing here knows FiberLB's
//! resources.

pub mod netlink;
pub mod netns;
pub mod ovs;
