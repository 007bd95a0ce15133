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
use super::client::Status;
use super::endpoint::PluginEndpoint;
use super::protocol::{Event, Protocol, Violation};
use crate::configuration::Change;
use crate::verdicts::Verdicts;

/// How often counters are told.
const COUNTERS: Duration = Duration::from_secs(5);

/// What the plugin says, for those who carry it out.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// A stream has begun.
    Welcome {
        /// Its epoch.
        epoch: u64,
        /// Id of the installation.
        installation: Uuid,
    },
    /// The whole configuration.
    Snapshot {
        /// The stream's epoch.
        epoch: u64,
        /// Id of the installation.
        installation: Uuid,
        /// Of the snapshot's last update.
        revision: u64,
        /// What it consists of.
        parts: Vec<Change>,
    },
    /// It changed.
    Changed {
        /// The stream's epoch.
        epoch: u64,
        /// Of the update.
        revision: u64,
        /// What changed.
        change: Change,
    },
}

/// How updates were carried out. Those of another epoch than the stream's are dropped.
#[derive(Clone, Debug, PartialEq)]
pub struct Ack {
    /// Of the stream that the updates came by.
    pub epoch: u64,
    /// All updates up to this one.
    pub revision: u64,
    /// What is new since the last one.
    pub results: Vec<v1::Result>,
}

/// Where what is said comes from, and where what is heard goes.
pub struct Wiring {
    /// The VIPs that the node holds at this moment.
    pub held: watch::Receiver<Vec<Uuid>>,
    /// What the health checker knows.
    pub verdicts: Verdicts,
    /// What listeners have done.
    pub counters: Box<dyn Fn() -> Vec<v1::ListenerCounters> + Send + Sync>,
    /// What the plugin says.
    pub news: mpsc::Sender<News>,
    /// What it is answered.
    pub acks: mpsc::UnboundedReceiver<Ack>,
}

/// How a stream ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    #[error("the plugin closed the stream")]
    Closed,
    #[error("{}", refusal(.0))]
    Refused(tonic::Status),
    #[error(transparent)]
    Violated(#[from] Violation),
    #[error("the agent stops")]
    Stopping,
}

impl End {
    /// The plugin's status, if it ended the stream.
    pub(super) fn status(&self) -> Option<&tonic::Status> {
        match self {
            Self::Refused(status) => Some(status),
            Self::Closed | Self::Violated(_) | Self::Stopping => None,
        }
    }
}

/// Message of a status with its causes: with TLS 1.3 a certificate that the plugin refuses is an error of the stream, not of
/// the connection, and its message is "transport error" alone.
fn refusal(status: &tonic::Status) -> String {
    causes_after(status.message().to_owned(), status)
}

/// A stream on which Hello was said.
pub(super) struct Session<'a> {
    protocol: Protocol,
    wiring: &'a mut Wiring,
    /// Learns that there is a stream.
    status: &'a watch::Sender<Status>,
    endpoint: &'a PluginEndpoint,
    out: mpsc::Sender<v1::NodeMessage>,
    /// What is to be said. New things are taken in only when it is empty: a plugin that reads slowly costs no memory, for
    /// verdicts and counters wait where only their latest value is kept.
    outbox: VecDeque<Message>,
    /// When the plugin took the node in.
    welcomed_at: Option<Instant>,
    /// The snapshot's last update, until all of it is carried out.
    snapshot: Option<u64>,
}

impl<'a> Session<'a> {
    pub(super) fn new(
        wiring: &'a mut Wiring,
        status: &'a watch::Sender<Status>,
        endpoint: &'a PluginEndpoint,
        out: mpsc::Sender<v1::NodeMessage>,
    ) -> Self {
        let protocol = Protocol::new(Instant::now());
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

    /// Talks until the end, and says how long the stream was of use.
    pub(super) async fn run<S>(mut self, inbound: S) -> (End, Duration)
    where
        S: Stream<Item = Result<v1::PluginMessage, tonic::Status>> + Unpin,
    {
        let Err(end) = self.talk(inbound).await;
        (end, self.welcomed_at.map_or(Duration::ZERO, |since| since.elapsed()))
    }

    async fn talk<S>(&mut self, mut inbound: S) -> Result<std::convert::Infallible, End>
    where
        S: Stream<Item = Result<v1::PluginMessage, tonic::Status>> + Unpin,
    {
        let mut news = self.wiring.verdicts.news();
        let mut counters = interval_at(tokio::time::Instant::now() + COUNTERS, COUNTERS);
        counters.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ticks = ticks(&self.protocol);
        let out = self.out.clone();
        loop {
            let is_open = self.protocol.epoch().is_some();
            let may_say = is_open && self.outbox.is_empty();
            tokio::select! {
                message = inbound.next() => {
                    let message = message.ok_or(End::Closed)?.map_err(End::Refused)?;
                    self.hear(message).await?;
                    if !is_open {
                        ticks = self::ticks(&self.protocol);
                        news.mark_changed();
                    }
                }
                _ = ticks.tick() => self.tick()?,
                permit = out.reserve(), if !self.outbox.is_empty() => {
                    let permit = permit.map_err(|_| End::Closed)?;
                    if let Some(message) = self.outbox.pop_front() {
                        permit.send(self.protocol.say(message, Instant::now()));
                    }
                }
                Ok(()) = news.changed(), if may_say => {
                    news.mark_unchanged();
                    self.outbox.extend(chunks::verdicts(self.wiring.verdicts.take_unsent()));
                }
                Some(ack) = self.wiring.acks.recv(), if may_say => self.acknowledge(ack),
                _ = counters.tick(), if may_say => {
                    self.outbox.extend(chunks::counters(&(self.wiring.counters)()));
                }
            }
        }
    }

    async fn hear(&mut self, message: v1::PluginMessage) -> Result<(), End> {
        let event = self.protocol.receive(message, Instant::now())?;
        let epoch = self.protocol.epoch().unwrap_or_default();
        let news = match event {
            Event::Alive => return Ok(()),
            Event::Welcome { installation } => {
                self.outbox.extend(chunks::first_verdicts(self.wiring.verdicts.take_all()));
                self.welcomed_at = Some(Instant::now());
                tracing::info!(endpoint = %self.endpoint, epoch, "the plugin has taken this node in");
                self.status.send_replace(Status::Connected { endpoint: self.endpoint.clone() });
                News::Welcome { epoch, installation }
            }
            Event::Snapshot { installation, revision, parts } => {
                self.snapshot = Some(revision);
                News::Snapshot { epoch, installation, revision, parts }
            }
            Event::Changed { revision, change } => News::Changed { epoch, revision, change },
        };
        self.wiring.news.send(news).await.map_err(|_| End::Stopping)
    }

    fn tick(&mut self) -> Result<(), End> {
        let heartbeat = self.protocol.tick(Instant::now())?;
        // Without room something is under way to the plugin already.
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
            // What was said before the plugin had given the node its networks back went unheard.
            self.snapshot = None;
            self.outbox.extend(chunks::verdicts(self.wiring.verdicts.take_all()));
        }
    }
}

fn ticks(protocol: &Protocol) -> tokio::time::Interval {
    let mut ticks = interval(protocol.tick_interval());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Waits, and drops acknowledgements meanwhile: they are for a stream that is no more.
pub(super) async fn pause(wiring: &mut Wiring, wait: Duration) {
    let mut end = std::pin::pin!(sleep(wait));
    loop {
        tokio::select! {
            () = &mut end => return,
            Some(_) = wiring.acks.recv() => {}
        }
    }
}
