//! The gRPC service: gives each stream to a session of its own, or relays it to the leader.

use std::convert::Infallible;
use std::sync::Arc;

use fiberlb_proto::agent::v1;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::{Body, BoxFuture, Context, Poll, Service, StdError, http};
use tonic::server::NamedService;
use tonic::{Request, Response, Status, Streaming};
use v1::agent_service_server::{AgentService, AgentServiceServer, SERVICE_NAME};

use super::desk::{Desk, MOVED, Seat};
use super::identity::{Holder, holder_of};
use super::relay::{self, Relay, Relayed};
use super::session::{self, Peer, Shared};

/// Most bytes of a node's message.
pub(crate) const MESSAGE_BYTES: usize = 1 << 20;

/// Entry point of streams.
pub(crate) struct Reception {
    pub(crate) shared: Arc<Shared>,
    pub(crate) desk: watch::Receiver<Desk>,
    pub(crate) relay: Relay,
    /// True if peers present a certificate; else everybody who can connect is trusted.
    pub(crate) certified: bool,
}

impl Reception {
    /// Identifies the peer that opens a stream.
    pub(crate) fn peer<T>(&self, request: &Request<T>) -> Result<Peer, Status> {
        let address = request.remote_addr().map_or_else(|| "unix".to_owned(), |address| address.to_string());
        let holder = self.certified.then(|| certified(request)).transpose()?;
        let denied = |why| Err(Status::permission_denied(why));
        let certified = match (holder, Relayed::read(request.metadata())?) {
            (None, None) => None,
            (Some(Holder::Node(node)), None) => Some(node),
            (Some(Holder::Plugin), None) => return denied("a plugin's certificate is for no node"),
            (Some(Holder::Node(_)), Some(_)) => {
                return denied("a node's certificate cannot speak for nodes: only a plugin's can");
            }
            (Some(Holder::Plugin), Some(Relayed { node: None, .. })) => {
                return denied("a plugin must say which node it speaks for");
            }
            (_, Some(Relayed { by, node })) => {
                let address = format!("{address}, relayed by {by}");
                return Ok(Peer { certified: node, address, is_relayed: true });
            }
        };
        Ok(Peer { certified, address, is_relayed: false })
    }
}

pub(super) fn certified<T>(request: &Request<T>) -> Result<Holder, Status> {
    let certificates =
        request.peer_certs().ok_or_else(|| Status::unauthenticated("no certificate was shown"))?;
    let certificate =
        certificates.first().ok_or_else(|| Status::unauthenticated("no certificate was shown"))?;
    holder_of(certificate).map_err(Status::permission_denied)
}

/// `fiberlb.agent.v1.AgentService`, on leader and followers.
#[derive(Clone)]
pub(crate) struct Agents {
    reception: Arc<Reception>,
    here: AgentServiceServer<Here>,
}

impl Agents {
    pub(crate) fn new(reception: Reception) -> Self {
        let reception = Arc::new(reception);
        let here = AgentServiceServer::new(Here(Arc::clone(&reception)));
        Self { reception, here: here.max_decoding_message_size(MESSAGE_BYTES) }
    }
}

impl NamedService for Agents {
    const NAME: &'static str = SERVICE_NAME;
}

impl<B> Service<http::Request<B>> for Agents
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        match Seat::take(&self.reception.desk) {
            (Desk::Elsewhere(leader), seat) if request.uri().path() == relay::METHOD => {
                let stream = relay::Service { reception: Arc::clone(&self.reception), leader, seat };
                Box::pin(async move { Ok(stream.serve(request).await) })
            }
            _ => self.here.call(request),
        }
    }
}

/// Service of the leader, or of a plugin that knows no leader.
pub(crate) struct Here(Arc<Reception>);

#[tonic::async_trait]
impl AgentService for Here {
    type SessionStream = ReceiverStream<Result<v1::PluginMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::NodeMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let peer = self.0.peer(&request)?;
        let (observer, seat) = match Seat::take(&self.0.desk) {
            (Desk::Here(observer), seat) => (observer, seat),
            _ if peer.is_relayed => return Err(relay::not_leading()),
            (Desk::Elsewhere(_), _) => return Err(Status::unavailable(MOVED)),
            (Desk::Nobody, _) => return Err(Status::unavailable("no plugin leads at the moment")),
        };
        // Capacity of one message: the next is made only when this one has been taken.
        let (out, messages) = mpsc::channel(1);
        let shared = Arc::clone(&self.0.shared);
        tokio::spawn(session::run(shared, observer, seat, peer, request.into_inner(), out));
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}
