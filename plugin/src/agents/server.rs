//! The server that node agents connect to.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fiberlb_proto::agent::v1::peer_service_server::PeerService;
use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::transport::Server as Grpc;
use tonic::transport::server::Connected;
use uuid::Uuid;

use super::plugins::{Answers, answers};
use super::protocol::silence_limit;
use super::registry::Registry;
use super::route::SessionRoute;
use super::service::Agents;
use super::session::Shared;
use super::settings::{Listen, Settings};
use super::socket::{SocketFile, SocketFileError, incoming, listen_tcp, listen_unix};
use crate::tls;

/// Most bytes of a request's headers.
const HEADER_BYTES: u32 = 16 << 10;
/// Streams of one connection: one is used, and a second during a reconnect.
const STREAMS: u32 = 4;
/// A connection is probed when nothing came for this long, and closed after as long again.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// Drain deadline: longest wait for streams when the plugin stops.
const GRACE: Duration = Duration::from_secs(2);

/// Listens for node agents.
pub struct Server {
    socket: Socket,
    installation: Uuid,
    heartbeat: Duration,
    routes: watch::Receiver<SessionRoute>,
    answers: Option<Answers>,
}

enum Socket {
    Unix(UnixListener, SocketFile, PathBuf),
    Tcp(TcpListener, SocketAddr, Box<(tls::Files, tls::Loaded)>),
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
    /// A file of agents.tls_certificate, agents.tls_key or agents.client_ca.
    #[error("agents.tls_certificate, agents.tls_key or agents.client_ca: {0}")]
    Tls(String),
    /// The server ended.
    #[error("the server for node agents failed: {0}")]
    Failed(String),
}

impl Server {
    /// Binds the listener, on a runtime; `routes` is where the nodes' streams go, from the first one on.
    /// `None`: it is `off`.
    ///
    /// # Errors
    /// The address or file that cannot be used.
    pub fn bind(
        settings: &Settings,
        installation: Uuid,
        routes: watch::Receiver<SessionRoute>,
    ) -> Result<Option<Self>, ServerError> {
        settings.check()?;
        let refused = |why: String| ServerError::Listen { listen: settings.listen.clone(), why };
        let socket = match &settings.listen {
            Listen::Off => return Ok(None),
            Listen::Unix(path) => {
                let (listener, file) =
                    listen_unix(path).map_err(|error: SocketFileError| refused(error.to_string()))?;
                Socket::Unix(listener, file, path.clone())
            }
            Listen::Tcp(address) => {
                let files = tls_files(settings)?;
                let loaded = files.load().map_err(|error| ServerError::Tls(error.to_string()))?;
                let listener = listen_tcp(*address).map_err(|error| refused(error.to_string()))?;
                let address = listener.local_addr().map_err(|error| refused(error.to_string()))?;
                Socket::Tcp(listener, address, Box::new((files, loaded)))
            }
        };
        Ok(Some(Self { socket, installation, heartbeat: settings.heartbeat(), routes, answers: None }))
    }

    /// Answers other plugins on the store from `peers`.
    #[must_use]
    pub fn answering(self, peers: impl PeerService) -> Self {
        Self { answers: Some(answers(peers)), ..self }
    }

    /// Bound address; with the port that the kernel chose if 0 was configured.
    pub fn listen(&self) -> Listen {
        match &self.socket {
            Socket::Unix(_, _, path) => Listen::Unix(path.clone()),
            Socket::Tcp(_, address, _) => Listen::Tcp(*address),
        }
    }

    /// Serves until `stop` is true; then the nodes are notified.
    ///
    /// # Errors
    /// [`ServerError::Failed`].
    pub async fn serve(self, stop: watch::Receiver<bool>) -> Result<(), ServerError> {
        let shared = Arc::new(Shared {
            registry: Arc::new(Registry::new(silence_limit(self.heartbeat))),
            installation: self.installation,
            heartbeat: self.heartbeat,
            stop: stop.clone(),
        });
        let answers = |certified| self.answers.map_or_else(Routes::default, |answers| answers(certified));
        let agents = |certified| Agents { shared, routes: self.routes, certified }.service();
        match self.socket {
            Socket::Unix(listener, file, _) => {
                let routes = answers(false).add_service(agents(false));
                serve_on(incoming((listener, file)), routes, stop.clone()).await
            }
            Socket::Tcp(listener, _, tls) => {
                let (files, loaded) = *tls;
                let incoming = tls::handshakes(incoming(listener), tls::renew(files, loaded));
                let routes = answers(true).add_service(agents(true));
                serve_on(incoming, routes, stop.clone()).await
            }
        }
    }
}

async fn serve_on<Io>(
    incoming: impl Stream<Item = io::Result<Io>>,
    routes: Routes,
    mut stop: watch::Receiver<bool>,
) -> Result<(), ServerError>
where
    Io: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let mut late = stop.clone();
    // An error means that the sender is gone: stop too.
    let stopped = async move {
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let overdue = async move {
        let _ = late.wait_for(|stop| *stop).await;
        tokio::time::sleep(GRACE).await;
    };
    let served = Grpc::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .http2_max_header_list_size(HEADER_BYTES)
        .max_concurrent_streams(STREAMS)
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, stopped);
    tokio::select! {
        result = served => result.map_err(|error| ServerError::Failed(error.to_string())),
        () = overdue => Ok(()),
    }
}

pub(super) fn tls_files(settings: &Settings) -> Result<tls::Files, super::SettingsError> {
    let missing = |missing| super::SettingsError::NoTls { listen: settings.listen.clone(), missing };
    let file = |key, path: &Option<PathBuf>| path.clone().ok_or_else(|| missing(key));
    Ok(tls::Files {
        certificate: file("tls_certificate", &settings.tls_certificate)?,
        key: file("tls_key", &settings.tls_key)?,
        client_ca: Some(file("client_ca", &settings.client_ca)?),
    })
}
