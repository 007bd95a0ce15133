//! OVSDB client: RFC 7047 with ovsdb-server(7)'s extensions.
//!
//! In layers, the lower knowing nothing of the upper: [`framing`] (bytes to messages), [`value`], [`operation`] and
//! [`schema`] (what stands in messages), [`server`] (whether a server is one to talk to), [`session`] (one connection as a state machine without IO or clock), [`replica`]
//! (what the database holds, typed by `column` and `row`), [`client`] (the socket loop).

pub mod client;
pub mod column;
pub mod endpoint;
pub mod error;
pub mod framing;
pub mod operation;
pub mod replica;
mod row;
pub mod schema;
pub mod server;
pub mod session;
pub mod value;

#[doc(hidden)]
pub use serde_json;
