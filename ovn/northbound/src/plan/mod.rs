//! The planner: from what an owner wants in the northbound database to the operations that bring it about.
//!
//! Everything here is pure: no IO, no clock. A caller describes its wishes in OVN's own terms ([`Balancer`],
//! [`Network`], [`reservation`]), which gives a [`Desired`] set of rows; [`diff`] compares that with a replica of the
//! database and says which [`Step`]s are missing; [`operations`] writes the steps of many owners as one transaction.

mod balancer;
mod capabilities;
mod desired;
mod diff;
mod families;
pub mod fence;
mod identity;
mod network;
mod node_port;
mod rotation;
mod topology;

pub use balancer::{Balancer, BalancerError, Protocol, Selection, Target, balancer};
pub use capabilities::Capabilities;
pub use desired::{Desired, Member, Row};
pub use diff::{Step, StepOperation, diff, operations};
pub use families::Families;
pub use identity::{Installation, OWNER_KEY, Owner, OwnerKind};
pub use network::{
    Network, answer, is_answered, lacks_responder, network, reservation, responder_families, vip_of,
};
pub use node_port::{NodePort, virtual_port, virtual_port_row};
pub use rotation::{MAX_ROTATION, rotation};
pub use topology::{
    AddressHolder, Topology, address_holder, free_address, gateways, mtu, subnets, switches_behind,
};
