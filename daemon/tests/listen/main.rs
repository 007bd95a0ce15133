//! Listeners on loopback, in process.
#![cfg(test)]

mod connections;
mod exhausted;
mod floods;
mod tls;
mod world;
