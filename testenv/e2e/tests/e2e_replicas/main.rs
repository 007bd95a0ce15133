//! Several plugins on one store: real etcd, real OVN, the real binary, each on a host of its own.

#![cfg(test)] // for clippy: helpers of tests are tests too

#[path = "../common/mod.rs"]
#[allow(dead_code, reason = "its single plugin is for the other tests")]
mod common;
mod leadership;
mod nodes;
#[path = "../common/rows.rs"]
mod rows;
mod service;
mod site;
mod verify;
