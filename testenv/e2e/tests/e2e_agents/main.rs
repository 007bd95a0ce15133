//! Proxy nodes end to end: real OVN, real agents on two chassis, real connections.

#![cfg(test)] // for clippy: helpers of tests are tests too

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/rows.rs"]
mod rows;

mod access_log;
mod allowed;
mod api;
mod carriers;
mod certificates;
mod command;
mod crashes;
mod departures;
mod direct;
mod division;
mod dns;
mod drain;
mod duties;
mod echo;
mod families;
mod faults;
mod foreign;
mod headers;
mod health;
mod limits;
mod machine;
mod message;
mod network_status;
mod node_return;
mod odd_networks;
mod outages;
mod paths;
mod persistence;
mod ranges;
mod relay;
mod renewal;
mod resources;
mod scenario;
mod selection;
mod semantics;
mod shares;
mod site;
mod sources;
mod statistics;
mod tenants;
mod udp;
mod unknown_health;
mod wrong_address;
