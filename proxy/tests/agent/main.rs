//! The agent's own process in a private world, with a real Open_vSwitch database and real traffic through namespaces.
//!
//! The plugin's half is played by the test itself, which can then say and break what it likes; the real plugin is tested
//! with the real agent, and ovs-vswitchd and OVN, in the end-to-end tests.
#![cfg(test)]

mod chassis;
mod configurations;
mod foreign;
mod machine;
mod plugin;
mod restarts;
mod serving;
mod traffic;
mod world;
