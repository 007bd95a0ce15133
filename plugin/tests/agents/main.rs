//! The server for node agents, with real clients.

#![cfg(test)]

mod peers;
mod pki;
mod redirect;
mod redirect_tls;
mod renewal;
mod revocation;
mod stream;
mod tls;
mod world;
