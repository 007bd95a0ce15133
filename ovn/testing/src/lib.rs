//! Support for the tests of the OVN crates: real servers of a northbound database, alone and as a cluster, and clients of them.
//! A failure panics, as it does in a test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "clippy knows tests by their attribute, and not the functions that they share"
)]

mod client;
mod cluster;
mod program;
mod row;
mod server;

pub use client::{Events, config, connect, reloaded, replica, status};
pub use cluster::Cluster;
pub use program::{LONG, release, run};
pub use row::{OWNER_KEY, columns, owned, row};
pub use server::Server;
