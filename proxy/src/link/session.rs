//! One stream, from its Hello to its end.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use fiberlb_daemon::errors::causes_after;
use fiberlb_proto::agent::v1;
use futures_util::{Stream, StreamExt as _};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval, interval_at, sleep};
use uuid::Uuid;
use v1::node_message::Message;

use super::chunks;
use super::client::LinkStatus;
use super::endpoint::PluginEndpoint;
use super::protocol::{StreamEvent, StreamProtocol, Violation};
use crate::configuration::Change;
use crate::verdicts::Verdicts;

/// Interval at which counters are sent.
const COUNTERS: Duration = Duration::from_secs(5);

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
    endpoint: &'a PluginEndpoint,
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
        endpoint: &'a PluginEndpoint,
        out: mpsc::Sender<v1::NodeMessage>,
    ) -> Self {
        let protocol = StreamProtocol::new(Instant::now());
        Self {
            protocol,
            wiring,
            status,
            endpoint,
            out,
            outbox: VecDeque::new(),
            welcomed_at: None,
            snapshot: None,
        }
    }

    /// Runs the stream. Returns its end, and the time that it lived after its Welcome.
    pub(super) async fn run<S>(mut self, inbound: S) -> (StreamEnd, Duration)
    where
        S: Stream<Item = Result<v1::PluginMessage, tonic::Status>> + Unpin,
    {
        let Err(end) = self.exchange(inbound).await;
        (end, self.welcomed_at.map_or(Duration::ZERO, |since| since.elapsed()))
    }

    async fn exchange<S>(&mut self, mut inbound: S) -> Result<std::convert::Infallible, StreamEnd>
    where
        S: Stream<Item = Result<v1::PluginMessage, tonic::Status>> + Unpin,
    {
        let mut verdicts = self.wiring.verdicts.changes();
        let mut counters = interval_at(tokio::time::Instant::now() + COUNTERS, COUNTERS);
        counters.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ticks = ticks(&self.protocol);
        let out = self.out.clone();
        loop {
            let is_open = self.protocol.epoch().is_some();
            let may_send = is_open && self.outbox.is_empty();
            tokio::select! {
                message = inbound.next() => {
                    let message = message.ok_or(StreamEnd::Closed)?.map_err(StreamEnd::Refused)?;
                    self.receive(message).await?;
                    if !is_open {
                        ticks = self::ticks(&self.protocol);
                        verdicts.mark_changed();
                    }
                }
                _ = ticks.tick() => self.tick()?,
                permit = out.reserve(), if !self.outbox.is_empty() => {
                    let permit = permit.map_err(|_| StreamEnd::Closed)?;
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
                    self.outbox.extend(chunks::counters((self.wiring.counters)()));
                }
            }
        }
    }

    async fn receive(&mut self, message: v1::PluginMessage) -> Result<(), StreamEnd> {
        let event = self.protocol.receive(message, Instant::now())?;
        let epoch = self.protocol.epoch().unwrap_or_default();
        let event = match event {
            StreamEvent::Alive => return Ok(()),
            StreamEvent::Welcome { installation } => {
                let known = &self.wiring.verdicts;
                let (verdicts, doubts) = (known.take_all(), known.take_all_inconclusive());
                self.outbox.extend(chunks::first_verdicts(verdicts, doubts));
                self.welcomed_at = Some(Instant::now());
                tracing::info!(endpoint = %self.endpoint, epoch, "connected to the plugin");
                self.status.send_replace(LinkStatus::Connected { endpoint: self.endpoint.clone() });
                PluginEvent::Welcome { epoch, installation }
            }
            StreamEvent::Snapshot { installation, revision, parts } => {
                self.snapshot = Some(revision);
                PluginEvent::Snapshot { epoch, installation, revision, parts }
            }
            StreamEvent::Changed { revision, change } => PluginEvent::Changed { epoch, revision, change },
        };
        self.wiring.events.send(event).await.map_err(|_| StreamEnd::Stopping)
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
