//! The server for node agents, with real clients.

#![cfg(test)]

mod stream;
mod tls;
mod world;
