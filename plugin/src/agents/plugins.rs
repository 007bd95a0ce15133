//! Queries between the plugins on one store, on the listener for node agents
//! (`fiberlb.agent.v1.PeerService`).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fiberlb_daemon::errors::chain;
use fiberlb_daemon::tls;
use fiberlb_proto::agent::v1::peer_service_client::PeerServiceClient;
use fiberlb_proto::agent::v1::peer_service_server::{PeerService, PeerServiceServer};
use tokio::time::timeout;
use tonic::service::{Interceptor, Routes};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Response, Status};

use super::identity::{Holder, holder_of};
use super::peer::PeerAddress;
use super::server::tls_files;
use super::service::certified;
use super::settings::{Listen, Settings};

/// Timeout of a connection to the leader.
const CONNECT: Duration = Duration::from_secs(2);
/// A silent connection is probed after this, and given up after as long again.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// Largest answer, in bytes: 1,000 differences of large rows.
const ANSWER_BYTES: usize = 64 << 20;

/// Client for queries to the leader, over one kept connection. Clones share it.
#[derive(Clone)]
pub struct Plugins {
    settings: Settings,
    kept: Arc<Mutex<Option<KeptChannel>>>,
}

/// Connection to a leader, which reconnects by itself.
struct KeptChannel {
    leader: PeerAddress,
    /// Files that it was opened with; `None` without TLS.
    pem: Option<tls::Pem>,
    channel: Channel,
}

impl Plugins {
    /// A client that presents the certificate of this plugin's own listener for node agents.
    pub fn new(settings: Settings) -> Self {
        Self { settings, kept: Arc::default() }
    }

    /// The same client over a connection of its own.
    #[must_use]
    pub fn on_another_connection(&self) -> Self {
        Self::new(self.settings.clone())
    }

    /// Asks the leader a question.
    ///
    /// # Errors
    /// The leader's own status, or `UNAVAILABLE`: it cannot be reached.
    pub async fn ask<T, Answer>(
        &self,
        leader: &PeerAddress,
        question: impl FnOnce(PeerServiceClient<Channel>) -> Answer,
    ) -> Result<T, Status>
    where
        Answer: Future<Output = Result<Response<T>, Status>>,
    {
        let failed =
            |why: String| Status::unavailable(format!("the leader, {leader}, cannot be asked: {why}"));
        let channel = self.channel(leader).await.map_err(failed)?;
        let client = PeerServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES);
        let answer = question(client).await.map(Response::into_inner);
        // A broken connection has a cause; a status of the leader has none.
        let is_broken = |status: &Status| std::error::Error::source(status).is_some();
        answer.map_err(|status| if is_broken(&status) { failed(chain(&status)) } else { status })
    }

    /// The kept connection, or a new one: to another leader, or with files that were replaced.
    async fn channel(&self, leader: &PeerAddress) -> Result<Channel, String> {
        let tls = self.load_tls()?;
        let pem = tls.as_ref().map(|tls| tls.pem.clone());
        if let Some(channel) = self.kept_for(leader, pem.as_ref()) {
            return Ok(channel);
        }
        let channel = connect(leader, tls.as_ref()).await?;
        let kept = KeptChannel { leader: leader.clone(), pem, channel: channel.clone() };
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept);
        Ok(channel)
    }

    fn kept_for(&self, leader: &PeerAddress, pem: Option<&tls::Pem>) -> Option<Channel> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |kept: &&KeptChannel| kept.leader == *leader && kept.pem.as_ref() == pem;
        kept.as_ref().filter(fits).map(|kept| kept.channel.clone())
    }

    fn load_tls(&self) -> Result<Option<tls::Loaded>, String> {
        if !matches!(self.settings.listen, Listen::Tcp(_)) {
            return Ok(None);
        }
        let files = tls_files(&self.settings).map_err(|error| error.to_string())?;
        files.load().map(Some).map_err(|error| error.to_string())
    }
}

async fn connect(leader: &PeerAddress, tls: Option<&tls::Loaded>) -> Result<Channel, String> {
    let endpoint = endpoint(leader, tls)?;
    let silent = |_| format!("it did not answer within {} s", CONNECT.as_secs());
    timeout(CONNECT, endpoint.connect()).await.map_err(silent)?.map_err(|error| chain(&error))
}

fn endpoint(leader: &PeerAddress, tls: Option<&tls::Loaded>) -> Result<Endpoint, String> {
    let endpoint = Endpoint::from_shared(leader.to_string()).map_err(|error| chain(&error))?;
    let endpoint = endpoint
        .connect_timeout(CONNECT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true);
    match leader {
        PeerAddress::Unix(_) => Ok(endpoint),
        PeerAddress::Https { .. } => endpoint.tls_config(mutual(tls)?).map_err(|error| chain(&error)),
    }
}

/// Client side of mutual TLS: presents the certificate that the plugin's listener presents, and trusts the
/// same CA.
fn mutual(tls: Option<&tls::Loaded>) -> Result<ClientTlsConfig, String> {
    let tls = tls
        .ok_or("this plugin listens for node agents without TLS, and so has no certificate to show there")?;
    if tls.certificates.first().map(holder_of) != Some(Ok(Holder::Plugin)) {
        return Err(
            "agents.tls_certificate is no plugin's, for it lacks the alternative name urn:fiberlb:plugin: \
                    `fiberlb-plugin agent-ca server` makes one"
                .to_owned(),
        );
    }
    let identity = Identity::from_pem(&tls.pem.certificate, &tls.pem.key);
    let ca = Certificate::from_pem(tls.pem.client_ca.as_deref().unwrap_or_default());
    Ok(ClientTlsConfig::new().ca_certificate(ca).identity(identity))
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
