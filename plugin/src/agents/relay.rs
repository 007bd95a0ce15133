//! Relays a node's stream to the leader, message by message, in both directions, unread.
//!
//! Each stream has a connection of its own to the leader: a node that reads slowly slows nobody else, and the leader's
//! windows are the node's. At most one message waits in each direction.

mod codec;
mod leader;
mod marks;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::{Body, BoxFuture, Bytes, StdError, http};
use tonic::server::{Grpc, StreamingService};
use tonic::{Request, Response, Status, Streaming};

use super::desk::{MOVED, Seat};
use super::peer::PeerAddress;
use super::service::{MESSAGE_BYTES, Reception};
use crate::tls;
use codec::Unread;
use leader::{Failure, Opened};
pub(crate) use leader::{METHOD, connect};
pub(crate) use marks::Relayed;

/// Most streams that are relayed at the same time.
const MOST_RELAYED: usize = 4096;
/// Longest wait for the two sides to receive the reason for a stream's end.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// Metrics of relayed streams. Clones share their values.
#[derive(Clone, Debug, Default)]
pub struct RelayMetrics {
    /// Streams that are relayed now.
    pub streams: Gauge,
    /// Streams that the leader refused, and those whose connection to it broke.
    pub failures: Counter,
}

impl RelayMetrics {
    /// Exports them.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "agent_streams_relayed",
            "Streams of node agents that are relayed to the plugin that leads",
            self.streams.clone(),
        );
        registry.register(
            "agent_relay_failures",
            "Streams of node agents that the plugin that leads did not take, or whose connection to it broke",
            self.failures.clone(),
        );
    }
}

/// State shared by all relayed streams.
pub(crate) struct Relay {
    /// Address of this plugin's listener; the leader logs it.
    own: String,
    /// Certificate presented to other plugins, and the CA trusted there.
    tls: Option<watch::Receiver<Arc<tls::Loaded>>>,
    metrics: RelayMetrics,
    places: Arc<Semaphore>,
    stop: watch::Receiver<bool>,
    /// Last failure of the leader that was logged.
    told: Mutex<Option<String>>,
}

impl Relay {
    pub(crate) fn new(
        own: String,
        tls: Option<watch::Receiver<Arc<tls::Loaded>>>,
        metrics: RelayMetrics,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self {
            own,
            tls,
            metrics,
            places: Arc::new(Semaphore::new(MOST_RELAYED)),
            stop,
            told: Mutex::default(),
        }
    }
}

impl Relay {
    /// Counts a stream that the leader did not accept, and logs the failure if it is new: all nodes keep
    /// retrying.
    fn failed(&self, leader: &PeerAddress, failure: &Failure) {
        self.metrics.failures.inc();
        let now = format!("{leader}: {failure}");
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.as_ref() != Some(&now) {
            tracing::warn!(%leader, %failure, "cannot relay node agents to the leader; they retry with other plugins");
            *told = Some(now);
        }
    }

    /// The leader has accepted a stream.
    fn succeeded(&self) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Status of a relayed stream that reaches a follower.
pub(crate) fn not_leading() -> Status {
    Status::failed_precondition("this plugin does not lead: a stream that was relayed is not relayed again")
}

/// The service for one stream.
pub(crate) struct Service {
    pub(crate) reception: Arc<Reception>,
    pub(crate) leader: PeerAddress,
    pub(crate) seat: Seat,
}

impl Service {
    pub(crate) async fn serve<B>(self, request: http::Request<B>) -> http::Response<tonic::body::Body>
    where
        B: Body + Send + 'static,
        B::Error: Into<StdError> + Send + 'static,
    {
        Grpc::new(Unread).max_decoding_message_size(MESSAGE_BYTES).streaming(Once(Some(self)), request).await
    }

    /// Opens the stream to the leader and starts relaying messages.
    async fn relay(mut self, request: Request<Streaming<Bytes>>) -> Result<Response<ToNode>, Status> {
        let relay = &self.reception.relay;
        let peer = self.reception.peer(&request)?;
        if peer.is_relayed {
            return Err(not_leading());
        }
        let place = Arc::clone(&relay.places).try_acquire_owned();
        let place = place.map_err(|_| Status::resource_exhausted("too many streams are relayed"))?;
        let marks = Relayed { by: relay.own.clone(), node: peer.certified };
        let opened = tokio::select! {
            opened = leader::open(&self.leader, relay.tls.as_ref(), &marks) => opened,
            () = self.seat.lost() => return Err(Status::unavailable(MOVED)),
        };
        let opened = opened.map_err(|failure| {
            relay.failed(&self.leader, &failure);
            failure.status(&self.leader)
        })?;
        relay.succeeded();
        let (out, messages) = mpsc::channel(1);
        let stream = Relaying { service: self, address: peer.address, out, _place: place };
        tokio::spawn(stream.run(request.into_inner(), opened));
        Ok(Response::new(ReceiverStream::new(messages)))
    }
}

type ToNode = ReceiverStream<Result<Bytes, Status>>;

/// Serves the only request that there is.
struct Once(Option<Service>);

impl StreamingService<Bytes> for Once {
    type Response = Bytes;
    type ResponseStream = ToNode;
    type Future = BoxFuture<Response<ToNode>, Status>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let service = self.0.take();
        Box::pin(async move {
            let service = service.ok_or_else(|| Status::internal("a stream begins once"))?;
            service.relay(request).await
        })
    }
}

