//! Destination of the nodes' streams: this plugin, another one, or none at the moment.

use std::fmt;
use std::future::pending;
use std::sync::Arc;

use tokio::sync::watch;

use super::peer::PeerAddress;
use super::registry::Observer;

/// Status message for a node whose stream ends because leadership moved, or was lost.
pub(crate) const MOVED: &str = "leadership of the plugins has moved: connect again";

/// Destination of the nodes' streams.
///
/// A server watches it. Each value that is sent ends the streams of the previous one, even if it is equal,
/// and the agents reconnect at once: send changes only (`send_if_modified`). When the sender is gone, the
/// last value stays.
#[derive(Clone)]
pub enum Desk {
    /// This plugin leads; its observer receives the streams.
    Here(Arc<dyn Observer>),
    /// Another one leads; streams are relayed to its listener for node agents.
    Elsewhere(PeerAddress),
    /// No leader, as far as this plugin knows; nodes are asked to try another plugin, or to retry.
    Nobody,
}

impl PartialEq for Desk {
    /// Observers are equal if they are the same one.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Here(one), Self::Here(other)) => Arc::ptr_eq(one, other),
            (Self::Elsewhere(one), Self::Elsewhere(other)) => one == other,
            (Self::Nobody, Self::Nobody) => true,
            _ => false,
        }
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here(_) => f.write_str("Here"),
            Self::Elsewhere(address) => write!(f, "Elsewhere({address})"),
            Self::Nobody => f.write_str("Nobody"),
        }
    }
}

/// A stream's place at the desk: lost when the desk changes.
#[derive(Clone)]
pub(crate) struct Seat(watch::Receiver<Desk>);

impl Seat {
    /// A place at the current desk.
    pub(crate) fn take(desk: &watch::Receiver<Desk>) -> (Desk, Self) {
        let mut desk = desk.clone();
        let now = desk.borrow_and_update().clone();
        (now, Self(desk))
    }

    /// Resolves once the desk has changed.
    pub(crate) async fn lost(&mut self) {
        // An error means that the sender is gone: it never changes again.
        if self.0.changed().await.is_err() {
            pending::<()>().await;
        }
    }
}
