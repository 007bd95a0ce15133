//! One stream, from its Hello to its end.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fiberlb_daemon::errors::causes_after;
use fiberlb_proto::agent::v1;
use futures_util::StreamExt as _;
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, interval_at, sleep, timeout};
use tonic::{Code, Streaming};
use uuid::Uuid;
use v1::node_message::Message;

use super::chunks;
use super::client::LinkStatus;
use super::dialer::{ACCEPT_TIMEOUT, Dialer, OpenStream};
use super::protocol::{StreamEvent, StreamProtocol, Violation};
use super::shares::SentShares;
use super::tail;
use crate::access_log::Tail;
use crate::configuration::Change;
use crate::verdicts::Verdicts;

/// Interval at which counters are sent.
const COUNTERS: Duration = Duration::from_secs(5);

/// Interval at which connections are sent while somebody reads them.
const TAIL: Duration = Duration::from_millis(200);

/// The same of those listeners' whose connections are a share of a limit, if they have changed: shares are dealt by them.
const SHARES: Duration = Duration::from_secs(1);

/// Event of the plugin, for the control loop.
#[derive(Clone, Debug, PartialEq)]
pub enum PluginEvent {
    /// A stream was opened.
    Welcome {
        /// Epoch of the stream.
        epoch: u64,
        /// Id of the installation.
        installation: Uuid,
    },
    /// The full configuration.
    Snapshot {
        /// Epoch of the stream.
        epoch: u64,
        /// Id of the installation.
        installation: Uuid,
        /// Revision of the snapshot's last update.
        revision: u64,
        /// Changes that it consists of.
        parts: Vec<Change>,
    },
    /// The configuration changed.
    Changed {
        /// Epoch of the stream.
        epoch: u64,
        /// Revision of the update.
        revision: u64,
        /// The change.
        change: Change,
    },
}

/// Acknowledgement of updates. Those of another epoch than the stream's are dropped.
#[derive(Clone, Debug, PartialEq)]
pub struct Ack {
    /// Epoch of the stream by which the updates were received.
    pub epoch: u64,
    /// Last acknowledged revision; all before it are included.
    pub revision: u64,
    /// Results that have changed since the last acknowledgement.
    pub results: Vec<v1::Result>,
}

/// Connections of the link to the other parts of the agent.
pub struct LinkWiring {
    /// VIPs that the node holds at this moment.
    pub held: watch::Receiver<Vec<Uuid>>,
    /// Verdicts of the health checker.
    pub verdicts: Verdicts,
    /// Reads the counters of the listeners, and the troubles of the node.
    pub counters: Box<dyn Fn() -> v1::Counters + Send + Sync>,
    /// Reads the counters of the listeners whose connections are a share of a limit.
    pub shares: Box<dyn Fn() -> Vec<v1::ListenerCounters> + Send + Sync>,
    /// Connections that somebody reads.
    pub tail: Arc<Tail>,
    /// Events of the plugin.
    pub events: mpsc::Sender<PluginEvent>,
    /// Acknowledgements to the plugin.
    pub acks: mpsc::UnboundedReceiver<Ack>,
}

/// End of a stream.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamEnd {
    #[error("the plugin closed the stream")]
    Closed,
    #[error("{}", refusal(.0))]
    Refused(tonic::Status),
    #[error(transparent)]
    Violated(#[from] Violation),
    #[error("the agent stops")]
    Stopping,
}

impl StreamEnd {
    /// The plugin's status, if it ended the stream.
    pub(super) fn status(&self) -> Option<&tonic::Status> {
        match self {
            Self::Refused(status) => Some(status),
            Self::Closed | Self::Violated(_) | Self::Stopping => None,
        }
    }
}

/// Message of a status, with its causes: with TLS 1.3 a certificate that the plugin refuses is an error of
/// the stream, not of the connection, and its message is "transport error" alone.
fn refusal(status: &tonic::Status) -> String {
    causes_after(status.message().to_owned(), status)
}

