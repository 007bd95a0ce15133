//! OVN's northbound database (ovn-nb(5)): typed rows of the tables in use, a replica of them with indexes ([`Northbound`]), and
//! [`plan`], which turns a desired state into operations.
//!
//! Everything here is pure; [`ovsdb`] has the connection. Nothing here knows gRPC or FiberLB's resources.

#[cfg(any(test, feature = "test-support"))]
pub mod double;
mod index;
mod northbound;
pub mod plan;
mod rows;
mod update;

pub(crate) use northbound::version_numbers;
pub use northbound::{Change, Northbound, TableKind};
pub use rows::{
    Acl, DhcpOptions, LoadBalancer, LoadBalancerGroup, LogicalRouter, LogicalRouterPolicy, LogicalRouterPort,
    LogicalSwitch, LogicalSwitchPort, Nat, NbGlobal, PortGroup,
};
