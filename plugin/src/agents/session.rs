//! One node's stream, from its Hello to its end.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fiberlb_proto::agent::v1;
use futures_util::{Stream, StreamExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tonic::{Code, Status};
use uuid::Uuid;

use super::changes::{Configuration, Follower};
use super::input::{Acknowledgement, ResultKind};
use super::protocol::{Event, Protocol, ProtocolViolation};
use super::registry::{Observer, Presence, Refusal, Registry};
use super::route::{MOVED, RouteWatch};

/// Longest wait for the Hello of a stream.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for a slow node to receive the reason for its stream's end.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// Time that a node has for renewing a stream that is old enough.
const RENEWAL: Duration = Duration::from_secs(10);

/// Outgoing messages: one in flight, and the next is made only when there is room for it.
pub(crate) type Out = mpsc::Sender<Result<v1::PluginMessage, Status>>;

/// State shared by all sessions.
pub(crate) struct Shared {
    pub(crate) registry: Arc<Registry>,
    pub(crate) installation: Uuid,
    pub(crate) heartbeat: Duration,
    /// Age of a stream at which its node renews it, less up to a tenth.
    pub(crate) stream_age: Duration,
    /// True once the plugin stops.
    pub(crate) stop: watch::Receiver<bool>,
}

/// Peer of a stream, as far as its connection tells.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Node id of its certificate; `None` where peers present none.
    pub(crate) certified: Option<String>,
    /// Address that it connects from; for people.
    pub(crate) address: String,
    /// Serial number of its certificate; empty where peers present none.
    pub(crate) serial: String,
}

/// Reason for the end of a stream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    #[error("the node closed the stream")]
    Closed,
    #[error("the stream broke: {}", .0.message())]
    Broken(Status),
    #[error("no Hello came within {} s", HELLO_TIMEOUT.as_secs())]
    NoHello,
    #[error(transparent)]
    Violated(#[from] ProtocolViolation),
    #[error("{node}: {refusal}")]
    Refused { node: String, refusal: Refusal },
    #[error("a later stream of the node took its place")]
    Replaced,
    #[error("the stream is too old, and the node has not renewed it: connect again")]
    TooOld,
    #[error("the node's configuration comes anew: connect again")]
    Dismissed,
    #[error("{MOVED}")]
    Moved,
    #[error("the plugin stops")]
    Stopping,
}

/// Serves one stream to its end.
pub(crate) async fn run<S>(
    shared: Arc<Shared>,
    observer: Arc<dyn Observer>,
    mut route: RouteWatch,
    peer: Peer,
    inbound: S,
    out: Out,
) where
    S: Stream<Item = Result<v1::NodeMessage, Status>> + Send,
{
    let mut inbound = pin!(inbound);
    let mut protocol = Protocol::new(peer.certified, shared.heartbeat, Instant::now());
    let joined = tokio::select! {
        joined = join(&shared, &observer, &mut protocol, &mut inbound) => joined,
        () = route.changed() => Err(End::Moved),
    };
    let end = match joined {
        Err(end) => {
            tracing::warn!(%end, "rejected node agent");
            end
        }
        Ok((presence, configuration)) => {
            let span = tracing::Span::current();
            span.record("node", presence.node()).record("epoch", presence.epoch());
            tracing::info!(serial = peer.serial, "node agent connected");
            let read = presence.read_listeners();
            let follower = Follower::default();
            let mut session = Session { protocol, presence, follower, configuration, read, out: &out };
            let end = tokio::select! {
                end = session.run(&shared, &mut inbound) => end,
                () = route.changed() => End::Moved,
            };
            tracing::info!(%end, "node agent disconnected");
            session.presence.is_renewed = matches!(end, End::Replaced);
            session.presence.reason = end.to_string();
            end
        }
    };
    farewell(&out, &end).await;
}

