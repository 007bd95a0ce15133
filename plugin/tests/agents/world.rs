//! A server for node agents in a directory or on a port of its own, and nodes that connect to it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fiberlb_daemon::listen::Listeners;
use fiberlb_plugin::agents::{
    AccessLogReport, Acknowledgement, Configuration, Hello, Listen, NodeTrouble, Observer, PeerAddress,
    Refusal, ReportedDoubt, ReportedEjection, Server, ServerError, SessionRoute, Settings, TrafficReport,
    Verdict,
};
use fiberlb_proto::agent::v1;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};
use uuid::Uuid;
use v1::agent_service_client::AgentServiceClient;
use v1::node_message::Message as FromNode;
use v1::plugin_message::Message as FromPlugin;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// Calls that the observer received.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Heard {
    Joined(Hello),
    Acknowledged(bool, Vec<Acknowledgement>),
    Verdicts(bool, Vec<Verdict>),
    Counters(Vec<TrafficReport>),
    Troubles(Vec<NodeTrouble>),
    AccessLog(AccessLogReport),
    Left(String),
}

/// Gives every node the same configuration, and records its calls.
pub(crate) struct Recorder {
    configuration: Mutex<watch::Sender<Option<Arc<Configuration>>>>,
    heard: mpsc::UnboundedSender<Heard>,
    epochs: Mutex<Vec<u64>>,
    /// Listeners whose log is read.
    pub(crate) read: watch::Sender<Arc<BTreeSet<Uuid>>>,
}

impl Recorder {
    pub(crate) fn publish(&self, configuration: Option<Arc<Configuration>>) {
        self.configuration.lock().unwrap().send_replace(configuration);
    }

    /// Ends the streams of all nodes.
    pub(crate) fn withdraw(&self) {
        *self.configuration.lock().unwrap() = watch::channel(None).0;
    }

    fn note(&self, heard: Heard) {
        let _ = self.heard.send(heard);
    }
}

impl Observer for Recorder {
    fn joined(
        &self,
        epoch: u64,
        hello: &Hello,
    ) -> Result<watch::Receiver<Option<Arc<Configuration>>>, Refusal> {
        self.epochs.lock().unwrap().push(epoch);
        self.note(Heard::Joined(hello.clone()));
        Ok(self.configuration.lock().unwrap().subscribe())
    }
    fn heard(&self, _: &str, epoch: u64) {
        assert!(self.epochs.lock().unwrap().contains(&epoch));
    }
    fn acknowledged(&self, _: &str, _: u64, settled: bool, results: Vec<Acknowledgement>) {
        self.note(Heard::Acknowledged(settled, results));
    }
    fn inconclusive(&self, _: &str, _: u64, _: bool, _: Vec<ReportedDoubt>) {}

    fn verdicts(&self, _: &str, _: u64, complete: bool, verdicts: Vec<Verdict>) {
        self.note(Heard::Verdicts(complete, verdicts));
    }
    fn counters(&self, _: &str, _: u64, listeners: Vec<TrafficReport>, _: Vec<TrafficReport>) {
        self.note(Heard::Counters(listeners));
    }
    fn ejections(&self, _: &str, _: u64, _: Vec<ReportedEjection>) {}
    fn troubles(&self, _: &str, _: u64, troubles: Vec<NodeTrouble>) {
        self.note(Heard::Troubles(troubles));
    }
    fn read_listeners(&self) -> watch::Receiver<Arc<BTreeSet<Uuid>>> {
        self.read.subscribe()
    }
    fn access_log(&self, _: &str, _: u64, report: AccessLogReport) {
        self.note(Heard::AccessLog(report));
    }
    fn left(&self, _: &str, _: u64, reason: &str, _: bool) {
        self.note(Heard::Left(reason.to_owned()));
    }
}

/// A running server.
pub(crate) struct World {
    pub(crate) listen: Listen,
    pub(crate) recorder: Arc<Recorder>,
    heard: mpsc::UnboundedReceiver<Heard>,
    /// Destination of the nodes' streams; at first the recorder.
    pub(crate) route: watch::Sender<SessionRoute>,
    /// Address for other plugins.
    pub(crate) address: PeerAddress,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) server: JoinHandle<()>,
}

impl World {
    pub(crate) fn start(settings: &Settings) -> Self {
        Self::start_with(settings, |server| server)
    }

    /// The same with a server that was changed.
    pub(crate) fn start_with(settings: &Settings, change: impl FnOnce(Server) -> Server) -> Self {
        let (sender, heard) = mpsc::unbounded_channel();
        let configuration = Mutex::new(watch::channel(Some(Arc::new(Configuration::default()))).0);
        let recorder = Arc::new(Recorder {
            configuration,
            heard: sender,
            epochs: Mutex::default(),
            read: watch::Sender::default(),
        });
        let (route, watched) = watch::channel(SessionRoute::Local(recorder.clone()));
        let server =
            change(Server::bind(settings, Uuid::nil(), watched, &Listeners::default()).unwrap().unwrap());
        let listen = server.listen();
        let address = settings.advertised(&listen).unwrap();
        let (stop, stopped) = watch::channel(false);
        let server = tokio::spawn(server.serve(stopped));
        Self { listen, recorder, heard, route, address, stop, server }
    }

