//! The planner: from what an owner wants in the northbound database to the operations that bring it about.
//!
//! Everything here is pure: no IO, no clock. A caller describes its wishes in OVN's own terms ([`Balancer`],
//! [`Network`], [`reservation`]), which gives a [`Desired`] set of rows; [`diff`] compares that with a replica of the
//! database and says which [`Step`]s are missing; [`operations`] writes the steps of many owners as one transaction.

mod balancer;
mod capabilities;
mod desired;
mod diff;
mod identity;
mod network;
mod rotation;
mod topology;

pub use balancer::{Balancer, BalancerError, Protocol, Selection, Target, balancer};
pub use capabilities::Capabilities;
pub use desired::{Desired, Member, Row};
pub use diff::{Step, StepOperation, diff, operations};
pub use identity::{Installation, OWNER_KEY, Owner, OwnerKind};
pub use network::{Network, network, reservation, responder_wanted};
pub use rotation::{MAX_ROTATION, rotation};
pub use topology::{AddressHolder, Topology, address_holder, free_address, subnets, switches_behind};