/// Waits for the node's Hello and admits it.
async fn join<S>(
    shared: &Shared,
    observer: &Arc<dyn Observer>,
    protocol: &mut Protocol,
    inbound: &mut S,
) -> Result<(Presence, watch::Receiver<Option<Arc<Configuration>>>), End>
where
    S: Stream<Item = Result<v1::NodeMessage, Status>> + Unpin,
{
    let mut stop = shared.stop.clone();
    let hello = async {
        let message = timeout(HELLO_TIMEOUT, inbound.next()).await.map_err(|_| End::NoHello)?;
        let message = message.ok_or(End::Closed)?.map_err(End::Broken)?;
        match protocol.receive(message, Instant::now())? {
            Event::Hello(hello) => {
                let refused = |refusal| End::Refused { node: hello.node_id.clone(), refusal };
                shared.registry.join(observer, &hello).await.map_err(refused)
            }
            _ => Err(End::NoHello),
        }
    };
    tokio::select! {
        joined = hello => joined,
        _ = stop.wait_for(|stop| *stop) => Err(End::Stopping),
    }
}

/// A stream whose node has joined.
struct Session<'a> {
    protocol: Protocol,
    presence: Presence,
    follower: Follower,
    configuration: watch::Receiver<Option<Arc<Configuration>>>,
    /// Listeners whose connections are read; `None`: the node does not send them.
    read: Option<watch::Receiver<Arc<BTreeSet<Uuid>>>>,
    out: &'a Out,
}

impl Session<'_> {
    async fn run<S>(&mut self, shared: &Shared, inbound: &mut S) -> End
    where
        S: Stream<Item = Result<v1::NodeMessage, Status>> + Unpin,
    {
        let renew_after = renew_after(shared.stream_age, fastrand::f64());
        let (epoch, now) = (self.presence.epoch(), Instant::now());
        let welcome = self.protocol.welcome(epoch, shared.installation, renew_after, now);
        if self.out.send(Ok(welcome)).await.is_err() {
            return End::Closed;
        }
        let mut stop = shared.stop.clone();
        let mut replaced = pin!(self.presence.replaced());
        let mut too_old = pin!(sleep(renew_after + RENEWAL));
        let mut ticks = interval(shared.heartbeat / 2);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.configuration.mark_changed();
        // Always told at the beginning: a stream that takes the place of another one goes on with what that one was told.
        let mut is_read_anew = self.read.is_some();
        loop {
            let step = tokio::select! {
                () = &mut replaced => Err(End::Replaced),
                () = &mut too_old => Err(End::TooOld),
                _ = stop.wait_for(|stop| *stop) => Err(End::Stopping),
                () = self.out.closed() => Err(End::Closed),
                _ = ticks.tick() => self.tick(),
                message = inbound.next() => self.hear(message),
                changed = self.configuration.changed(), if self.follower.is_idle() => match changed {
                    Ok(()) => { self.follow(); Ok(()) }
                    Err(_) => Err(End::Dismissed),
                },
                () = changed(self.read.as_mut()), if !is_read_anew => { is_read_anew = true; Ok(()) }
                permit = self.out.reserve(), if is_read_anew => match permit {
                    Ok(permit) => {
                        is_read_anew = false;
                        let listeners = self.read.as_mut().map(|read| Arc::clone(&read.borrow_and_update()));
                        let demand = self.protocol.demand(&listeners.unwrap_or_default(), Instant::now());
                        permit.send(Ok(demand));
                        Ok(())
                    }
                    Err(_) => Err(End::Closed),
                },
                permit = self.out.reserve(), if !self.follower.is_idle() => match permit {
                    Ok(permit) => {
                        let update = self.follower.next_update();
                        if let Some(update) = update {
                            permit.send(Ok(self.protocol.update(update, Instant::now())));
                        }
                        Ok(())
                    }
                    Err(_) => Err(End::Closed),
                },
            };
            if let Err(end) = step {
                return end;
            }
            // A node that floods this plugin must not starve the others.
            tokio::task::coop::consume_budget().await;
        }
    }

    fn follow(&mut self) {
        let newest = self.configuration.borrow_and_update().clone();
        if let Some(newest) = newest {
            self.follower.follow(newest);
        }
    }

    fn tick(&mut self) -> Result<(), End> {
        let now = Instant::now();
        self.protocol.check_silence(now)?;
        // Without room a message is in flight to the node already.
        if let Ok(permit) = self.out.try_reserve()
            && let Some(heartbeat) = self.protocol.heartbeat(now)
        {
            permit.send(Ok(heartbeat));
        }
        Ok(())
    }

    fn hear(&mut self, message: Option<Result<v1::NodeMessage, Status>>) -> Result<(), End> {
        let message = message.ok_or(End::Closed)?.map_err(End::Broken)?;
        let event = self.protocol.receive(message, Instant::now())?;
        self.presence.heard();
        match event {
            Event::Acknowledged { revision, results } => {
                results.iter().try_for_each(|result| self.check_generation(result))?;
                let settled = self.follower.is_idle() && revision == self.protocol.sent() && revision > 0;
                self.presence.acknowledged(settled, results);
            }
            Event::Verdicts { complete, verdicts, inconclusive } => {
                self.presence.verdicts(complete, verdicts);
                self.presence.inconclusive(complete, inconclusive);
            }
            Event::Counters { listeners, backends, ejections, troubles } => {
                self.presence.counters(listeners, backends);
                self.presence.ejections(ejections);
                if let Some(troubles) = troubles {
                    self.presence.troubles(troubles);
                }
            }
            Event::AccessLog(report) => self.presence.access_log(report),
            Event::Hello(_) | Event::Alive => {}
        }
        Ok(())
    }
}

