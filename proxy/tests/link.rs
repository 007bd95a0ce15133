//! The link to the plugin over mutual TLS, with several endpoints. The plugin's half is played by the test.
#![cfg(test)]

use std::collections::HashMap;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use fiberlb_daemon::testing::write_secret;
use fiberlb_proto::agent::v1;
use fiberlb_proxy::dataplane::Rotation;
use fiberlb_proxy::link::{Link, LinkSettings, LinkStatus, LinkWiring, NodeIdentity, PluginEvent, TlsFiles};
use fiberlb_proxy::verdicts::Verdicts;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Streaming};
use uuid::Uuid;
use v1::agent_service_server::{AgentService, AgentServiceServer};
use v1::plugin_message::Message;

const LONG: Duration = Duration::from_secs(20);
const INSTALLATION: Uuid = Uuid::from_u128(7);

/// A CA and what it has issued.
struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
struct Pair {
    certificate: String,
    key: String,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    fn issue(&self, name: SanType) -> Pair {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![name];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Pair { certificate, key: key.serialize_pem() }
    }

    fn server(&self) -> Pair {
        self.issue(SanType::IpAddress([127, 0, 0, 1].into()))
    }

    /// Files of a node whose certificate is of this CA, and that trusts another one.
    fn node(&self, trusted: &Self, dir: &Path) -> TlsFiles {
        let pair = self.issue(SanType::URI("urn:fiberlb:node:n1".try_into().unwrap()));
        let write = |name: &str, text: &str| {
            let path = dir.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        TlsFiles {
            ca: write("ca.pem", &trusted.pem),
            certificate: write("node.pem", &pair.certificate),
            key: {
                write_secret(&dir.join("node.key"), &pair.key);
                dir.join("node.key")
            },
        }
    }
}

/// Welcomes everybody.
struct Welcoming;

#[tonic::async_trait]
impl AgentService for Welcoming {
    type SessionStream =
        Pin<Box<dyn futures_util::Stream<Item = Result<v1::PluginMessage, tonic::Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::NodeMessage>>,
    ) -> Result<Response<Self::SessionStream>, tonic::Status> {
        let (out, outgoing) = mpsc::channel(1);
        let mut inbound = request.into_inner();
        tokio::spawn(async move {
            let hello = inbound.message().await;
            assert!(matches!(hello, Ok(Some(v1::NodeMessage { epoch: 0, .. }))));
            let welcome = v1::Welcome {
                version: 1,
                heartbeat_ms: 60_000,
                installation: INSTALLATION.to_string(),
                renew_after_ms: 0,
            };
            let _ =
                out.send(Ok(v1::PluginMessage { epoch: 1, message: Some(Message::Welcome(welcome)) })).await;
            while let Ok(Some(_)) = inbound.message().await {}
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }
}

/// Serves with a certificate, to nodes of a CA; returns the endpoint.
async fn serve(pair: &Pair, nodes: &Ca) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(&pair.certificate, &pair.key))
        .client_ca_root(Certificate::from_pem(&nodes.pem));
    let server = Server::builder().tls_config(tls).unwrap().add_service(AgentServiceServer::new(Welcoming));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    endpoint
}

/// A link that runs until it is dropped.
struct Running {
    status: watch::Receiver<LinkStatus>,
    news: mpsc::Receiver<PluginEvent>,
    _stop: watch::Sender<bool>,
    _acks: mpsc::UnboundedSender<fiberlb_proxy::link::Ack>,
}

fn link(endpoints: &[String], tls: TlsFiles) -> Running {
    let (news, heard) = mpsc::channel(4);
    let (acks, acks_heard) = mpsc::unbounded_channel();
    let wiring = LinkWiring {
        held: watch::channel(Vec::new()).1,
        verdicts: Verdicts::new(Rotation::default(), HashMap::new()),
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
    let (link, status) = Link::new(LinkSettings { endpoints, tls: Some(tls) }, node, wiring);
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(link.run(stopped));
    Running { status, news: heard, _stop: stop, _acks: acks }
}

impl Running {
    async fn until(&mut self, is_so: impl FnMut(&LinkStatus) -> bool) -> LinkStatus {
        let now = tokio::time::timeout(LONG, self.status.wait_for(is_so)).await;
        now.expect("the link gets there").unwrap().clone()
    }
}

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[tokio::test]
async fn the_next_endpoint_is_tried_when_one_is_dead() {
    let (ca, dir) = (Ca::new(), directory());
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let alive = serve(&ca.server(), &ca).await;
    let mut link = link(&[format!("https://{dead}"), alive.clone()], ca.node(&ca, dir.path()));
    let status = link.until(|status| matches!(status, LinkStatus::Connected { .. })).await;
    let LinkStatus::Connected { endpoint } = status else { panic!("{status:?}") };
    assert_eq!(endpoint.to_string(), alive);
    assert_eq!(link.news.recv().await, Some(PluginEvent::Welcome { epoch: 1, installation: INSTALLATION }));
}

#[tokio::test]
async fn a_plugin_or_node_of_another_ca_is_refused() {
    let (ca, other, dir) = (Ca::new(), Ca::new(), directory());
    let refused = |status: &LinkStatus| matches!(status, LinkStatus::Disconnected { reason } if reason.contains("https"));
    let stranger = serve(&other.server(), &ca).await;
    let mut to_stranger = link(&[stranger], ca.node(&ca, dir.path()));
    let status = to_stranger.until(refused).await;
    assert!(format!("{status:?}").contains("certificate"), "{status:?}");

    let right = serve(&ca.server(), &ca).await;
    let dir = directory();
    let mut as_stranger = link(&[right], other.node(&ca, dir.path()));
    as_stranger.until(refused).await;
    assert!(as_stranger.news.try_recv().is_err());
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_without_a_restart() {
    let (ca, other, dir) = (Ca::new(), Ca::new(), directory());
    let endpoint = serve(&ca.server(), &ca).await;
    let mut link = link(&[endpoint], other.node(&ca, dir.path()));
    link.until(|status| matches!(status, LinkStatus::Disconnected { reason } if reason.contains("https")))
        .await;
    ca.node(&ca, dir.path());
    link.until(|status| matches!(status, LinkStatus::Connected { .. })).await;
}

#[tokio::test]
async fn a_machine_that_does_not_answer_costs_a_second() {
    let (ca, dir) = (Ca::new(), directory());
    // The kernel takes connections for a process that is stopped; TLS waits for the process.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let alive = serve(&ca.server(), &ca).await;
    let endpoints = [format!("https://{}", mute.local_addr().unwrap()), alive];
    let before = std::time::Instant::now();
    // Each begins with one of them by chance.
    let mut links: Vec<_> = (0..8).map(|_| link(&endpoints, ca.node(&ca, dir.path()))).collect();
    for link in &mut links {
        link.until(|status| matches!(status, LinkStatus::Connected { .. })).await;
    }
    assert!(before.elapsed() < Duration::from_millis(2500), "it took {:?}", before.elapsed());
}
