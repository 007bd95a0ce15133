//! FiberLB's data plane with one worker, and the features on that a listener has by default.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fiberlb_proxy::access_log::{AccessLog, AccessLogSettings};
use fiberlb_proxy::dataplane::{
    Algorithm, BackendSpec, Dataplane, DataplaneOptions, DataplaneSpec, Limits, ListenerSpec, PoolSpec,
    Protocol, WeightedPool,
};
use fiberlb_proxy::sockets::{OwnNamespace, SocketFactory};
use uuid::Uuid;

use crate::backend::{DATAGRAMS, ECHO, STREAM};
use crate::rivals::{DATAGRAM_PORT, ECHO_PORT, MAX_CONNECTIONS, STREAM_PORT};
use crate::world::{BACKEND, PROXY};

/// Part of the connections that are logged.
const LOGGED: f64 = 0.01;

const NETWORK: Uuid = Uuid::from_u128(1);

/// Serves for as long as the process lives, with an access log in a folder.
#[tokio::main(flavor = "current_thread")]
pub(crate) async fn serve(folder: &str) -> anyhow::Result<()> {
    let log = AccessLog::start(AccessLogSettings {
        node: "bench".to_owned(),
        sample: LOGGED,
        directory: Some(folder.into()),
        lines_per_second: u32::MAX,
        max_file_bytes: 1 << 30,
        syslog: None,
        otlp: None,
    })?;
    let mut plane = Dataplane::start_with_log(DataplaneOptions::for_this_process(1), Arc::new(log))?;
    let factory: Arc<dyn SocketFactory> = Arc::new(OwnNamespace);
    let spec = DataplaneSpec {
        networks: HashMap::from([(NETWORK, factory)]),
        listeners: vec![
            listener(1, Protocol::Tcp, ECHO_PORT)?,
            listener(2, Protocol::Tcp, STREAM_PORT)?,
            listener(3, Protocol::Udp, DATAGRAM_PORT)?,
        ],
        pools: vec![pool(1, &ECHO)?, pool(2, &[STREAM])?, pool(3, &[DATAGRAMS])?],
        drain_timeout: Duration::ZERO,
        ..DataplaneSpec::default()
    };
    for outcome in plane.apply(&spec).await {
        outcome.result?;
    }
    println!("ready");
    std::future::pending().await
}

fn listener(number: u128, protocol: Protocol, port: u16) -> anyhow::Result<ListenerSpec> {
    let id = |kind: u128| Uuid::from_u128(kind << 16 | number);
    Ok(ListenerSpec {
        id: id(1),
        name: "bench".to_owned(),
        load_balancer: Uuid::nil(),
        project: String::new(),
        network: NETWORK,
        protocol,
        addresses: vec![SocketAddr::new(PROXY.parse()?, port)],
        ports: 1,
        pools: vec![WeightedPool::alone(id(2))],
        limits: Limits {
            connections: Some(MAX_CONNECTIONS),
            client_data: Some(Duration::from_secs(50)),
            backend_connect: Some(Duration::from_secs(5)),
            backend_data: Some(Duration::from_secs(50)),
            ..Limits::default()
        },
        allowed_cidrs: Vec::new(),
        trusted_proxies: Vec::new(),
        frontends: Vec::new(),
        enabled: true,
    })
}

fn pool(number: u128, ports: &[u16]) -> anyhow::Result<PoolSpec> {
    let address = BACKEND.parse()?;
    let backend = |port: &u16| BackendSpec {
        id: Uuid::from_u128(0x100_0000 + u128::from(*port)),
        address: SocketAddr::new(address, *port),
        weight: 1,
        backup: false,
        enabled: true,
        connection_limit: None,
        starts_in_rotation: true,
    };
    Ok(PoolSpec {
        id: Uuid::from_u128(2 << 16 | number),
        algorithm: Algorithm::RoundRobin,
        persistence: None,
        header: None,
        drain_timeout: None,
        slow_start: None,
        passive_health: None,
        queue: None,
        backends: ports.iter().map(backend).collect(),
    })
}
