//! Destination of the nodes' streams: this plugin, the leader, or none at the moment.

use std::fmt;
use std::future::pending;
use std::sync::Arc;

use tokio::sync::watch;
use tonic::Status;
use tonic::metadata::MetadataValue;

use super::peer::PeerAddress;
use super::registry::Observer;

/// Status message for a node whose stream ends because leadership moved, or was lost.
pub(crate) const MOVED: &str = "leadership of the plugins has moved: connect again";
/// Metadata key of a status that redirects a node to the leader. Its value is the text form of a
/// [`PeerAddress`].
pub(crate) const LEADER: &str = "fiberlb-leader";

/// Destination of the nodes' streams.
///
/// A server watches it. Each value that is sent ends the streams of the previous one, even if it is equal,
/// and the agents reconnect at once: send changes only (`send_if_modified`). When the sender is gone, the
/// last value stays.
#[derive(Clone)]
pub enum SessionRoute {
    /// This plugin leads; its observer receives the streams.
    Local(Arc<dyn Observer>),
    /// Another one leads; nodes are redirected to its listener for node agents.
    Leader(PeerAddress),
    /// No leader, as far as this plugin knows; nodes are asked to try another plugin, or to retry.
    NoLeader,
}

impl PartialEq for SessionRoute {
    /// Observers are equal if they are the same one.
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Local(one), Self::Local(other)) => Arc::ptr_eq(one, other),
            (Self::Leader(one), Self::Leader(other)) => one == other,
            (Self::NoLeader, Self::NoLeader) => true,
            _ => false,
        }
    }
}

impl fmt::Debug for SessionRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(_) => f.write_str("Local"),
            Self::Leader(address) => write!(f, "Leader({address})"),
            Self::NoLeader => f.write_str("NoLeader"),
        }
    }
}

/// Notices when the route that a stream was opened by changes.
#[derive(Clone)]
pub(crate) struct RouteWatch(watch::Receiver<SessionRoute>);

impl RouteWatch {
    /// The current route, and a watch on its change.
    pub(crate) fn begin(routes: &watch::Receiver<SessionRoute>) -> (SessionRoute, Self) {
        let mut routes = routes.clone();
        let now = routes.borrow_and_update().clone();
        (now, Self(routes))
    }

    /// Resolves once the route has changed.
    pub(crate) async fn changed(&mut self) {
        // An error means that the sender is gone: it never changes again.
        if self.0.changed().await.is_err() {
            pending::<()>().await;
        }
    }
}

/// Status that redirects a node to the leader. Agents of releases that know no redirects try their next plugin.
pub(crate) fn redirect(leader: &PeerAddress) -> Status {
    let mut status =
        Status::unavailable(format!("this plugin is a follower: connect to the leader at {leader}"));
    // A unix path that metadata cannot carry is left out; the node goes on with its own list.
    if let Ok(address) = MetadataValue::try_from(leader.to_string()) {
        status.metadata_mut().insert(LEADER, address);
    }
    status
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn a_redirect_carries_the_address_where_metadata_can() {
        for (text, carried) in [
            ("https://plugin-2.example:9633", Some("https://plugin-2.example:9633")),
            ("unix:/run/a.sock", Some("unix:/run/a.sock")),
            ("unix:/run/a\n.sock", None),
        ] {
            let status = redirect(&text.parse().unwrap());
            assert_eq!(status.code(), Code::Unavailable);
            assert_eq!(status.metadata().get(LEADER).map(|value| value.to_str().unwrap()), carried);
        }
    }
}
