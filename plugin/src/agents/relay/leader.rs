//! A stream to the leader.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codegen::Bytes;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status, Streaming};

use super::codec::Unread;
use super::marks::Relayed;
use crate::agents::identity::{Holder, holder_of};
use crate::agents::peer::PeerAddress;
use crate::tls::{self, chain};

/// The one method that is relayed.
pub(crate) const METHOD: &str = "/fiberlb.agent.v1.AgentService/Session";
/// Longest wait for the leader to accept a stream, including the connection: the agent waits for it, and then
/// tries another plugin.
const OPEN: Duration = Duration::from_secs(1);
/// A silent connection is probed after this, and given up after as long again.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// Most bytes of the leader that wait for a node: two updates.
const WINDOW: u32 = 512 << 10;
/// Largest message of the leader: as large as an agent accepts.
const MESSAGE_BYTES: usize = 16 << 20;

/// A stream that the leader has accepted.
pub(super) struct Opened {
    pub(super) to_leader: mpsc::Sender<Bytes>,
    pub(super) from_leader: Streaming<Bytes>,
}

/// Failure to open or keep a stream to the leader.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The leader's own status.
    #[error("{}", .0.message())]
    Said(Status),
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    #[error("the connection to it is lost: {0}")]
    Lost(String),
}

impl Failure {
    /// Reason for a stream's end: the leader's own status, or a broken connection, which has a cause.
    pub(super) fn of(status: Status) -> Self {
        if std::error::Error::source(&status).is_none() {
            Self::Said(status)
        } else {
            Self::Lost(chain(&status))
        }
    }

    /// Status sent to the agent.
    pub(super) fn status(self, leader: &PeerAddress) -> Status {
        match self {
            Self::Said(status) => status,
            other => Status::new(Code::Unavailable, format!("the plugin that leads, {leader}: {other}")),
        }
    }
}

/// Opens a stream to the leader for a node.
pub(super) async fn open(
    leader: &PeerAddress,
    tls: Option<&watch::Receiver<Arc<tls::Loaded>>>,
    marks: &Relayed,
) -> Result<Opened, Failure> {
    let tls = tls.map(|tls| Arc::clone(&tls.borrow()));
    let endpoint = endpoint(leader, tls.as_deref()).map_err(Failure::Unreachable)?;
    let opened = async {
        let channel = endpoint.connect().await.map_err(|error| Failure::Unreachable(chain(&error)))?;
        begin(channel, marks).await
    };
    let silent = |_| Failure::Unreachable(format!("it did not answer within {} s", OPEN.as_secs()));
    timeout(OPEN, opened).await.map_err(silent)?
}

/// Connects to another plugin, for anything but a node's stream.
pub(crate) async fn connect(
    leader: &PeerAddress,
    tls: Option<&tls::Loaded>,
    within: Duration,
) -> Result<Channel, String> {
    let endpoint = endpoint(leader, tls)?;
    let silent = |_| format!("it did not answer within {} s", within.as_secs());
    timeout(within, endpoint.connect()).await.map_err(silent)?.map_err(|error| chain(&error))
}

async fn begin(channel: Channel, marks: &Relayed) -> Result<Opened, Failure> {
    let mut grpc = Grpc::new(channel).max_decoding_message_size(MESSAGE_BYTES);
    grpc.ready().await.map_err(|error| Failure::Unreachable(chain(&error)))?;
    let (to_leader, messages) = mpsc::channel(1);
    let mut request = Request::new(ReceiverStream::new(messages));
    marks.write(request.metadata_mut());
    let path = PathAndQuery::from_static(METHOD);
    let answer = grpc.streaming(request, path, Unread).await;
    let from_leader = answer.map_err(|status| match Failure::of(status) {
        // With TLS 1.3 a certificate that the leader refuses is an error of the stream.
        Failure::Lost(why) => Failure::Unreachable(why),
        other => other,
    })?;
    Ok(Opened { to_leader, from_leader: from_leader.into_inner() })
}

fn endpoint(leader: &PeerAddress, tls: Option<&tls::Loaded>) -> Result<Endpoint, String> {
    let endpoint = Endpoint::from_shared(leader.to_string()).map_err(|error| chain(&error))?;
    let endpoint = endpoint
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
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
