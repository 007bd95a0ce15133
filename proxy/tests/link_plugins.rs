//! The link with several plugins, which the test plays: it moves to another one at once.
#![cfg(test)]

use std::collections::HashMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use fiberlb_proto::agent::v1;
use fiberlb_proxy::configuration::{Change, Configuration};
use fiberlb_proxy::dataplane::Rotation;
use fiberlb_proxy::health::{TargetKey, Verdict};
use fiberlb_proxy::link::{Ack, Link, LinkSettings, LinkStatus, LinkWiring, NodeIdentity, PluginEvent};
use fiberlb_proxy::verdicts::Verdicts;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::transport::Server;
use tonic::{Code, Request, Response, Streaming};
use uuid::Uuid;
use v1::agent_service_server::{AgentService, AgentServiceServer};
use v1::node_message::Message as FromNode;
use v1::plugin_message::Message as FromPlugin;

const LONG: Duration = Duration::from_secs(20);
/// Longest duration of "at once" on a busy machine: far below the shortest time that a pause or a timeout would add up to.
const AT_ONCE: Duration = Duration::from_millis(900);

type Out = mpsc::Sender<Result<v1::PluginMessage, tonic::Status>>;

/// A stream as a plugin has it.
struct Stream {
    plugin: usize,
    hello: v1::Hello,
    inbound: Streaming<v1::NodeMessage>,
    out: Out,
}

/// Hands its streams to the test, or refuses them.
struct Plugin {
    at: usize,
    refuses: Option<tonic::Status>,
    streams: mpsc::Sender<Stream>,
    /// Number of streams that all plugins have refused.
    refused: watch::Sender<usize>,
}

