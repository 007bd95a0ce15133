//! Proxy nodes end to end: real OVN, real agents on two chassis, real connections.

#![cfg(test)] // for clippy: helpers of tests are tests too

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/rows.rs"]
mod rows;

mod api;
mod away;
mod certificates;
mod command;
mod direct;
mod drain;
mod duties;
mod families;
mod faults;
mod foreign;
mod health;
mod kills;
mod machine;
mod passage;
mod paths;
mod persistence;
mod returns;
mod scenario;
mod semantics;
mod silence;
mod site;
mod talk;
mod tenants;
mod wishes;
