//! Trace of single connections, as an operator turns it on by the log's filter.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
    time::Duration,
};

use fiberlb_proxy::{dataplane::Dataplane, proxy_protocol::Version};
use tokio::net::UdpSocket;
use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use crate::{
    datagrams::{self, UdpServer, udp},
    peers::{Server, is_turned_away, says_and_hears},
    world::{LISTENER, POOL, World, backend, patiently},
};

/// The log, as written so far.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// The log of this process from now on, of what a filter asks for.
    pub(crate) fn start(filter: &str) -> Self {
        let (log, filter) = (Self::default(), EnvFilter::new(filter));
        let subscriber =
            tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(log.clone());
        subscriber.try_init().unwrap();
        log
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// Waits for a line with these parts.
    async fn line(&self, parts: &[&str]) -> String {
        let found = || {
            let text = self.text();
            let line = text.lines().find(|line| parts.iter().all(|part| line.contains(part)));
            line.map(str::to_owned)
        };
        let waited = tokio::time::timeout(Duration::from_secs(20), async {
            loop {
                match found() {
                    Some(line) => return line,
                    None => tokio::time::sleep(Duration::from_millis(2)).await,
                }
            }
        });
        let line = waited.await;
        assert!(line.is_ok(), "no line with {parts:?} in\n{}", self.text());
        line.unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The only test of this process with a subscriber: workers are threads of their own, so that it is a global one.
#[tokio::test]
async fn each_connection_has_one_line_with_its_listener_backend_bytes_and_outcome() {
    let log = Log::start("info,fiberlb_proxy::connection=debug");
    let server = Server::echo().await;
    let world = World::with(1, vec![backend(1, server.address)], |spec| {
        spec.listeners[0].limits.connections = Some(1);
    })
    .await;
    let mut client = world.connect().await;
    let address = client.local_addr().unwrap();
    says_and_hears(&mut client).await;
    is_turned_away(&world).await;
    let (listener, pool) = (format!("listener={LISTENER}"), format!("pool={POOL}"));
    let refused = log.line(&["outcome=\"connection_limit\"", &listener]).await;
    assert!(refused.contains("bytes_in=0 bytes_out=0"), "{refused}");

    drop(client);
    world.quiet().await;
    let client = format!("client={address}");
    let backend_id = format!("backend={}", backend(1, server.address).id);
    let closed = log.line(&["connection ended", &client]).await;
    for part in
        [&listener, &pool, &backend_id, "outcome=\"closed\"", "bytes_in=5 bytes_out=5", "duration_ms="]
    {
        assert!(closed.contains(part), "no {part} in {closed}");
    }

    let mut client = world.connect().await;
    let address = format!("client={}", client.local_addr().unwrap());
    says_and_hears(&mut client).await;
    let World { plane, .. } = world;
    patiently(Dataplane::shutdown(plane, Duration::from_millis(50))).await;
    log.line(&["connection ended", &address, "outcome=\"cut\""]).await;
    log.line(&["reset the connections that were left at the drain deadline", "connections=1"]).await;
    assert_eq!(log.text().matches("connection ended").count(), 3, "{}", log.text());
    headers(&log).await;
    departures(&log).await;
    sessions(&log).await;
}

/// The same of sessions of UDP.
async fn sessions(log: &Log) {
    let server = UdpServer::named(1).await;
    let world = World::with(1, vec![backend(1, server.address)], |spec| {
        udp(spec);
        spec.listeners[0].limits.connections = Some(1);
        spec.listeners[0].limits.client_data = Some(Duration::from_millis(300));
    })
    .await;
    let (client, other) = (datagrams::client(world.address).await, datagrams::client(world.address).await);
    assert_eq!(datagrams::name(&client).await, 1);
    other.send(b"hello").await.unwrap();
    let of = |client: &UdpSocket| format!("client={}", client.local_addr().unwrap());
    log.line(&["outcome=\"connection_limit\"", &of(&other)]).await;
    world.quiet().await;
    let ended = log.line(&["connection ended", &of(&client), "outcome=\"timed_out\""]).await;
    assert!(ended.contains("backend=") && ended.contains("bytes_in=5 bytes_out=6"), "{ended}");
}

/// The same of a connection whose backend goes.
async fn departures(log: &Log) {
    let server = Server::echo().await;
    let world = World::with(1, vec![backend(1, server.address)], |spec| {
        spec.pools[0].drain_timeout = Some(Duration::ZERO);
    })
    .await;
    let mut client = world.connect().await;
    let address = format!("client={}", client.local_addr().unwrap());
    says_and_hears(&mut client).await;
    let id = backend(1, server.address).id;
    world.plane.set_health(id, false);
    log.line(&["connection ended", &address, "outcome=\"backend_gone\""]).await;
    let line = log.line(&["resetting connections: their backend is gone", "connections=1"]).await;
    assert!(line.contains(&format!("backend={id}")) && line.contains("suppressed=0"), "{line}");
}

/// The same of connections of a trusted proxy.
async fn headers(log: &Log) {
    let server = Server::named(1).await;
    let world = World::with(1, vec![backend(1, server.address)], |spec| {
        spec.listeners[0].trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        spec.pools[0].header = Some(Version::V2);
    })
    .await;
    let mut proxy = world.connect().await;
    let address = format!("client={}", proxy.local_addr().unwrap());
    tokio::io::AsyncWriteExt::write_all(&mut proxy, b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n").await.unwrap();
    tokio::io::AsyncWriteExt::shutdown(&mut proxy).await.unwrap();
    let line = log.line(&["connection ended", &address, "stated_client=192.0.2.7:1"]).await;
    let (_, id) = line.split_once("unique_id=").unwrap();
    assert!(id[..36].parse::<uuid::Uuid>().is_ok(), "{line}");
    let mut proxy = world.connect().await;
    tokio::io::AsyncWriteExt::write_all(&mut proxy, b"GET / HTTP/1.1").await.unwrap();
    let line = log.line(&["has not begun with a valid header", "reason=\"missing\""]).await;
    assert!(line.contains("suppressed=0"), "{line}");
    log.line(&["connection ended", "outcome=\"proxy_header\""]).await;
}