#[tonic::async_trait]
impl AgentService for Plugin {
    type SessionStream =
        Pin<Box<dyn futures_util::Stream<Item = Result<v1::PluginMessage, tonic::Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::NodeMessage>>,
    ) -> Result<Response<Self::SessionStream>, tonic::Status> {
        if let Some(status) = &self.refuses {
            self.refused.send_modify(|refused| *refused += 1);
            return Err(status.clone());
        }
        let (out, outgoing) = mpsc::channel(4);
        let (plugin, streams, mut inbound) = (self.at, self.streams.clone(), request.into_inner());
        tokio::spawn(async move {
            let first = inbound.message().await.unwrap().unwrap();
            let Some(FromNode::Hello(hello)) = first.message else { panic!("{first:?}") };
            streams.send(Stream { plugin, hello, inbound, out }).await.unwrap();
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }
}

/// Plugins that listen in a directory.
struct Plugins {
    dir: TempDir,
    streams: mpsc::Receiver<Stream>,
    opened: mpsc::Sender<Stream>,
    refused: watch::Sender<usize>,
}

/// Status of a follower that redirects.
fn redirect(to: &str) -> tonic::Status {
    let mut status = tonic::Status::unavailable("this plugin is a follower");
    status.metadata_mut().insert("fiberlb-leader", to.parse().unwrap());
    status
}

impl Plugins {
    fn new() -> Self {
        let (opened, streams) = mpsc::channel(64);
        Self { dir: tempfile::tempdir().unwrap(), streams, opened, refused: watch::Sender::new(0) }
    }

    fn path(&self, at: usize) -> PathBuf {
        self.dir.path().join(format!("{at}.sock"))
    }

    fn endpoint(&self, at: usize) -> String {
        format!("unix:{}", self.path(at).display())
    }

    fn serve(&self, at: usize, refuses: bool) -> String {
        self.run(at, refuses.then(|| tonic::Status::unavailable("no plugin leads at the moment")))
    }

    /// A follower that redirects to an address.
    fn follower(&self, at: usize, to: &str) -> String {
        self.run(at, Some(redirect(to)))
    }

    fn run(&self, at: usize, refuses: Option<tonic::Status>) -> String {
        let (streams, refused) = (self.opened.clone(), self.refused.clone());
        let plugin = Plugin { at, refuses, streams, refused };
        let listener = UnixListenerStream::new(UnixListener::bind(self.path(at)).unwrap());
        tokio::spawn(
            Server::builder().add_service(AgentServiceServer::new(plugin)).serve_with_incoming(listener),
        );
        self.endpoint(at)
    }

    /// The next stream, after a Welcome with so many milliseconds of heartbeat.
    async fn welcomed(&mut self, heartbeat_ms: u32) -> Stream {
        let stream = self.opened().await;
        stream.welcome(heartbeat_ms, 0).await;
        stream
    }

    /// The next stream, before its Welcome.
    async fn opened(&mut self) -> Stream {
        timeout(LONG, self.streams.recv()).await.expect("the node connects").unwrap()
    }
}

impl Stream {
    async fn say(&self, message: FromPlugin) {
        self.out.send(Ok(v1::PluginMessage { epoch: 1, message: Some(message) })).await.unwrap();
    }

    async fn welcome(&self, heartbeat_ms: u32, renew_after_ms: u64) {
        let installation = Uuid::nil().to_string();
        let welcome = v1::Welcome { version: 1, heartbeat_ms, installation, renew_after_ms };
        self.say(FromPlugin::Welcome(welcome)).await;
    }

    /// Ends it as a plugin does for a later stream.
    async fn replace(self) {
        self.out.send(Err(tonic::Status::new(Code::Aborted, "a later stream took its place"))).await.unwrap();
    }

    async fn end(self) {
        self.out.send(Err(tonic::Status::new(Code::Unavailable, "leadership has moved"))).await.unwrap();
    }

    /// Next message of the node, without heartbeats.
    async fn hear(&mut self) -> FromNode {
        loop {
            let message = timeout(LONG, self.inbound.message()).await.expect("the node says something");
            match message.unwrap().unwrap().message.unwrap() {
                FromNode::Heartbeat(_) => {}
                message => return message,
            }
        }
    }

    async fn verdicts(&mut self) -> v1::Verdicts {
        loop {
            if let FromNode::Verdicts(verdicts) = self.hear().await {
                return verdicts;
            }
        }
    }
}

/// A node that runs until it is dropped.
struct Running {
    status: watch::Receiver<LinkStatus>,
    verdicts: Verdicts,
    acks: mpsc::UnboundedSender<Ack>,
    held: watch::Sender<Vec<Uuid>>,
    news: mpsc::Receiver<PluginEvent>,
    _stop: watch::Sender<bool>,
}

fn node(endpoints: &[String]) -> Running {
    let (news, heard) = mpsc::channel(64);
    let (acks, acks_heard) = mpsc::unbounded_channel();
    let (held, held_watched) = watch::channel(Vec::new());
    let verdicts = Verdicts::new(Rotation::default(), HashMap::new());
    let wiring = LinkWiring {
        held: held_watched,
        verdicts: verdicts.clone(),
        counters: Box::new(v1::Counters::default),
        shares: Box::new(Vec::new),
        tail: Arc::default(),
        events: news,
        acks: acks_heard,
    };
    let node = NodeIdentity {
        id: "n1".to_owned(),
        boot_id: "b".to_owned(),
        zone: String::new(),
        chassis: watch::channel(String::new()).1,
        capabilities: vec!["tcp".to_owned()],
    };
    let endpoints = endpoints.iter().map(|text| text.parse().unwrap()).collect();
    let (link, status) = Link::new(LinkSettings { endpoints, tls: None }, node, wiring);
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(link.run(stopped));
    Running { status, verdicts, acks, held, news: heard, _stop: stop }
}

impl Running {
    async fn connected(&mut self) -> String {
        let is_so = |status: &LinkStatus| matches!(status, LinkStatus::Connected { .. });
        let now = timeout(LONG, self.status.wait_for(is_so)).await.expect("the node connects").unwrap();
        let LinkStatus::Connected { endpoint } = &*now else { panic!("{now:?}") };
        endpoint.to_string()
    }
}

#[tokio::test]
async fn a_stream_that_ends_is_followed_by_one_to_the_next_plugin_at_once() {
    let mut plugins = Plugins::new();
    let endpoints: Vec<_> = (0..3).map(|at| plugins.serve(at, false)).collect();
    let _node = node(&endpoints);
    let mut stream = plugins.welcomed(60_000).await;
    // Streams this short are failures, but not a whole round of them.
    for _ in 0..2 {
        let (at, before) = (stream.plugin, Instant::now());
        stream.end().await;
        stream = plugins.welcomed(60_000).await;
        assert_eq!(stream.plugin, (at + 1) % 3);
        assert!(before.elapsed() < AT_ONCE, "it took {:?}", before.elapsed());
    }
}

#[tokio::test]
async fn plugins_that_are_dead_or_refuse_are_passed_over_without_a_pause() {
    let mut plugins = Plugins::new();
    let dead = plugins.endpoint(0);
    let dead_too = plugins.endpoint(1);
    drop(std::os::unix::net::UnixListener::bind(plugins.path(1)).unwrap());
    let endpoints = [dead, dead_too, plugins.serve(2, true), plugins.serve(3, false), plugins.serve(4, true)];
    let before = Instant::now();
    let mut node = node(&endpoints);
    let stream = plugins.welcomed(60_000).await;
    assert_eq!((stream.plugin, node.connected().await), (3, endpoints[3].clone()));
    assert!(before.elapsed() < AT_ONCE, "it took {:?}", before.elapsed());
}

#[tokio::test]
async fn nodes_spread_over_the_plugins_and_stay_where_they_are() {
    let mut plugins = Plugins::new();
    let endpoints = [plugins.serve(0, false), plugins.serve(1, false)];
    let nodes: Vec<_> = (0..20).map(|_| node(&endpoints)).collect();
    let mut streams = Vec::new();
    for _ in &nodes {
        streams.push(plugins.welcomed(60_000).await);
    }
    let at_first = streams.iter().filter(|stream| stream.plugin == 0).count();
    assert!((1..20).contains(&at_first), "{at_first} of 20 begin with the first plugin");
    assert!(plugins.streams.try_recv().is_err());
}

#[tokio::test]
async fn a_node_goes_where_a_follower_redirects_it_at_once() {
    let mut plugins = Plugins::new();
    let leader = plugins.serve(0, false);
    // The leader is not on the node's list.
    let endpoints = [plugins.follower(1, &leader), plugins.follower(2, &leader)];
    let before = Instant::now();
    let mut node = node(&endpoints);
    let stream = plugins.welcomed(60_000).await;
    assert_eq!((stream.plugin, node.connected().await), (0, leader));
    assert!(before.elapsed() < AT_ONCE, "it took {:?}", before.elapsed());
    assert_eq!(*plugins.refused.borrow(), 1);
    // When that stream ends, the next of the list is asked.
    stream.end().await;
    assert_eq!(plugins.welcomed(60_000).await.plugin, 0);
}

#[tokio::test]
async fn a_leader_that_is_gone_keeps_no_node_from_its_own_list() {
    let mut plugins = Plugins::new();
    let gone = plugins.endpoint(9);
    let endpoints = [plugins.follower(0, &gone), plugins.follower(1, &gone), plugins.serve(2, false)];
    let before = Instant::now();
    let _node = node(&endpoints);
    assert_eq!(plugins.welcomed(60_000).await.plugin, 2);
    assert!(before.elapsed() < AT_ONCE, "it took {:?}", before.elapsed());
}

#[tokio::test]
async fn a_leader_that_does_nothing_costs_one_timeout() {
    let mut plugins = Plugins::new();
    let _stopped = std::os::unix::net::UnixListener::bind(plugins.path(9)).unwrap();
    let stopped = plugins.endpoint(9);
    let endpoints = [plugins.follower(0, &stopped), plugins.follower(1, &stopped), plugins.serve(2, false)];
    let before = Instant::now();
    let nodes: Vec<_> = (0..8).map(|_| node(&endpoints)).collect();
    for _ in &nodes {
        assert_eq!(plugins.welcomed(60_000).await.plugin, 2);
    }
    // Two seconds for a plugin to take a stream, once in a round.
    assert!(before.elapsed() < Duration::from_secs(2) + 2 * AT_ONCE, "it took {:?}", before.elapsed());
}

#[tokio::test]
async fn redirects_that_lead_nowhere_are_followed_by_a_pause() {
    let plugins = Plugins::new();
    // Each to itself, to one another, and to what is no address of use.
    let [a, b, c, d, e] = [0, 1, 2, 3, 4].map(|at| plugins.endpoint(at));
    let https = "https://127.0.0.1:1";
    let endpoints = [
        plugins.follower(0, &a),
        plugins.follower(1, &c),
        plugins.follower(2, &b),
        plugins.follower(3, "garbage"),
        plugins.follower(4, https),
    ];
    assert_eq!(endpoints, [a, b, c, d, e]);
    let before = Instant::now();
    let _node = node(&endpoints);
    // At most 7 streams in a round: 2 where two plugins name one another.
    let mut refused = plugins.refused.subscribe();
    timeout(LONG, refused.wait_for(|refused| *refused > 3 * 7)).await.expect("it keeps retrying").unwrap();
    let pauses = Duration::from_millis(50 + 100 + 200);
    assert!(before.elapsed() >= pauses, "three rounds without a pause: {:?}", before.elapsed());
}

#[tokio::test]
async fn a_plugin_that_is_silent_is_left_for_the_next() {
    const HEARTBEAT_MS: u32 = 50;
    let mut plugins = Plugins::new();
    let endpoints = [plugins.serve(0, false), plugins.serve(1, false)];
    let _node = node(&endpoints);
    let silent = plugins.welcomed(HEARTBEAT_MS).await;
    let before = Instant::now();
    let next = plugins.welcomed(60_000).await;
    assert_ne!(next.plugin, silent.plugin);
    let limit = 4 * Duration::from_millis(HEARTBEAT_MS.into());
    let took = before.elapsed();
    assert!(took > limit / 2 && took < limit + AT_ONCE, "it took {took:?}");
}

#[tokio::test]
async fn a_plugin_that_takes_connections_and_does_nothing_is_passed_over() {
    let mut plugins = Plugins::new();
    // The kernel takes connections for a process that is stopped.
    let _stopped = std::os::unix::net::UnixListener::bind(plugins.path(0)).unwrap();
    let endpoints = [plugins.endpoint(0), plugins.serve(1, false)];
    let before = Instant::now();
    let nodes: Vec<_> = (0..8).map(|_| node(&endpoints)).collect();
    for _ in &nodes {
        assert_eq!(plugins.welcomed(60_000).await.plugin, 1);
    }
    // Two seconds for the plugin to take a stream.
    assert!(before.elapsed() < Duration::from_secs(2) + 2 * AT_ONCE, "it took {:?}", before.elapsed());
}

/// A configuration with one checked backend, and a verdict on it.
fn checked() -> (Configuration, Verdict, Uuid) {
    let [pool, network, backend] = [1, 2, 3].map(Uuid::from_u128);
    let address = "10.0.0.1:80".to_owned();
    let backends = vec![v1::Backend {
        id: backend.to_string(),
        monitor_address: address.clone(),
        address,
        weight: 1,
        enabled: true,
        ..v1::Backend::default()
    }];
    let check = v1::Check { http: None, delay_ms: 1000, timeout_ms: 500, rise: 1, fall: 1 };
    let wire = v1::Pool {
        id: pool.to_string(),
        network_id: network.to_string(),
        algorithm: v1::Algorithm::RoundRobin.into(),
        enabled: true,
        backends,
        check: Some(check),
        ..v1::Pool::default()
    };
    let change = Change::try_from(v1::Update { pools: vec![wire], ..v1::Update::default() }).unwrap();
    let configuration = Configuration::default().changed(change);
    let pool = &configuration.pools[&pool].value;
    let (checked, check) = pool.checked().next().unwrap();
    let key = TargetKey { network, address: checked.monitor_address, check: Arc::clone(check) };
    let verdict = Verdict {
        key,
        backends: vec![backend],
        up: false,
        reason: "connection refused".to_owned(),
        at: SystemTime::UNIX_EPOCH,
        sequence: 1,
    };
    (configuration, verdict, backend)
}

#[tokio::test]
async fn what_a_broken_stream_lost_is_said_again_on_the_next() {
    let mut plugins = Plugins::new();
    let endpoints = [plugins.serve(0, false), plugins.serve(1, false)];
    let node = node(&endpoints);
    let (configuration, verdict, backend) = checked();
    node.verdicts.set_configuration(&configuration);
    let mut stream = plugins.welcomed(60_000).await;
    assert_eq!(stream.hello.held_vip_ids, Vec::<String>::new());
    let first = stream.verdicts().await;
    assert!(first.first && first.verdicts.is_empty(), "{first:?}");

    // It is said, and the plugin dies before it does anything with it.
    assert!(node.verdicts.report(&verdict));
    node.held.send_replace(vec![backend]);
    let said = stream.verdicts().await;
    assert_eq!(said.verdicts[0].backend_id, backend.to_string());
    node.acks.send(Ack { epoch: 1, revision: 0, results: Vec::new() }).unwrap();
    drop(stream);

    let mut stream = plugins.welcomed(60_000).await;
    assert_eq!(stream.hello.held_vip_ids, [backend.to_string()]);
    let again = stream.verdicts().await;
    assert!(again.first && !again.more);
    assert_eq!(again.verdicts, said.verdicts);
}

#[tokio::test]
async fn what_is_known_is_said_again_when_a_snapshot_is_carried_out() {
    let mut plugins = Plugins::new();
    let mut node = node(&[plugins.serve(0, false)]);
    let (configuration, verdict, backend) = checked();
    node.verdicts.set_configuration(&configuration);
    assert!(node.verdicts.report(&verdict));
    let mut stream = plugins.welcomed(60_000).await;
    let first = stream.verdicts().await;
    assert!(first.first && first.verdicts.len() == 1, "{first:?}");
    // The plugin has not assigned the node its networks again when it receives that, and so ignores it.
    let update = v1::Update { revision: 1, snapshot_end: true, ..Default::default() };
    stream.say(FromPlugin::Update(update)).await;
    while !matches!(
        timeout(LONG, node.news.recv()).await.unwrap(),
        Some(PluginEvent::Snapshot { revision: 1, .. })
    ) {}
    node.acks.send(Ack { epoch: 1, revision: 1, results: Vec::new() }).unwrap();
    let again = stream.verdicts().await;
    assert!(!again.first, "{again:?}");
    assert_eq!(again.verdicts.iter().map(|it| &it.backend_id).collect::<Vec<_>>(), [&backend.to_string()]);
}

#[tokio::test]
async fn a_stream_is_renewed_before_it_ends_and_the_node_stays_connected() {
    let mut plugins = Plugins::new();
    let endpoints = [plugins.serve(0, false)];
    let mut node = node(&endpoints);
    let mut first = plugins.opened().await;
    first.welcome(60_000, 500).await;
    node.connected().await;
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let mut status = node.status.clone();
    let watching = tokio::spawn({
        let seen = Arc::clone(&seen);
        async move {
            while status.changed().await.is_ok() {
                seen.lock().unwrap().push(status.borrow_and_update().clone());
            }
        }
    });
    for round in 0..3 {
        let next = plugins.opened().await;
        assert_eq!((next.hello.node_id.as_str(), next.hello.boot_id.as_str()), ("n1", "b"));
        // The older one is in use until the later one is welcome; either may be the first to be reported.
        if round % 2 == 0 {
            first.replace().await;
            next.welcome(60_000, 500).await;
        } else {
            next.welcome(60_000, 500).await;
            first.replace().await;
        }
        first = next;
        let verdicts = first.verdicts().await;
        assert!(verdicts.first && !verdicts.more, "all that is known is sent on the new one");
    }
    let is_connected = |status: &LinkStatus| matches!(status, LinkStatus::Connected { .. });
    assert!(seen.lock().unwrap().iter().all(is_connected), "{:?}", seen.lock().unwrap());
    watching.abort();
}

#[tokio::test]
async fn a_stream_that_cannot_be_renewed_goes_on_until_its_end() {
    let mut plugins = Plugins::new();
    let endpoints = [plugins.serve(0, false)];
    let mut node = node(&endpoints);
    let mut first = plugins.opened().await;
    first.welcome(60_000, 500).await;
    node.connected().await;
    for _ in 0..2 {
        // It is refused: the plugin has no place at the moment.
        plugins.opened().await.end().await;
    }
    let verdict = FromPlugin::Heartbeat(v1::Heartbeat {});
    first.say(verdict).await;
    assert!(first.verdicts().await.first, "it is still in use");
    assert!(matches!(*node.status.borrow(), LinkStatus::Connected { .. }));
    let again = plugins.opened().await;
    again.welcome(60_000, 0).await;
    first.replace().await;
    let mut again = again;
    assert!(again.verdicts().await.first);
}
