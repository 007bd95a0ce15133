//! What the plugins on one store ask each other, on the listener for node agents (`fiberlb.agent.v1.PeerService`).

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

/// Longest wait for the plugin that leads to take a call.
const CONNECT: Duration = Duration::from_secs(2);
/// Largest answer, in bytes: 10,000 nodes are some MiB.
const ANSWER_BYTES: usize = 64 << 20;

/// How this plugin asks others.
#[derive(Clone, Debug)]
pub struct Plugins {
    settings: Settings,
}

impl Plugins {
    /// A plugin that shows others what its own listener for node agents shows.
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// Connects to the plugin that leads. The certificate is read anew each time.
    ///
    /// # Errors
    /// `UNAVAILABLE`: it cannot be reached.
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

/// Lets plugins pass, and nobody else.
#[derive(Clone, Copy)]
struct PluginsOnly {
    /// Whether peers show who they are with a certificate; else whoever can connect is trusted.
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

/// What answers other plugins, once it is known whether they show certificates.
pub(super) type Answers = Box<dyn FnOnce(bool) -> Routes + Send>;

/// Answers other plugins with what `peers` says.
pub(super) fn answers(peers: impl PeerService) -> Answers {
    Box::new(move |certified| {
        Routes::new(PeerServiceServer::with_interceptor(peers, PluginsOnly { certified }))
    })
}
