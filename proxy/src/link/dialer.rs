//! Opens streams to one plugin.

use std::time::Duration;

use fiberlb_proto::agent::v1;
use fiberlb_proto::agent::v1::agent_service_client::AgentServiceClient;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use uuid::Uuid;
use v1::node_message::Message;

use super::attempts::backoff;
use super::chunks::cut;
use super::client::NodeIdentity;
use super::endpoint::{PluginEndpoint, TlsFiles};
use super::protocol::VERSION;
use super::session::StreamEnd;

/// Longest wait for a plugin to accept the stream, or to refuse it.
pub(super) const ACCEPT_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest message of the plugin: an update is 256 KiB unless one object alone is larger, such as a pool of
/// 10,000 backends.
const MESSAGE_BYTES: usize = 16 << 20;
/// Most VIPs in a Hello.
const HELD_VIPS: usize = 10_000;
/// Most messages in flight to the plugin.
const IN_FLIGHT: usize = 4;

/// All that a stream to one plugin begins with.
pub(super) struct Dialer {
    pub(super) endpoint: PluginEndpoint,
    pub(super) tls: Option<TlsFiles>,
    pub(super) node: NodeIdentity,
    /// VIPs that the node holds at this moment.
    pub(super) held: watch::Receiver<Vec<Uuid>>,
}

/// A stream that a plugin has accepted.
pub(super) struct OpenStream {
    pub(super) out: mpsc::Sender<v1::NodeMessage>,
    pub(super) inbound: Streaming<v1::PluginMessage>,
    /// Its first message, where it has come already.
    pub(super) welcome: Option<v1::PluginMessage>,
}

impl Dialer {
    /// Opens a stream.
    pub(super) async fn open(&self) -> Result<OpenStream, StreamEnd> {
        let refused = |reason| StreamEnd::Refused(Status::unavailable(reason));
        let channel = self.endpoint.connect(self.tls.as_ref()).await.map_err(refused)?;
        let mut client = AgentServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES);
        let (out, outgoing) = mpsc::channel(IN_FLIGHT);
        // There is room: it is the first.
        let _ = out.try_send(self.hello());
        match timeout(ACCEPT_TIMEOUT, client.session(ReceiverStream::new(outgoing))).await {
            Ok(Ok(response)) => Ok(OpenStream { out, inbound: response.into_inner(), welcome: None }),
            Ok(Err(status)) => Err(StreamEnd::Refused(status)),
            Err(_) => Err(refused(format!("the stream was not accepted within {ACCEPT_TIMEOUT:?}"))),
        }
    }

    /// Opens a stream in the place of one that is `after` old by then, and retries until it is welcome. The older one goes on
    /// meanwhile.
    pub(super) async fn renew(&self, after: Duration) -> Box<OpenStream> {
        sleep(after).await;
        let mut attempts = 0_u32;
        loop {
            match self.open_welcome().await {
                Ok(open) => return Box::new(open),
                Err(reason) => {
                    tracing::info!(endpoint = %self.endpoint, %reason, "cannot renew the stream; retrying");
                }
            }
            attempts = attempts.saturating_add(1);
            sleep(backoff(attempts, fastrand::f64())).await;
        }
    }

    /// Opens a stream and waits until it is welcome.
    async fn open_welcome(&self) -> Result<OpenStream, StreamEnd> {
        let mut open = self.open().await?;
        let first = timeout(ACCEPT_TIMEOUT, open.inbound.message()).await;
        let silent =
            |_| StreamEnd::Refused(Status::unavailable(format!("no welcome within {ACCEPT_TIMEOUT:?}")));
        let first = first.map_err(silent)?.map_err(StreamEnd::Refused)?;
        open.welcome = Some(first.ok_or(StreamEnd::Closed)?);
        Ok(open)
    }

    fn hello(&self) -> v1::NodeMessage {
        let hello = v1::Hello {
            oldest_version: VERSION,
            newest_version: VERSION,
            node_id: self.node.id.clone(),
            boot_id: self.node.boot_id.clone(),
            capabilities: self.node.capabilities.clone(),
            chassis: cut(self.node.chassis.borrow().clone()),
            release: env!("CARGO_PKG_VERSION").to_owned(),
            zone: self.node.zone.clone(),
            held_vip_ids: self.held.borrow().iter().take(HELD_VIPS).map(ToString::to_string).collect(),
        };
        v1::NodeMessage { epoch: 0, message: Some(Message::Hello(hello)) }
    }
}