/// A stream on which Hello is sent.
pub(super) struct Session<'a> {
    protocol: StreamProtocol,
    wiring: &'a mut LinkWiring,
    /// Status of the stream, for the rest of the agent.
    status: &'a watch::Sender<LinkStatus>,
    dialer: &'a Dialer,
    out: mpsc::Sender<v1::NodeMessage>,
    /// Messages to be sent. New ones are added only when it is empty: a plugin that reads slowly costs no
    /// memory, for verdicts and counters wait where only their latest value is kept.
    outbox: VecDeque<Message>,
    /// Time at which the plugin accepted the node.
    welcomed_at: Option<Instant>,
    /// Revision of the snapshot's last update, until all of it is applied.
    snapshot: Option<u64>,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        wiring: &'a mut LinkWiring,
        status: &'a watch::Sender<LinkStatus>,
        dialer: &'a Dialer,
        out: mpsc::Sender<v1::NodeMessage>,
    ) -> Self {
        let protocol = StreamProtocol::new(Instant::now());
        Self {
            protocol,
            wiring,
            status,
            dialer,
            out,
            outbox: VecDeque::new(),
            welcomed_at: None,
            snapshot: None,
        }
    }

    /// Runs the stream, of which `welcome` is the first message where it has come already. Returns the stream that takes its
    /// place, or its end; and the time that it lived after its Welcome.
    pub(super) async fn run(
        mut self,
        inbound: Streaming<v1::PluginMessage>,
        welcome: Option<v1::PluginMessage>,
    ) -> (Result<Box<OpenStream>, StreamEnd>, Duration) {
        let ended = self.exchange(inbound, welcome).await;
        if ended.is_err() {
            // Nobody is there to take them. A stream that is renewed goes on with them.
            self.wiring.tail.set([]);
        }
        (ended, self.welcomed_at.map_or(Duration::ZERO, |since| since.elapsed()))
    }

    async fn exchange(
        &mut self,
        mut inbound: Streaming<v1::PluginMessage>,
        welcome: Option<v1::PluginMessage>,
    ) -> Result<Box<OpenStream>, StreamEnd> {
        let mut verdicts = self.wiring.verdicts.changes();
        let mut counters = interval_at(tokio::time::Instant::now() + COUNTERS, COUNTERS);
        counters.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reading = interval(TAIL);
        reading.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut shares = interval_at(tokio::time::Instant::now() + SHARES, SHARES);
        shares.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sent = SentShares::default();
        let mut ticks = ticks(&self.protocol);
        let out = self.out.clone();
        let mut successor: Option<Pin<Box<dyn Future<Output = Box<OpenStream>> + Send>>> = None;
        let mut first = welcome;
        loop {
            let is_open = self.protocol.epoch().is_some();
            let may_send = is_open && self.outbox.is_empty();
            tokio::select! {
                message = next_message(&mut first, &mut inbound) => {
                    let message = match message {
                        Ok(message) => message,
                        Err(end) => return take_over(successor, end).await,
                    };
                    let renew_after = self.receive(message).await?;
                    if !is_open {
                        ticks = self::ticks(&self.protocol);
                        verdicts.mark_changed();
                        let dialer = self.dialer;
                        successor = renew_after.map(|after| -> Pin<Box<dyn Future<Output = _> + Send>> {
                            Box::pin(dialer.renew(after))
                        });
                    }
                }
                _ = ticks.tick() => self.tick()?,
                next = renewed(&mut successor) => return Ok(next),
                permit = out.reserve(), if !self.outbox.is_empty() => {
                    let Ok(permit) = permit else { return take_over(successor, StreamEnd::Closed).await };
                    if let Some(message) = self.outbox.pop_front() {
                        permit.send(self.protocol.wrap(message, Instant::now()));
                    }
                }
                Ok(()) = verdicts.changed(), if may_send => {
                    verdicts.mark_unchanged();
                    let known = &self.wiring.verdicts;
                    let (verdicts, doubts) = (known.take_unsent(), known.take_unsent_inconclusive());
                    self.outbox.extend(chunks::verdicts(verdicts, doubts));
                }
                Some(ack) = self.wiring.acks.recv(), if may_send => self.acknowledge(ack),
                _ = counters.tick(), if may_send => {
                    let counters = (self.wiring.counters)();
                    sent.record(&counters);
                    self.outbox.extend(chunks::counters(counters));
                }
                _ = shares.tick(), if may_send && sent.is_any() => {
                    let news = sent.take_news((self.wiring.shares)());
                    self.outbox.extend(news.into_iter().flat_map(chunks::counters));
                }
                _ = reading.tick(), if may_send && self.wiring.tail.is_on() => {
                    self.outbox.extend(tail::message(self.wiring.tail.take()));
                }
            }
        }
    }

    /// Passes a message on. Returns the age at which the stream is to be renewed, as its Welcome says it.
    async fn receive(&mut self, message: v1::PluginMessage) -> Result<Option<Duration>, StreamEnd> {
        let event = self.protocol.receive(message, Instant::now())?;
        let epoch = self.protocol.epoch().unwrap_or_default();
        let mut age = None;
        let event = match event {
            StreamEvent::Alive => return Ok(None),
            StreamEvent::Read(listeners) => {
                self.wiring.tail.set(listeners);
                return Ok(None);
            }
            StreamEvent::Welcome { installation, renew_after } => {
                age = renew_after;
                let known = &self.wiring.verdicts;
                let (verdicts, doubts) = (known.take_all(), known.take_all_inconclusive());
                self.outbox.extend(chunks::first_verdicts(verdicts, doubts));
                self.welcomed_at = Some(Instant::now());
                let endpoint = self.dialer.endpoint.clone();
                tracing::info!(%endpoint, epoch, "connected to the plugin");
                self.status.send_replace(LinkStatus::Connected { endpoint });
                PluginEvent::Welcome { epoch, installation }
            }
            StreamEvent::Snapshot { installation, revision, parts } => {
                self.snapshot = Some(revision);
                PluginEvent::Snapshot { epoch, installation, revision, parts }
            }
            StreamEvent::Changed { revision, change } => PluginEvent::Changed { epoch, revision, change },
        };
        self.wiring.events.send(event).await.map_err(|_| StreamEnd::Stopping)?;
        Ok(age)
    }

    fn tick(&mut self) -> Result<(), StreamEnd> {
        let heartbeat = self.protocol.tick(Instant::now())?;
        // Without room, messages are in flight to the plugin already.
        if let Some(heartbeat) = heartbeat
            && let Ok(permit) = self.out.try_reserve()
        {
            permit.send(heartbeat);
        }
        Ok(())
    }

    fn acknowledge(&mut self, ack: Ack) {
        if Some(ack.epoch) != self.protocol.epoch() {
            return;
        }
        let is_whole = self.snapshot.is_some_and(|revision| ack.revision >= revision);
        self.outbox.extend(chunks::acks(ack.revision, ack.results));
        if is_whole {
            // The plugin ignored verdicts that came before it had assigned the node its networks again.
            self.snapshot = None;
            let known = &self.wiring.verdicts;
            self.outbox.extend(chunks::verdicts(known.take_all(), known.take_all_inconclusive()));
        }
    }
}

