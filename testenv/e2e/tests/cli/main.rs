//! The built `fiberlb` command against the built plugin, on a real northbound database.

#![cfg(test)] // for clippy: helpers of tests are tests too

mod errors;
mod fiberlb;
mod resources;
mod site;
mod tls;
mod trees;
