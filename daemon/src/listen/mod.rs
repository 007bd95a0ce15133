//! HTTP listener for whatever a daemon serves: API, node agents, metrics.
//!
//! It owns its accept loop and its connections, so that nobody who merely connects can keep others out. The limits are
//! [`ConnectionSettings`], the decision who gets in is a pure one ([`admission`]), and [`connection`] has the deadlines: to the
//! first byte, to the end of the TLS handshake, to the first complete request, between requests. Handshakes run in the
//! connections' own tasks; the accept loop waits for none. A connection of high age takes no new requests (GOAWAY), and the
//! streams on it go on for as long as they like.
//!
//! Accepting pauses while the process has no descriptors left. All that is refused is counted in [`Listeners`] and logged
//! once a second at most.

mod admission;
mod connection;
mod listener;
mod metrics;
mod service;
mod settings;
mod slots;
mod socket;

pub use connection::Keepalive;
pub use listener::Listener;
pub use metrics::{Listeners, RefusedReason};
pub use service::{BoxError, HttpService, Peer};
pub use settings::ConnectionSettings;
pub use socket::{Socket, SocketFileError, concerns_one_connection};