    /// Error of a server that cannot listen.
    pub(crate) fn refused(settings: &Settings) -> ServerError {
        let route = watch::channel(SessionRoute::NoLeader).1;
        Server::bind(settings, Uuid::nil(), route, &Listeners::default()).err().expect("it cannot listen")
    }

    /// A server on a socket in a directory, which goes with it. Without `heartbeat_ms`, silence does not
    /// matter.
    pub(crate) fn unix(directory: &Path, heartbeat_ms: Option<u32>) -> Self {
        let listen = Listen::Unix(directory.join("agents.sock"));
        let heartbeat_ms = heartbeat_ms.unwrap_or(60_000);
        Self::start(&Settings { listen, heartbeat_ms, ..Settings::default() })
    }

    pub(crate) async fn heard(&mut self) -> Heard {
        timeout(PATIENCE, self.heard.recv()).await.expect("the observer hears something").unwrap()
    }

    pub(crate) fn heard_nothing_else(&mut self) {
        assert!(self.heard.try_recv().is_err());
    }

    /// Connects, with no more in flight than HTTP/2's smallest window.
    pub(crate) async fn channel(&self) -> Channel {
        connect(self.listen.to_string()).await
    }

    pub(crate) async fn node(&self, node_id: &str, boot_id: &str) -> Result<Node, Status> {
        Node::open(self.channel().await, node_id, boot_id).await
    }
}

async fn connect(to: String) -> Channel {
    let endpoint = Endpoint::from_shared(to).unwrap();
    let endpoint = endpoint.initial_stream_window_size(65_535).initial_connection_window_size(65_535);
    endpoint.connect().await.unwrap()
}

/// A node with an open stream.
pub(crate) struct Node {
    pub(crate) say: mpsc::Sender<v1::NodeMessage>,
    messages: Streaming<v1::PluginMessage>,
    pub(crate) welcome: v1::Welcome,
    epoch: u64,
}

pub(crate) fn hello(node_id: &str, boot_id: &str) -> v1::Hello {
    v1::Hello {
        oldest_version: 1,
        newest_version: 1,
        node_id: node_id.to_owned(),
        boot_id: boot_id.to_owned(),
        ..v1::Hello::default()
    }
}

impl Node {
    /// Says hello and waits for the welcome.
    pub(crate) async fn open(channel: Channel, node_id: &str, boot_id: &str) -> Result<Self, Status> {
        Self::open_with(channel, hello(node_id, boot_id)).await
    }

    /// The same with another Hello.
    pub(crate) async fn open_with(channel: Channel, hello: v1::Hello) -> Result<Self, Status> {
        let (say, messages) = mpsc::channel(4);
        let first = v1::NodeMessage { epoch: 0, message: Some(FromNode::Hello(hello)) };
        say.send(first).await.unwrap();
        let open = async {
            let answer = AgentServiceClient::new(channel).session(ReceiverStream::new(messages)).await?;
            let mut messages = answer.into_inner();
            let first = messages.message().await?;
            Ok::<_, Status>((messages, first.expect("a stream begins with a message")))
        };
        let (messages, first) = timeout(PATIENCE, open).await.expect("the plugin answers")?;
        let Some(FromPlugin::Welcome(welcome)) = first.message else { panic!("{first:?} is no welcome") };
        Ok(Self { say, messages, welcome, epoch: first.epoch })
    }

    pub(crate) async fn say(&self, message: FromNode) {
        self.say.send(v1::NodeMessage { epoch: self.epoch, message: Some(message) }).await.unwrap();
    }

    pub(crate) async fn hear(&mut self) -> Result<Option<FromPlugin>, Status> {
        let message = timeout(PATIENCE, self.messages.message()).await.expect("the plugin says something")?;
        Ok(message.map(|message| {
            assert_eq!(message.epoch, self.epoch);
            message.message.expect("a message says something")
        }))
    }

    /// The next update; heartbeats do not matter.
    pub(crate) async fn update(&mut self) -> v1::Update {
        loop {
            match self.hear().await.unwrap().expect("the stream goes on") {
                FromPlugin::Update(update) => return update,
                FromPlugin::Heartbeat(_) | FromPlugin::AccessLogDemand(_) => {}
                other @ FromPlugin::Welcome(_) => panic!("{other:?}"),
            }
        }
    }

    /// Reads to the stream's end.
    pub(crate) async fn ended(&mut self) -> Status {
        loop {
            match self.hear().await {
                Ok(Some(_)) => {}
                Ok(None) => return Status::ok(""),
                Err(status) => return status,
            }
        }
    }
}

/// Waits until a condition holds.
pub(crate) async fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(timeout(PATIENCE, wait).await.is_ok(), "never: {what}");
}

/// Log of this test's thread.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

/// Records the log of this thread while the guard lives.
pub(crate) fn logs() -> (Log, tracing::subscriber::DefaultGuard) {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    (log, tracing::subscriber::set_default(subscriber))
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    pub(crate) async fn until(&self, words: &str) {
        eventually(words, || self.text().contains(words)).await;
    }
}
