//! The server that node agents connect to.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fiberlb_proto::agent::v1::agent_service_server::AgentServiceServer;
use futures_util::Stream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tonic::transport::server::Connected;
use tonic::transport::{Certificate, Identity, Server as Grpc, ServerTlsConfig};
use uuid::Uuid;

use super::protocol::silence_limit;
use super::registry::{Observer, Registry};
use super::service::Agents;
use super::session::Shared;
use super::settings::{Listen, Settings};
use super::socket::{SocketFile, SocketFileError, incoming, listen_tcp, listen_unix};

/// Most bytes of a node's message.
const MESSAGE_BYTES: usize = 1 << 20;
/// Most bytes of a request's headers.
const HEADER_BYTES: u32 = 16 << 10;
/// Streams of one connection: one is used, and a second while a node connects anew.
const STREAMS: u32 = 4;
/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection is probed when nothing came for this long, and closed after as long again.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// Longest wait for streams when the plugin stops.
const GRACE: Duration = Duration::from_secs(2);

/// Listens for node agents.
pub struct Server {
    socket: Socket,
    registry: Arc<Registry>,
    installation: Uuid,
    heartbeat: Duration,
}

enum Socket {
    Unix(UnixListener, SocketFile, PathBuf),
    Tcp(TcpListener, SocketAddr, Box<Grpc>),
}

/// Why the plugin cannot listen for node agents.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The settings.
    #[error(transparent)]
    Settings(#[from] super::SettingsError),
    /// The socket.
    #[error("cannot listen for node agents on {listen} (agents.listen): {why}")]
    Listen {
        /// Where.
        listen: Listen,
        /// Why not.
        why: String,
    },
    /// A file of agents.tls_certificate, agents.tls_key or agents.client_ca.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What is in these files.
    #[error("agents.tls_certificate, agents.tls_key or agents.client_ca cannot be used: {0}")]
    Tls(String),
    /// The server ended.
    #[error("the server for node agents failed: {0}")]
    Failed(String),
}

impl Server {
    /// Listens, on a runtime. None: the settings say `off`.
    ///
    /// # Errors
    /// What cannot be listened on or read.
    pub fn bind(
        settings: &Settings,
        installation: Uuid,
        observer: Arc<dyn Observer>,
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
                let grpc = Box::new(with_tls(settings)?);
                let listener = listen_tcp(*address).map_err(|error| refused(error.to_string()))?;
                let address = listener.local_addr().map_err(|error| refused(error.to_string()))?;
                Socket::Tcp(listener, address, grpc)
            }
        };
        let heartbeat = settings.heartbeat();
        let registry = Arc::new(Registry::new(observer, silence_limit(heartbeat)));
        Ok(Some(Self { socket, registry, installation, heartbeat }))
    }

    /// Where it listens; with the port that the kernel chose where 0 was asked for.
    pub fn listen(&self) -> Listen {
        match &self.socket {
            Socket::Unix(_, _, path) => Listen::Unix(path.clone()),
            Socket::Tcp(_, address, _) => Listen::Tcp(*address),
        }
    }

    /// Serves until `stop` says true; then the nodes are told.
    ///
    /// # Errors
    /// [`ServerError::Failed`].
    pub async fn serve(self, stop: watch::Receiver<bool>) -> Result<(), ServerError> {
        let shared = Arc::new(Shared {
            registry: self.registry,
            installation: self.installation,
            heartbeat: self.heartbeat,
            stop: stop.clone(),
        });
        match self.socket {
            Socket::Unix(listener, file, _) => {
                let service = Agents { shared, certified: false };
                serve_on(Grpc::builder(), incoming((listener, file)), service, stop).await
            }
            Socket::Tcp(listener, _, grpc) => {
                let service = Agents { shared, certified: true };
                serve_on(*grpc, incoming(listener), service, stop).await
            }
        }
    }
}

async fn serve_on<Io>(
    grpc: Grpc,
    incoming: impl Stream<Item = io::Result<Io>>,
    service: Agents,
    mut stop: watch::Receiver<bool>,
) -> Result<(), ServerError>
where
    Io: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
{
    let mut late = stop.clone();
    // An error means that whoever could stop us is gone: stop too.
    let stopped = async move {
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let overdue = async move {
        let _ = late.wait_for(|stop| *stop).await;
        tokio::time::sleep(GRACE).await;
    };
    let served = grpc
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .http2_max_header_list_size(HEADER_BYTES)
        .max_concurrent_streams(STREAMS)
        .add_service(AgentServiceServer::new(service).max_decoding_message_size(MESSAGE_BYTES))
        .serve_with_incoming_shutdown(incoming, stopped);
    tokio::select! {
        result = served => result.map_err(|error| ServerError::Failed(error.to_string())),
        () = overdue => Ok(()),
    }
}

fn with_tls(settings: &Settings) -> Result<Grpc, ServerError> {
    let missing = |missing| super::SettingsError::NoTls { listen: settings.listen.clone(), missing };
    let file = |key, path: &Option<PathBuf>| read(path.as_deref().ok_or_else(|| missing(key))?);
    let certificate = file("tls_certificate", &settings.tls_certificate)?;
    let identity = Identity::from_pem(certificate, file("tls_key", &settings.tls_key)?);
    let ca = Certificate::from_pem(file("client_ca", &settings.client_ca)?);
    let tls = ServerTlsConfig::new().identity(identity).client_ca_root(ca).timeout(HANDSHAKE_TIMEOUT);
    Grpc::builder().tls_config(tls).map_err(|error| ServerError::Tls(chain(&error)))
}

fn read(path: &Path) -> Result<Vec<u8>, ServerError> {
    std::fs::read(path).map_err(|source| ServerError::Read { path: path.to_owned(), source })
}

/// An error with what lies behind it: tonic's own says only that it is one.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
