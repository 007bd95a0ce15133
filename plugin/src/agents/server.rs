//! The server that node agents connect to.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fiberlb_daemon::listen::{Keepalive, Listener, Listeners, Socket};
use fiberlb_daemon::tls;
use fiberlb_proto::agent::v1::peer_service_server::PeerService;
use hyper_util::service::TowerToHyperService;
use tokio::sync::watch;
use tonic::service::Routes;
use uuid::Uuid;

use super::plugins::{Answers, answers};
use super::protocol::silence_limit;
use super::registry::Registry;
use super::route::SessionRoute;
use super::service::Agents;
use super::session::Shared;
use super::settings::{Listen, Settings};

/// Name of the listener in metrics and logs.
const NAME: &str = "agents";
/// A connection is probed when nothing came for this long, and closed after as long again.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// Drain deadline: longest wait for streams when the plugin stops.
const GRACE: Duration = Duration::from_secs(2);

/// Listens for node agents.
pub struct Server {
    listener: Listener,
    listen: Listen,
    installation: Uuid,
    heartbeat: Duration,
    stream_age: Duration,
    routes: watch::Receiver<SessionRoute>,
    answers: Option<Answers>,
}

/// Failure to listen for node agents.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The settings.
    #[error(transparent)]
    Settings(#[from] super::SettingsError),
    /// The socket.
    #[error("cannot listen for node agents on {listen} (agents.listen): {why}")]
    Listen {
        /// Address.
        listen: Listen,
        /// Reason.
        why: String,
    },
    /// A file of agents.tls_certificate, agents.tls_key, agents.client_ca or agents.client_crl.
    #[error("agents.tls_certificate, agents.tls_key, agents.client_ca or agents.client_crl: {0}")]
    Tls(String),
}

impl Server {
    /// Binds the listener, on a runtime; `routes` is where the nodes' streams go, from the first one on. `listeners` shows its
    /// state. `None`: it is `off`.
    ///
    /// # Errors
    /// The address or file that cannot be used.
    pub fn bind(
        settings: &Settings,
        installation: Uuid,
        routes: watch::Receiver<SessionRoute>,
        listeners: &Listeners,
    ) -> Result<Option<Self>, ServerError> {
        settings.check()?;
        let refused = |why: String| ServerError::Listen { listen: settings.listen.clone(), why };
        let listener = |socket| Listener::new(NAME, socket, settings.connections.clone(), listeners.clone());
        let (listener, listen) = match &settings.listen {
            Listen::Off => return Ok(None),
            Listen::Unix(path) => {
                let socket = Socket::unix(path).map_err(|error| refused(error.to_string()))?;
                (listener(socket), settings.listen.clone())
            }
            Listen::Tcp(address) => {
                let files = tls_files(settings)?;
                let loaded = files.load().map_err(|error| ServerError::Tls(error.to_string()))?;
                let socket = Socket::tcp(*address).map_err(|error| refused(error.to_string()))?;
                let bound = socket.address().unwrap_or(*address);
                (listener(socket).with_tls(files, loaded), Listen::Tcp(bound))
            }
        };
        let keepalive = Keepalive { interval: KEEPALIVE, timeout: KEEPALIVE };
        let listener = listener.http2_only().with_keepalive(keepalive).with_drain(GRACE);
        let (heartbeat, stream_age) = (settings.heartbeat(), settings.stream_age());
        Ok(Some(Self { listener, listen, installation, heartbeat, stream_age, routes, answers: None }))
    }

    /// Answers other plugins on the store from `peers`.
    #[must_use]
    pub fn answering(self, peers: impl PeerService) -> Self {
        Self { answers: Some(answers(peers)), ..self }
    }

    /// Bound address; with the port that the kernel chose if 0 was configured.
    pub fn listen(&self) -> Listen {
        self.listen.clone()
    }

    /// Serves until `stop` is true; then the nodes are notified.
    pub async fn serve(self, stop: watch::Receiver<bool>) {
        let shared = Arc::new(Shared {
            registry: Arc::new(Registry::new(silence_limit(self.heartbeat))),
            installation: self.installation,
            heartbeat: self.heartbeat,
            stream_age: self.stream_age,
            stop: stop.clone(),
        });
        // A socket file has no TLS: who can connect is trusted.
        let certified = matches!(self.listen, Listen::Tcp(_));
        let answers = self.answers.map_or_else(Routes::default, |answers| answers(certified));
        let agents = Agents { shared, routes: self.routes, certified }.service();
        let routes = answers.add_service(agents).prepare();
        self.listener.serve(TowerToHyperService::new(routes), stop).await;
    }
}

pub(crate) fn tls_files(settings: &Settings) -> Result<tls::Files, super::SettingsError> {
    let missing = |missing| super::SettingsError::NoTls { listen: settings.listen.clone(), missing };
    let file = |key, path: &Option<PathBuf>| path.clone().ok_or_else(|| missing(key));
    Ok(tls::Files {
        certificate: file("tls_certificate", &settings.tls_certificate)?,
        key: file("tls_key", &settings.tls_key)?,
        client_ca: Some(file("client_ca", &settings.client_ca)?),
        client_crl: settings.client_crl.clone(),
    })
}
