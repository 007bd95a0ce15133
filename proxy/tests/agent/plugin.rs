//! The plugin's half of the protocol, played by the test.

use std::collections::HashMap;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use fiberlb_proto::agent::v1;
use futures_util::Stream;
use tokio::net::UnixListener;
use tokio::sync::{Mutex, mpsc};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;
use v1::agent_service_server::{AgentService, AgentServiceServer};
use v1::node_message::Message as FromNode;
use v1::plugin_message::Message as FromPlugin;

use crate::world::LONG;

const HEARTBEAT_MS: u32 = 200;

type Out = mpsc::Sender<Result<v1::PluginMessage, Status>>;

/// A plugin that does what the test says. It ends with this value.
pub(crate) struct Plugin {
    streams: Mutex<mpsc::Receiver<(Streaming<v1::NodeMessage>, Out)>>,
    epochs: std::sync::atomic::AtomicU64,
    server: tokio::task::JoinHandle<()>,
}

struct Service(mpsc::Sender<(Streaming<v1::NodeMessage>, Out)>);

#[tonic::async_trait]
impl AgentService for Service {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<v1::PluginMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::NodeMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let (out, outgoing) = mpsc::channel(64);
        self.0.send((request.into_inner(), out)).await.map_err(|_| Status::unavailable("the test ends"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }
}

impl Plugin {
    pub(crate) fn start(socket: &Path) -> Self {
        let (opened, streams) = mpsc::channel(4);
        let listener = UnixListenerStream::new(UnixListener::bind(socket).unwrap());
        let service = AgentServiceServer::new(Service(opened));
        let server = tonic::transport::Server::builder().add_service(service).serve_with_incoming(listener);
        let server = tokio::spawn(async move { server.await.unwrap() });
        Self { streams: Mutex::new(streams), epochs: 0.into(), server }
    }

    /// The next stream of a node, up to its Hello.
    pub(crate) async fn stream(&self) -> Session {
        let mut streams = self.streams.lock().await;
        let next = tokio::time::timeout(LONG, streams.recv()).await.expect("the agent connects");
        let (mut inbound, out) = next.unwrap();
        let hello = tokio::time::timeout(LONG, inbound.next()).await.unwrap().unwrap().unwrap();
        assert_eq!(hello.epoch, 0);
        let Some(FromNode::Hello(hello)) = hello.message else { panic!("{hello:?}") };
        let epoch = self.epochs.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        Session { hello, epoch, revision: 0, out, inbound, heard: Heard::default(), heartbeat: None }
    }

    /// The next stream of a node, after Welcome and the first verdicts.
    pub(crate) async fn welcomed(&self, installation: Uuid) -> Session {
        let mut session = self.stream().await;
        session.welcome(installation).await;
        session.until("the first verdicts", |heard| heard.first_verdicts).await;
        session
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Messages of a node on a stream.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    pub(crate) acknowledged: u64,
    /// Errors by id; empty: carried out.
    pub(crate) results: HashMap<String, String>,
    pub(crate) verdicts: HashMap<String, (bool, String)>,
    pub(crate) first_verdicts: bool,
    pub(crate) counters: HashMap<String, v1::ListenerCounters>,
    pub(crate) connections: Vec<v1::AccessLogEntry>,
    pub(crate) heartbeats: usize,
}

/// A stream of a node.
pub(crate) struct Session {
    pub(crate) hello: v1::Hello,
    pub(crate) epoch: u64,
    pub(crate) revision: u64,
    out: Out,
    inbound: Streaming<v1::NodeMessage>,
    pub(crate) heard: Heard,
    heartbeat: Option<tokio::task::JoinHandle<()>>,
}

impl Session {
    pub(crate) async fn welcome(&mut self, installation: Uuid) {
        let installation = installation.to_string();
        let welcome = v1::Welcome { version: 1, heartbeat_ms: HEARTBEAT_MS, installation, renew_after_ms: 0 };
        self.say(FromPlugin::Welcome(welcome)).await;
        let (out, epoch) = (self.out.clone(), self.epoch);
        self.heartbeat = Some(tokio::spawn(async move {
            let message = Some(FromPlugin::Heartbeat(v1::Heartbeat {}));
            while out.send(Ok(v1::PluginMessage { epoch, message: message.clone() })).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }));
    }

    /// Stops saying anything.
    pub(crate) fn fall_silent(&mut self) {
        self.heartbeat.take().unwrap().abort();
    }

    pub(crate) async fn say(&self, message: FromPlugin) {
        self.out.send(Ok(v1::PluginMessage { epoch: self.epoch, message: Some(message) })).await.unwrap();
    }

    /// Sends an update with the next revision.
    pub(crate) async fn update(&mut self, update: v1::Update) {
        self.revision += 1;
        self.say(FromPlugin::Update(v1::Update { revision: self.revision, ..update })).await;
    }

    /// Sends an update that ends the snapshot, and waits until the node has carried it out.
    pub(crate) async fn snapshot(&mut self, update: v1::Update) {
        self.carried_out(v1::Update { snapshot_end: true, ..update }).await;
    }

    /// Sends an update, and waits until the node has carried it out.
    pub(crate) async fn carried_out(&mut self, update: v1::Update) {
        self.update(update).await;
        let revision = self.revision;
        self.until("the acknowledgement", |heard| heard.acknowledged >= revision).await;
    }

    /// Receives the node's messages until a condition holds.
    pub(crate) async fn until(&mut self, what: &str, is_so: impl Fn(&Heard) -> bool) {
        let listen = async {
            while !is_so(&self.heard) {
                let message = self.inbound.next().await.expect("the stream goes on").unwrap();
                assert_eq!(message.epoch, self.epoch);
                self.heard.take(message.message.unwrap());
            }
        };
        let in_time = tokio::time::timeout(LONG, listen).await.is_ok();
        assert!(in_time, "never: {what}; heard {:?}", self.heard);
    }

    /// Receives the node's messages until it ends the stream.
    pub(crate) async fn ended(&mut self) {
        let listen = async { while let Some(Ok(_)) = self.inbound.next().await {} };
        tokio::time::timeout(LONG, listen).await.expect("the node ends the stream");
    }

    /// Last result of a resource.
    pub(crate) fn result(&self, id: Uuid) -> Option<&str> {
        self.heard.results.get(&id.to_string()).map(String::as_str)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.heartbeat.take().inspect(|task| task.abort());
    }
}

impl Heard {
    fn take(&mut self, message: FromNode) {
        match message {
            FromNode::Hello(_) => panic!("a second Hello"),
            FromNode::Heartbeat(_) => self.heartbeats += 1,
            FromNode::Ack(ack) => {
                self.acknowledged = ack.revision;
                self.results.extend(ack.results.into_iter().map(|result| (result.id, result.error)));
            }
            FromNode::Verdicts(verdicts) => {
                assert_ne!(verdicts.first, self.first_verdicts, "first once, and before all others");
                self.first_verdicts = true;
                let verdicts = verdicts.verdicts.into_iter();
                self.verdicts.extend(verdicts.map(|it| (it.backend_id, (it.up, it.reason))));
            }
            FromNode::Counters(counters) => {
                let listeners = counters.listeners.into_iter();
                self.counters.extend(listeners.map(|it| (it.listener_id.clone(), it)));
            }
            FromNode::AccessLog(log) => self.connections.extend(log.entries),
        }
    }
}