/// The next message of a stream, or its end. Cancel safe.
async fn next_message(
    first: &mut Option<v1::PluginMessage>,
    inbound: &mut Streaming<v1::PluginMessage>,
) -> Result<v1::PluginMessage, StreamEnd> {
    if let Some(first) = first.take() {
        return Ok(first);
    }
    inbound.next().await.ok_or(StreamEnd::Closed)?.map_err(StreamEnd::Refused)
}

/// Resolves once another stream can take the place of this one.
async fn renewed(
    successor: &mut Option<Pin<Box<dyn Future<Output = Box<OpenStream>> + Send + '_>>>,
) -> Box<OpenStream> {
    match successor {
        Some(successor) => successor.await,
        None => std::future::pending().await,
    }
}

/// The stream that takes the place of one that has ended: the plugin ends the older one before it welcomes the later one.
async fn take_over(
    successor: Option<Pin<Box<dyn Future<Output = Box<OpenStream>> + Send + '_>>>,
    end: StreamEnd,
) -> Result<Box<OpenStream>, StreamEnd> {
    let is_replaced = end.status().is_some_and(|status| status.code() == Code::Aborted);
    match successor.filter(|_| is_replaced) {
        Some(successor) => timeout(ACCEPT_TIMEOUT, successor).await.map_err(|_| end),
        None => Err(end),
    }
}

fn ticks(protocol: &StreamProtocol) -> tokio::time::Interval {
    let mut ticks = interval(protocol.tick_interval());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Pauses, and drops acknowledgements meanwhile: they are for a stream that has ended.
pub(super) async fn pause(wiring: &mut LinkWiring, wait: Duration) {
    let mut end = std::pin::pin!(sleep(wait));
    loop {
        tokio::select! {
            () = &mut end => return,
            Some(_) = wiring.acks.recv() => {}
        }
    }
}
