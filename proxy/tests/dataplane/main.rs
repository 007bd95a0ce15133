//! The data plane on loopback and in namespaces: real sockets, real clients, real backends.
#![cfg(test)]

mod backend_limits;
mod bandwidth;
mod choice;
mod client_limits;
mod clients;
mod datagram_limits;
mod datagrams;
mod departures;
mod division;
mod ejections;
mod headers;
mod hostile;
mod interoperation;
mod limits;
mod namespace;
mod peers;
mod ports;
mod reconfiguration;
mod records;
mod search;
mod shares;
mod streams;
mod traces;
mod transfer;
mod world;
