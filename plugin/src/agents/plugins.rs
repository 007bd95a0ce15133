//! Queries between the plugins on one store, on the listener for node agents
//! (`fiberlb.agent.v1.PeerService`).

use std::time::Duration;

use fiberlb_proto::agent::v1::peer_service_client::PeerServiceClient;
use fiberlb_proto::agent::v1::peer_service_server::{PeerService, PeerServiceServer};
use tonic::service::{Interceptor, Routes};
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::identity::Holder;
use super::peer::PeerAddress;
use super::relay;
use super::server::tls_files;
use super::service::certified;
use super::settings::{Listen, Settings};

/// Timeout of a connection to the leader.
const CONNECT: Duration = Duration::from_secs(2);
/// Largest answer, in bytes: 10,000 nodes are some MiB.
const ANSWER_BYTES: usize = 64 << 20;

/// Client for queries to other plugins.
#[derive(Clone, Debug)]
pub struct Plugins {
    settings: Settings,
}

impl Plugins {
    /// A client that presents the certificate of this plugin's own listener for node agents.
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// Connects to the leader. The certificate is reread each time.
    ///
    /// # Errors
    /// `UNAVAILABLE`: the leader cannot be reached.
    pub async fn ask(&self, leader: &PeerAddress) -> Result<PeerServiceClient<Channel>, Status> {
        let failed = |why: String| {
            Status::unavailable(format!("the plugin that leads, {leader}, cannot be asked: {why}"))
        };
        let tls = match &self.settings.listen {
            Listen::Tcp(_) => {
                let files = tls_files(&self.settings).map_err(|error| failed(error.to_string()))?;
                Some(files.load().map_err(|error| failed(error.to_string()))?)
            }
            Listen::Unix(_) | Listen::Off => None,
        };
        let channel = relay::connect(leader, tls.as_ref(), CONNECT).await.map_err(failed)?;
        Ok(PeerServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES))
    }
}

/// Interceptor that admits plugins only.
#[derive(Clone, Copy)]
struct PluginsOnly {
    /// True if peers present a certificate; else everybody who can connect is trusted.
    certified: bool,
}

impl Interceptor for PluginsOnly {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        if self.certified && certified(&request)? != Holder::Plugin {
            return Err(Status::permission_denied("only a plugin's certificate may ask this"));
        }
        Ok(request)
    }
}

/// Routes that answer other plugins, once it is known whether they present certificates.
pub(super) type Answers = Box<dyn FnOnce(bool) -> Routes + Send>;

/// Routes that answer other plugins from `peers`.
pub(super) fn answers(peers: impl PeerService) -> Answers {
    Box::new(move |certified| {
        Routes::new(PeerServiceServer::with_interceptor(peers, PluginsOnly { certified }))
    })
}
