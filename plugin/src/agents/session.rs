//! One node's stream, from its Hello to its end.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fiberlb_proto::agent::v1;
use futures_util::{Stream, StreamExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until, timeout};
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

/// Time in which changes of the access logs that a node is to send are gathered.
const LOG_GATHER: Duration = Duration::from_millis(100);

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
            let logs =
                presence.read_listeners().map(|read| LogDemand::new(read, tokio::time::Instant::now()));
            let follower = Follower::default();
            let mut session = Session { protocol, presence, follower, configuration, logs, out: &out };
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
    /// Access logs that the node is to send; `None`: it cannot.
    logs: Option<LogDemand>,
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
        loop {
            let logs_due = self.logs.as_ref().and_then(|logs| logs.due);
            let step = tokio::select! {
                () = &mut replaced => Err(End::Replaced),
                () = &mut too_old => Err(End::TooOld),
                _ = stop.wait_for(|stop| *stop) => Err(End::Stopping),
                () = self.out.closed() => Err(End::Closed),
                _ = ticks.tick() => self.tick(),
                message = inbound.next() => self.hear(message),
                changed = self.configuration.changed(), if self.follower.is_idle() => match changed {
                    Ok(()) => { self.follow(); self.look_at_logs(); Ok(()) }
                    Err(_) => Err(End::Dismissed),
                },
                () = LogDemand::changed(self.logs.as_mut()) => { self.look_at_logs(); Ok(()) }
                permit = reserve_at(self.out, logs_due) => match permit {
                    Ok(permit) => {
                        if let Some(listeners) = self.demanded() {
                            permit.send(Ok(self.protocol.demand(&listeners, Instant::now())));
                        }
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

    /// Other listeners may be read, or served by the node.
    fn look_at_logs(&mut self) {
        if let Some(logs) = &mut self.logs {
            logs.look(tokio::time::Instant::now());
        }
    }

    /// Listeners that the node has to be told of, if they are others than those that it knows.
    fn demanded(&mut self) -> Option<BTreeSet<Uuid>> {
        let logs = self.logs.as_mut()?;
        logs.due = None;
        // Once it is known, this is looked at again.
        let configuration = self.configuration.borrow().clone()?;
        logs.take(|id| configuration.listeners.contains_key(id))
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

/// Listeners whose access log a node is to send: those of the node that somebody reads.
struct LogDemand {
    read: watch::Receiver<Arc<BTreeSet<Uuid>>>,
    /// Listeners that the node was told of; `None`: it was told nothing yet. It is always told at the beginning of a stream, since
    /// one that takes the place of another one goes on with what that one was told.
    told: Option<BTreeSet<Uuid>>,
    /// Time at which it is to be told, if they are others by then.
    due: Option<tokio::time::Instant>,
}

impl LogDemand {
    fn new(read: watch::Receiver<Arc<BTreeSet<Uuid>>>, now: tokio::time::Instant) -> Self {
        Self { read, told: None, due: Some(now + LOG_GATHER) }
    }

    fn look(&mut self, now: tokio::time::Instant) {
        self.due.get_or_insert(now + LOG_GATHER);
    }

    /// Listeners to tell the node of, by those that it serves; `None`: it knows them.
    fn take(&mut self, is_served: impl Fn(&Uuid) -> bool) -> Option<BTreeSet<Uuid>> {
        let wanted: BTreeSet<Uuid> =
            self.read.borrow_and_update().iter().copied().filter(is_served).collect();
        if self.told.as_ref() == Some(&wanted) {
            return None;
        }
        self.told = Some(wanted.clone());
        Some(wanted)
    }

    /// Resolves once other listeners are read; never, if the node sends no connections, or nobody is left to read any.
    async fn changed(demand: Option<&mut Self>) {
        let is_changed = match demand {
            Some(demand) => demand.read.changed().await.is_ok(),
            None => false,
        };
        if !is_changed {
            std::future::pending::<()>().await;
        }
    }
}

/// Room for a message, from `at` on; `None`: never.
async fn reserve_at(
    out: &Out,
    at: Option<tokio::time::Instant>,
) -> Result<mpsc::Permit<'_, Result<v1::PluginMessage, Status>>, mpsc::error::SendError<()>> {
    match at {
        Some(at) => {
            sleep_until(at).await;
            out.reserve().await
        }
        None => std::future::pending().await,
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
    fn a_node_is_told_of_its_own_listeners_that_are_read_and_of_changes_alone() {
        let [one, other, foreign] = [1, 2, 3].map(Uuid::from_u128);
        let (read, receiver) = watch::channel(Arc::new(BTreeSet::from([foreign])));
        let now = tokio::time::Instant::now();
        let mut demand = LogDemand::new(receiver, now);
        let mut own = BTreeSet::from([one]);
        assert_eq!(demand.due, Some(now + LOG_GATHER));
        let take = |demand: &mut LogDemand, own: &BTreeSet<Uuid>| demand.take(|id| own.contains(id));
        assert_eq!(take(&mut demand, &own), Some(BTreeSet::new()), "always at the beginning");
        read.send_replace(Arc::new(BTreeSet::from([foreign, one, other])));
        demand.look(now + LOG_GATHER / 2);
        assert_eq!(demand.due, Some(now + LOG_GATHER), "both at once");
        assert_eq!(take(&mut demand, &own), Some(BTreeSet::from([one])));
        read.send_replace(Arc::new(BTreeSet::from([one, other])));
        assert_eq!(take(&mut demand, &own), None, "the other one is not its own");
        own.insert(other);
        assert_eq!(take(&mut demand, &own), Some(BTreeSet::from([one, other])), "it is now");
    }

    #[test]
    fn streams_are_renewed_before_their_time_and_not_all_at_once() {
        let age = Duration::from_secs(100);
        assert_eq!([0.0, 0.5, 1.0].map(|random| renew_after(age, random).as_secs()), [90, 95, 100]);
    }
}
