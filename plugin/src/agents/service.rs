//! The gRPC service: hands each stream to a session of its own.

use std::sync::Arc;

use fiberlb_proto::agent::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use v1::agent_service_server::AgentService;

use super::identity::node_of;
use super::session::{self, Peer, Shared};

/// `fiberlb.agent.v1.AgentService`.
pub(crate) struct Agents {
    pub(crate) shared: Arc<Shared>,
    /// Whether nodes show who they are with a certificate; else whoever can connect is trusted.
    pub(crate) certified: bool,
}

#[tonic::async_trait]
impl AgentService for Agents {
    type SessionStream = ReceiverStream<Result<v1::PluginMessage, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::NodeMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let address = request.remote_addr().map_or_else(|| "unix".to_owned(), |address| address.to_string());
        let peer = Peer { certified: self.certified.then(|| certified(&request)).transpose()?, address };
        // One message: the next is made only when this one has been taken.
        let (out, messages) = mpsc::channel(1);
        tokio::spawn(session::run(Arc::clone(&self.shared), peer, request.into_inner(), out));
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}

fn certified<T>(request: &Request<T>) -> Result<String, Status> {
    let certificates =
        request.peer_certs().ok_or_else(|| Status::unauthenticated("no certificate was shown"))?;
    let certificate =
        certificates.first().ok_or_else(|| Status::unauthenticated("no certificate was shown"))?;
    node_of(certificate).map_err(Status::permission_denied)
}
