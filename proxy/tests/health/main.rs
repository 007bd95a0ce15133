//! The health checker against real sockets, each test in a network namespace of its own.
#![cfg(test)]

mod backend;
mod flips;
mod headers;
mod ours;
mod outcomes;
mod targets;
mod watch;
mod world;
