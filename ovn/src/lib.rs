//! OVN for FiberLB: a client of OVSDB, typed rows of the northbound database, and the pure planner that turns a desired
//! state into OVSDB operations.
//!
//! Layers, each of which knows nothing of those after it: [`ovsdb`] speaks the protocol, [`nb`] gives rows and columns
//! types, [`plan`] decides what to write. Nothing here knows gRPC or FiberLB's resources.

pub mod nb;
pub mod ovsdb;
pub mod plan;
