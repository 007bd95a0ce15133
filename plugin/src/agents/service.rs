//! The gRPC service: gives each stream to a session of its own, or redirects its node to the leader.

use std::sync::Arc;

use fiberlb_daemon::listen::Peer as ConnectionPeer;
use fiberlb_proto::agent::v1;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::Instrument as _;
use v1::agent_service_server::{AgentService, AgentServiceServer};

use super::identity::{Holder, holder_of, serial_of};
use super::route::{RouteWatch, SessionRoute, redirect};
use super::session::{self, Peer, Shared};

/// Most bytes of a node's message.
const MESSAGE_BYTES: usize = 1 << 20;

/// `fiberlb.agent.v1.AgentService`, on leader and followers.
pub(crate) struct Agents {
    pub(crate) shared: Arc<Shared>,
    pub(crate) routes: watch::Receiver<SessionRoute>,
    /// True if peers present a certificate; else everybody who can connect is trusted.
    pub(crate) certified: bool,
}

impl Agents {
    /// The service with its limits.
    pub(crate) fn service(self) -> AgentServiceServer<Self> {
        AgentServiceServer::new(self).max_decoding_message_size(MESSAGE_BYTES)
    }

    /// Identifies the node that opens a stream.
    fn peer<T>(&self, request: &Request<T>) -> Result<Peer, Status> {
        let address = request.extensions().get::<ConnectionPeer>().and_then(|peer| peer.address);
        let address = address.map_or_else(|| "unix".to_owned(), |address| address.to_string());
        let certified = match self.certified.then(|| certified(request)).transpose()? {
            None => None,
            Some(Holder::Node(node)) => Some(node),
            Some(Holder::Plugin) => {
                return Err(Status::permission_denied("a plugin's certificate is for no node"));
            }
        };
        let peer = request.extensions().get::<ConnectionPeer>();
        let certificate = peer.and_then(|peer| peer.certificates.as_ref()?.first());
        let serial = certificate.map(serial_of).unwrap_or_default();
        Ok(Peer { certified, address, serial })
    }
}

pub(super) fn certified<T>(request: &Request<T>) -> Result<Holder, Status> {
    let peer = request.extensions().get::<ConnectionPeer>();
    let certificate = peer.and_then(|peer| peer.certificates.as_ref()?.first());
    let certificate = certificate.ok_or_else(|| Status::unauthenticated("no certificate was shown"))?;
    holder_of(certificate).map_err(Status::permission_denied)
}

#[tonic::async_trait]
impl AgentService for Agents {
    type SessionStream = ReceiverStream<Result<v1::PluginMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::NodeMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let peer = self.peer(&request)?;
        let (observer, route) = match RouteWatch::begin(&self.routes) {
            (SessionRoute::Local(observer), route) => (observer, route),
            (SessionRoute::Leader(leader), _) => return Err(redirect(&leader)),
            (SessionRoute::NoLeader, _) => {
                return Err(Status::unavailable("no plugin leads at the moment"));
            }
        };
        // Capacity of one message: the next is made only when this one has been taken.
        let (out, messages) = mpsc::channel(1);
        let shared = Arc::clone(&self.shared);
        // Whatever is logged on behalf of the stream names its node, once it is known.
        let empty = tracing::field::Empty;
        let span = tracing::info_span!("node_stream", peer = peer.address, node = empty, epoch = empty);
        let session = session::run(shared, observer, route, peer, request.into_inner(), out);
        tokio::spawn(session.instrument(span));
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}
