//! Records of single connections, as the access log gets them: each connection has one, with the reason of its end.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use fiberlb_proxy::{
    dataplane::{
        ConnectionLog, ConnectionRecord, Dataplane, DataplaneOptions, DataplaneSpec, EndReason, ListenerSink,
        RecordLabels, SelectedBy, SourceIpPersistence,
    },
    proxy_protocol::Version,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use uuid::Uuid;

use crate::{
    datagrams::{self, UdpServer, udp},
    peers::{Server, is_turned_away, refusing, says_and_hears},
    world::{LISTENER, POOL, World, backend, listener, patiently, pool},
};

const LOAD_BALANCER: Uuid = Uuid::from_u128(77);

/// Records so far.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<ConnectionRecord>>>);

impl ConnectionLog for Log {
    fn listener(&self, _: &RecordLabels) -> Arc<dyn ListenerSink> {
        Arc::new(self.clone())
    }
}

impl ListenerSink for Log {
    fn ended(&self, record: &dyn Fn() -> ConnectionRecord) {
        self.0.lock().unwrap().push(record());
    }
}

impl Log {
    /// Waits for the only record since the last call.
    async fn one(&self) -> ConnectionRecord {
        let found = tokio::time::timeout(Duration::from_secs(20), async {
            loop {
                if let Some(record) = self.0.lock().unwrap().pop() {
                    return record;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        let record = found.await.expect("a record comes");
        assert!(self.0.lock().unwrap().is_empty(), "one for a connection");
        let RecordLabels { listener, load_balancer, project } = &*record.labels;
        assert_eq!((*listener, *load_balancer, project.as_str()), (LISTENER, LOAD_BALANCER, "shop"));
        record
    }
}

/// A world whose connections are recorded.
async fn world(
    backends: Vec<fiberlb_proxy::dataplane::BackendSpec>,
    change: impl FnOnce(&mut DataplaneSpec),
) -> (World, Arc<Log>) {
    let mut world = World::empty(1, (crate::world::own_address(), 8080).into());
    let log = Arc::<Log>::default();
    let options = DataplaneOptions::for_this_process(1);
    world.plane = Dataplane::start_with_log(options, Arc::clone(&log) as _).unwrap();
    let mut listener = listener(world.address);
    (listener.load_balancer, listener.project) = (LOAD_BALANCER, "shop".to_owned());
    world.configuration.listeners = vec![listener];
    world.configuration.pools = vec![pool(backends)];
    change(&mut world.configuration);
    world.apply_all().await;
    (world, log)
}

#[tokio::test]
async fn a_connection_has_its_times_bytes_and_backend() {
    let server = Server::echo().await;
    let (gone, _held) = refusing();
    let (world, log) = world(vec![backend(1, gone), backend(2, server.address)], |spec| {
        spec.pools[0].persistence = Some(SourceIpPersistence { timeout: Duration::from_secs(60) });
    })
    .await;
    for selected in [SelectedBy::SourceIp, SelectedBy::Persistence] {
        let mut client = world.connect().await;
        let address = client.local_addr().unwrap();
        says_and_hears(&mut client).await;
        drop(client);
        let record = log.one().await;
        assert_eq!((record.reason, record.client, record.proxy), (EndReason::Closed, address, None));
        assert_eq!((record.bytes_in, record.bytes_out), (5, 5));
        let reached = record.backend.unwrap();
        assert_eq!(record.pool, Some(POOL));
        assert_eq!((reached.id, reached.address), (backend(2, server.address).id, server.address));
        assert_eq!(reached.selected, selected);
        let tries = if selected == SelectedBy::Persistence { 1..=1 } else { 1..=2 };
        assert!(tries.contains(&reached.tries), "{record:?}");
        assert!(reached.connected_after <= record.duration, "{record:?}");
        assert!(record.started.elapsed().unwrap() < Duration::from_secs(60), "{record:?}");
    }
    let durations = world.quiet().await.durations;
    assert!(durations.count() == 2 && durations.seconds() > 0.0, "{durations:?}");
}

#[tokio::test]
async fn each_end_has_its_reason() {
    let server = Server::echo().await;
    let reset = |stream: &TcpStream| stream.set_zero_linger().unwrap();

    let (world, log) = self::world(vec![backend(1, server.address)], |spec| {
        spec.listeners[0].limits.connections = Some(1);
    })
    .await;
    let mut client = world.connect().await;
    says_and_hears(&mut client).await;
    is_turned_away(&world).await;
    let refused = log.one().await;
    assert_eq!((refused.reason, refused.pool, refused.backend), (EndReason::ConnectionLimit, None, None));
    reset(&client);
    drop(client);
    assert_eq!(log.one().await.reason, EndReason::ClientReset);

    let resetting = Server::start(|mut stream| async move {
        let _ = stream.read(&mut [0; 16]).await;
        stream.set_zero_linger().unwrap();
    })
    .await;
    let (world, log) = self::world(vec![backend(1, resetting.address)], |_| {}).await;
    let mut client = world.connect().await;
    client.write_all(b"hello").await.unwrap();
    assert_eq!(log.one().await.reason, EndReason::BackendReset);

    let (gone, _held) = refusing();
    let (world, log) = self::world(vec![backend(1, gone)], |_| {}).await;
    is_turned_away(&world).await;
    let refused = log.one().await;
    assert_eq!((refused.reason, refused.pool), (EndReason::NoBackend, Some(POOL)));

    let (world, log) = self::world(vec![backend(1, server.address)], |spec| {
        spec.listeners[0].limits.client_data = Some(Duration::from_secs(2));
        spec.pools[0].drain_timeout = Some(Duration::ZERO);
    })
    .await;
    let mut client = world.connect().await;
    says_and_hears(&mut client).await;
    assert_eq!(log.one().await.reason, EndReason::TimedOut);

    let (world, log) = self::world(vec![backend(1, server.address)], |spec| {
        spec.pools[0].drain_timeout = Some(Duration::ZERO);
    })
    .await;
    let mut client = world.connect().await;
    says_and_hears(&mut client).await;
    world.plane.set_health(backend(1, server.address).id, false);
    assert_eq!(log.one().await.reason, EndReason::BackendGone);

    let (world, log) = self::world(vec![backend(1, server.address)], |spec| {
        spec.listeners[0].allowed_cidrs = vec!["192.0.2.0/24".parse().unwrap()];
    })
    .await;
    is_turned_away(&world).await;
    assert_eq!(log.one().await.reason, EndReason::AllowedCidrs);

    let (world, log) = self::world(vec![backend(1, server.address)], |_| {}).await;
    let mut client = world.connect().await;
    says_and_hears(&mut client).await;
    let World { plane, .. } = world;
    patiently(plane.shutdown(Duration::from_millis(20))).await;
    assert_eq!(log.one().await.reason, EndReason::Cut);
}

#[tokio::test]
async fn the_client_is_the_one_that_a_trusted_proxy_states() {
    let server = Server::named(1).await;
    let (world, log) = world(vec![backend(1, server.address)], |spec| {
        spec.listeners[0].trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        spec.pools[0].header = Some(Version::V2);
    })
    .await;
    let mut proxy = world.connect().await;
    let address = proxy.local_addr().unwrap();
    proxy.write_all(b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n").await.unwrap();
    proxy.shutdown().await.unwrap();
    let record = log.one().await;
    let stated: SocketAddr = "192.0.2.7:1".parse().unwrap();
    assert_eq!((record.client, record.proxy), (stated, Some(address)));
    let mut proxy = world.connect().await;
    proxy.write_all(b"GET / HTTP/1.1").await.unwrap();
    assert_eq!(log.one().await.reason, EndReason::ProxyHeader);
}

#[tokio::test]
async fn a_session_has_a_record_too() {
    let server = UdpServer::named(1).await;
    let (world, log) = world(vec![backend(1, server.address)], |spec| {
        udp(spec);
        spec.listeners[0].limits.client_data = Some(Duration::from_secs(2));
    })
    .await;
    let client = datagrams::client(world.address).await;
    assert_eq!(datagrams::name(&client).await, 1);
    let record = log.one().await;
    assert_eq!((record.reason, record.client), (EndReason::TimedOut, client.local_addr().unwrap()));
    assert_eq!((record.bytes_in, record.bytes_out), (5, 6));
    assert_eq!((record.pool, record.backend.unwrap().address), (Some(POOL), server.address));
}
