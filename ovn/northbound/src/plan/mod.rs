//! Planner: from the desired state of an owner to the operations that establish it in the northbound database.
//!
//! Everything here is pure: no IO, no clock. A caller describes the desired state in OVN's own terms ([`Balancer`], [`Network`],
//! [`Reservation`]), which yields a [`Desired`] set of rows; [`diff`] compares it with a replica of the database and returns the
//! missing [`Step`]s; [`operations`] writes the steps of many owners as one transaction.

mod addresses;
mod answer;
mod balancer;
mod capabilities;
mod desired;
mod diff;
pub mod fence;
mod identity;
mod network;
mod node_port;
mod reservation;
mod rotation;
mod topology;

pub use crate::northbound::SHARED_KEY;
pub use addresses::{AddressHolder, AddressUse, free_address};
pub use answer::{AnswerForm, Answered, is_address, vip_of};
pub use balancer::{Balancer, BalancerError, Protocol, Selection, Target, TargetPool, balancer};
pub use capabilities::Capabilities;
pub use desired::{Desired, Member, Row};
pub use diff::{Step, StepOperation, diff, operations};
pub use identity::{Installation, OWNER_KEY, Owner, OwnerKind};
pub use network::{Network, network, responder_mac};
pub use node_port::{NodePort, virtual_port, virtual_port_row};
pub use reservation::{Reservation, vips_of};
pub use rotation::{MAX_ROTATION, PoolBytes, rotation};
pub use topology::{
    NetworkTraits, NextHop, Routes, Topology, has_distant_networks, mtu, subnets, switches_behind,
};
