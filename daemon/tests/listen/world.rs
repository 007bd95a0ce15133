//! A listener with a service that answers, streams, and says who asks.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use fiberlb_daemon::listen::{ConnectionSettings, Listener, Listeners, Peer, RefusedReason, Socket};
use fiberlb_daemon::testing::PATIENCE;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prometheus_client::registry::Registry;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Client of most tests.
pub(crate) const ATTACKER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));
/// Client that has done nothing yet.
pub(crate) const HONEST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 3));

/// `/stream` answers with a body that goes on until `streams` is false, `/peer` with the peer, all else with `hello`.
#[derive(Clone)]
struct Example {
    streams: watch::Receiver<bool>,
}

/// Body that has a text, or that waits for the end of all streams.
pub(crate) struct ExampleBody {
    text: Option<String>,
    end: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Body for ExampleBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(text) = self.text.take() {
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from(text)))));
        }
        match &mut self.end {
            Some(end) => end.as_mut().poll(context).map(|()| None),
            None => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.text, &self.end) {
            (Some(text), None) => SizeHint::with_exact(text.len() as u64),
            _ => SizeHint::default(),
        }
    }
}

impl Service<Request<Incoming>> for Example {
    type Response = Response<ExampleBody>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let mut streams = self.streams.clone();
        let body = match request.uri().path() {
            "/stream" => ExampleBody {
                text: Some("begun".to_owned()),
                end: Some(Box::pin(async move {
                    let _ = streams.wait_for(|goes_on| !*goes_on).await;
                })),
            },
            "/peer" => {
                let peer = request.extensions().get::<Peer>().unwrap();
                let certificates = peer.certificates.as_ref().map_or(0, |chain| chain.len());
                let address = peer.address.map_or("unix".to_owned(), |address| address.ip().to_string());
                ExampleBody { text: Some(format!("{address} {certificates}")), end: None }
            }
            _ => ExampleBody { text: Some("hello".to_owned()), end: None },
        };
        std::future::ready(Ok(Response::new(body)))
    }
}

/// A running listener.
pub(crate) struct World {
    pub(crate) address: Option<SocketAddr>,
    pub(crate) listeners: Listeners,
    /// Streams go on while it is true.
    pub(crate) streams: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl World {
    /// A listener on TCP.
    pub(crate) fn start(settings: ConnectionSettings, change: impl FnOnce(Listener) -> Listener) -> Self {
        let socket = Socket::tcp(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        Self::start_on(socket, settings, change)
    }

    pub(crate) fn start_on(
        socket: Socket,
        settings: ConnectionSettings,
        change: impl FnOnce(Listener) -> Listener,
    ) -> Self {
        let (address, listeners) = (socket.address(), Listeners::default());
        let listener = change(Listener::new("test", socket, settings, listeners.clone()));
        let (streams, streams_watched) = watch::channel(true);
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(listener.serve(Example { streams: streams_watched }, stopped));
        Self { address, listeners, streams, stop, serving }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address.unwrap()
    }

    /// Stops the listener; returns the time that it took.
    pub(crate) async fn stop(self) -> Duration {
        let start = Instant::now();
        self.stop.send_replace(true);
        timeout(PATIENCE, self.serving).await.expect("it stops").unwrap();
        start.elapsed()
    }

    fn scrape(&self) -> String {
        let (mut registry, mut text) = (Registry::default(), String::new());
        self.listeners.register(&mut registry);
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    fn sample(&self, series: &str) -> u64 {
        let scrape = self.scrape();
        let value = scrape.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no {series} in {scrape}"))
    }

    /// Number of open connections.
    pub(crate) fn connections(&self) -> u64 {
        self.sample("listener_connections{listener=\"test\"}")
    }

    /// Number of connections that were refused for a reason.
    pub(crate) fn refused(&self, reason: RefusedReason) -> u64 {
        self.sample(&format!("listener_refused_total{{listener=\"test\",reason=\"{}\"}}", reason.as_str()))
    }

    /// Waits until a number of this world is as expected.
    pub(crate) async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let wait = async {
            while !is_so(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(timeout(PATIENCE, wait).await.is_ok(), "never: {what}\n{}", self.scrape());
    }
}

/// HTTP/2 client on a connection, and the connection's end.
pub(crate) struct Client {
    requests: SendRequest<Empty<Bytes>>,
    pub(crate) ended: JoinHandle<hyper::Result<()>>,
}

impl Client {
    pub(crate) async fn on<Io>(io: Io) -> Self
    where
        Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (requests, connection) =
            timeout(PATIENCE, http2::handshake(TokioExecutor::new(), TokioIo::new(io)))
                .await
                .unwrap()
                .unwrap();
        Self { requests, ended: tokio::spawn(connection) }
    }

    /// Sends a request, and waits for the head of its response.
    pub(crate) async fn begin(&mut self, path: &str) -> hyper::Result<Response<Incoming>> {
        let request = Request::builder().uri(format!("http://test{path}")).body(Empty::new()).unwrap();
        timeout(PATIENCE, self.requests.ready()).await.expect("it is ready or closed")?;
        timeout(PATIENCE, self.requests.send_request(request)).await.expect("it answers")
    }

    /// The whole answer to a request.
    pub(crate) async fn get(&mut self, path: &str) -> hyper::Result<String> {
        let response = self.begin(path).await?;
        let body = timeout(PATIENCE, response.into_body().collect()).await.expect("it ends")?;
        Ok(String::from_utf8(body.to_bytes().to_vec()).unwrap())
    }
}

/// Connects from an address with HTTP/2.
pub(crate) async fn client(source: IpAddr, world: &World) -> Client {
    let stream = fiberlb_daemon::testing::connect_from(source, world.address()).await.unwrap();
    Client::on(stream).await
}

/// Settings with which nothing is cut within a test.
pub(crate) fn patient() -> ConnectionSettings {
    ConnectionSettings {
        first_byte_ms: 600_000,
        handshake_ms: 600_000,
        request_ms: 600_000,
        idle_s: 86_400,
        age_s: 86_400,
        ..ConnectionSettings::default()
    }
}
