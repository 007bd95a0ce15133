//! OVN's northbound database (ovn-nb(5)): typed rows of the tables that we use, and a replica of them with indexes.

#[cfg(any(test, feature = "test-support"))]
pub mod double;
mod index;
mod northbound;
mod rows;
mod update;

use crate::ovsdb::column;

pub(crate) use northbound::version_numbers;
pub use northbound::{Change, Northbound, TableKind};
pub use rows::{
    LoadBalancer, LoadBalancerGroup, LogicalRouter, LogicalRouterPort, LogicalSwitch, LogicalSwitchPort,
    NbGlobal,
};
