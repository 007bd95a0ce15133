//! Client for OVSDB, the database of Open vSwitch and OVN: RFC 7047 with the extensions of ovsdb-server(7).
//!
//! A [`Client`](client::Client) keeps a replica of the database, or of the tables, columns and rows of interest, in memory: reads
//! cost no round trip. Changes arrive as events, and changes of one's own are sent as transactions. Connections are made again
//! when they break, over Unix sockets, TCP and TLS, to standalone servers and to clusters.
//!
//! # Example
//!
//! Connect, monitor all bridges of Open vSwitch, change one, and follow what changes:
//!
//! ```no_run
//! use ovsdb::client::{Client, Config, ConnectionStatus, Event};
//! use ovsdb::collections::Map;
//! use ovsdb::operation::{Mutation, Operation};
//! use ovsdb::replica::MonitoredTable;
//! use ovsdb::untyped::UntypedReplica;
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let config = Config {
//!         endpoints: vec!["unix:/run/openvswitch/db.sock".parse()?],
//!         ..Config::new("Open_vSwitch")
//!     };
//!     let replica = UntypedReplica::of(vec![MonitoredTable::new("Bridge")]);
//!     let (client, mut events) = Client::start(config, replica);
//!     client.status().wait_for(ConnectionStatus::is_live).await?;
//!
//!     // Reads need no round trip. The guard must be dropped before the next await.
//!     let bridge = client.read().rows("Bridge").find(|(_, row)| row["name"] == "br-int").map(|(uuid, _)| uuid);
//!
//!     // All operations of a transaction are carried out, or none of them.
//!     if let Some(uuid) = bridge {
//!         let owner = Map::from([("owner".to_owned(), "me".to_owned())]);
//!         let mutation = Mutation::insert("external_ids", owner);
//!         client.transact(vec![Operation::mutate("Bridge", uuid, vec![mutation])]).await?;
//!     }
//!
//!     while let Some(event) = events.recv().await {
//!         match event {
//!             Event::Reloaded(changes) | Event::Changed(changes) => {
//!                 for change in changes {
//!                     println!("{} {}: {:?}", change.table, change.uuid, change.after);
//!                 }
//!             }
//!             Event::Disconnected => println!("disconnected: {}", *client.status().borrow()),
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! The examples `watch` and `transact` are complete programs for any database.
//!
//! # Rows
//!
//! [`UntypedReplica`](untyped::UntypedReplica) holds rows as JSON, for any table of any database. [`row!`](row) declares a Rust
//! type for the rows of one table; a replica of such types implements [`Replica`](replica::Replica) and decides which indexes it
//! keeps and which changes it reports.
//!
//! # Guarantees
//!
//! * A transaction that [`transact`](client::Client::transact) acknowledged is durable, and the replica includes it. One whose reply
//!   was lost is reported as [`Unknown`](error::TransactError::Unknown); it is never resent.
//! * Inserts carry UUIDs of the client's choice: repeating an insert after an unknown outcome cannot make a second row.
//! * The replica is always what the database was at one moment, with all changes of a transaction or none. One monitor covers all
//!   tables; its updates are those of whole transactions. A content that is read anew is read in parts and takes effect as one:
//!   parts come beside the monitor's updates, and the server sends all changes up to then before each part, so that their sum is
//!   the content as of the last part. Readers hold the content before it until then.
//! * The size of the database is not limited: no message has to hold more than a row, a change, or the UUIDs of the rows of a table
//!   ([`max_message_bytes`](client::Config::max_message_bytes)).
//! * The replica does not go back in time: of a cluster, a member that is behind the log entry that the client has seen is not used.
//!   (A leader that dies between an update and the news of its log entry can leave the replica ahead of its successor for some
//!   milliseconds.)
//! * No input from a server causes a panic, nor an allocation beyond a multiple of [`max_message_bytes`](client::Config::max_message_bytes).
//!
//! # Requirements
//!
//! ovsdb-server 2.13 or later, and a [tokio](https://docs.rs/tokio) runtime with IO and time enabled. Values are
//! [`serde_json::Value`]s, UUIDs [`uuid::Uuid`]s.
//!
//! # Not supported
//!
//! Locks, `select` (the replica has the rows), named UUIDs (the client chooses UUIDs), and passive connections. Rows are addressed by
//! UUID: the `where` of `update`, `mutate` and `delete` takes no other conditions.

mod cell;
pub mod client;
pub mod collections;
pub mod column;
pub mod endpoint;
pub mod error;
mod framing;
#[cfg(any(test, feature = "test-support"))]
pub mod fuzzing;
pub mod operation;
pub mod replica;
mod row;
pub mod schema;
mod server;
mod session;
pub mod untyped;
pub mod value;

#[doc(hidden)]
pub use serde_json;

/// The README's example, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