impl Session<'_> {
    /// Checks that a node has not served more than it was sent.
    fn check_generation(&self, result: &Acknowledgement) -> Result<(), ProtocolViolation> {
        let most = match result.kind {
            ResultKind::Listener => self.follower.generation(result.id),
            ResultKind::Network | ResultKind::Pool => None,
        };
        match most.filter(|most| result.generation > *most) {
            Some(most) => {
                let value = result.generation;
                Err(ProtocolViolation::TooLarge { field: "Result.generation", value, most })
            }
            None => Ok(()),
        }
    }
}

/// Resolves once other listeners are read; never, if the node sends no connections, or nobody is left to read any.
async fn changed(read: Option<&mut watch::Receiver<Arc<BTreeSet<Uuid>>>>) {
    let is_changed = match read {
        Some(read) => read.changed().await.is_ok(),
        None => false,
    };
    if !is_changed {
        std::future::pending::<()>().await;
    }
}

/// Age at which a node renews its stream: nine to ten tenths of the longest one, by a random number from 0 to 1. Nodes that
/// came together do not all come again together.
fn renew_after(age: Duration, random: f64) -> Duration {
    age.mul_f64(0.9 + random.clamp(0.0, 1.0) / 10.0)
}

/// Sends the node the reason for its stream's end, if it still reads.
async fn farewell(out: &Out, end: &End) {
    if let Some(status) = end.status() {
        // Nobody is left to notify if the node does not take it.
        let _ = timeout(FAREWELL_TIMEOUT, out.send(Err(status))).await;
    }
}

impl End {
    /// Status sent to the node: None if it ended the stream itself.
    fn status(&self) -> Option<Status> {
        let code = match self {
            Self::Closed => return None,
            Self::Broken(status) => status.code(),
            Self::NoHello => Code::DeadlineExceeded,
            Self::Violated(violation) => match violation {
                ProtocolViolation::Version { .. } => Code::FailedPrecondition,
                ProtocolViolation::Identity { .. } => Code::PermissionDenied,
                ProtocolViolation::Silent(_) => Code::DeadlineExceeded,
                _ => Code::InvalidArgument,
            },
            Self::Refused { refusal, .. } => match refusal {
                Refusal::Alive => Code::AlreadyExists,
                Refusal::Full => Code::ResourceExhausted,
                Refusal::NotReady(_) => Code::Unavailable,
                Refusal::Denied(_) => Code::PermissionDenied,
            },
            Self::Replaced => Code::Aborted,
            Self::TooOld | Self::Dismissed | Self::Moved | Self::Stopping => Code::Unavailable,
        };
        Some(Status::new(code, self.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_renewed_before_their_time_and_not_all_at_once() {
        let age = Duration::from_secs(100);
        assert_eq!([0.0, 0.5, 1.0].map(|random| renew_after(age, random).as_secs()), [90, 95, 100]);
    }
}
