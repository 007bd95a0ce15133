//! The server for node agents, with real clients.

#![cfg(test)]

mod pki;
mod relay;
mod relay_bytes;
mod relay_tls;
mod renewal;
mod stream;
mod tls;
mod wire;
mod world;