/// A stream that is being relayed.
struct Relaying {
    service: Service,
    address: String,
    out: mpsc::Sender<Result<Bytes, Status>>,
    _place: OwnedSemaphorePermit,
}

/// Reason for the end of a relayed stream.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the node closed the stream")]
    NodeClosed,
    #[error("the node's stream broke: {}", .0.message())]
    NodeBroke(Status),
    #[error("the leader closed the stream")]
    LeaderClosed,
    #[error(transparent)]
    Leader(#[from] Failure),
    #[error("{MOVED}")]
    Moved,
    #[error("the plugin stops")]
    Stopping,
}

impl Relaying {
    async fn run(mut self, from_node: Streaming<Bytes>, opened: Opened) {
        let relay = &self.service.reception.relay;
        let (metrics, leader) = (relay.metrics.clone(), self.service.leader.clone());
        metrics.streams.inc();
        tracing::debug!(peer = self.address, %leader, "relaying node agent to the leader");
        let end = self.flow(from_node, opened).await;
        metrics.streams.dec();
        if matches!(end, End::Leader(Failure::Lost(_))) {
            metrics.failures.inc();
        }
        tracing::debug!(peer = self.address, %leader, %end, "stopped relaying node agent");
        if let Some(status) = end.status(&leader) {
            // Nobody is left to notify if the node does not take it.
            let _ = timeout(FAREWELL_TIMEOUT, self.out.send(Err(status))).await;
        }
    }

    async fn flow(&mut self, mut from_node: Streaming<Bytes>, opened: Opened) -> End {
        let Opened { to_leader, mut from_leader } = opened;
        let mut stop = self.service.reception.relay.stop.clone();
        let out = &self.out;
        let end = {
            let up = up(&mut from_node, &to_leader);
            let down = down(&mut from_leader, out);
            tokio::select! {
                end = up => end,
                end = down => end,
                () = out.closed() => End::NodeClosed,
                () = self.service.seat.lost() => End::Moved,
                _ = stop.wait_for(|stop| *stop) => End::Stopping,
            }
        };
        drop(to_leader);
        if matches!(end, End::NodeClosed) {
            // The leader must see the node's end, not a broken stream; and it has the last word.
            let _ = timeout(FAREWELL_TIMEOUT, rest(&mut from_leader, out)).await;
        }
        end
    }
}

async fn up(from_node: &mut Streaming<Bytes>, to_leader: &mpsc::Sender<Bytes>) -> End {
    loop {
        match from_node.message().await {
            Ok(Some(message)) => {
                if to_leader.send(message).await.is_err() {
                    // The other direction receives the reason why the leader accepts nothing more.
                    std::future::pending::<()>().await;
                }
            }
            Ok(None) => return End::NodeClosed,
            Err(status) => return End::NodeBroke(status),
        }
    }
}

async fn down(from_leader: &mut Streaming<Bytes>, out: &mpsc::Sender<Result<Bytes, Status>>) -> End {
    loop {
        match from_leader.message().await {
            Ok(Some(message)) => {
                if out.send(Ok(message)).await.is_err() {
                    return End::NodeClosed;
                }
            }
            Ok(None) => return End::LeaderClosed,
            Err(status) => return End::Leader(Failure::of(status)),
        }
    }
}

/// Forwards the leader's remaining messages to a node that may be gone.
async fn rest(from_leader: &mut Streaming<Bytes>, out: &mpsc::Sender<Result<Bytes, Status>>) {
    while let Some(message) = from_leader.message().await.transpose() {
        let is_last = message.is_err();
        // An error means that the node is gone; the leader's end is awaited all the same.
        let _ = out.send(message).await;
        if is_last {
            return;
        }
    }
}

impl End {
    /// Status sent to the node: None if it ended the stream itself, or the leader did without a reason.
    fn status(self, leader: &PeerAddress) -> Option<Status> {
        match self {
            Self::NodeClosed | Self::LeaderClosed => None,
            Self::NodeBroke(status) => Some(status),
            Self::Leader(failure) => Some(failure.status(leader)),
            Self::Moved => Some(Status::unavailable(MOVED)),
            Self::Stopping => Some(Status::unavailable("the plugin stops")),
        }
    }
}
