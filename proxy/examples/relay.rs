//! One worker that relays from an address to backends, to be measured against other proxies:
//!
//! ```console
//! relay 127.0.0.1:8080 127.0.0.1:9000 127.0.0.1:9001
//! relay --udp 127.0.0.1:5353 127.0.0.1:9000
//! ```

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use fiberlb_proxy::{
    dataplane::{
        Algorithm, BackendSpec, Dataplane, DataplaneOptions, DataplaneSpec, Limits, ListenerSpec, PoolSpec,
        Protocol,
    },
    sockets::{OwnNamespace, SocketFactory},
};
use uuid::Uuid;

type Error = Box<dyn std::error::Error>;

const NETWORK: Uuid = Uuid::from_u128(1);
const POOL: Uuid = Uuid::from_u128(2);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let (mut protocol, mut addresses) = (Protocol::Tcp, Vec::new());
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--udp" => protocol = Protocol::Udp,
            address => addresses.push(address.parse::<SocketAddr>()?),
        }
    }
    let Some((listen, backends)) = addresses.split_first() else {
        return Err("usage: relay [--udp] LISTEN-ADDRESS BACKEND-ADDRESS...".into());
    };
    let mut plane = Dataplane::start(DataplaneOptions::for_this_process(1))?;
    for outcome in plane.apply(&configuration(protocol, *listen, backends)).await {
        outcome.result?;
    }
    std::future::pending().await
}

fn configuration(protocol: Protocol, listen: SocketAddr, backends: &[SocketAddr]) -> DataplaneSpec {
    let factory: Arc<dyn SocketFactory> = Arc::new(OwnNamespace);
    let backends = backends.iter().zip(1..).map(|(address, number)| backend(*address, number)).collect();
    DataplaneSpec {
        networks: HashMap::from([(NETWORK, factory)]),
        nodes: HashMap::new(),
        listeners: vec![listener(protocol, listen)],
        pools: vec![PoolSpec {
            id: POOL,
            algorithm: Algorithm::RoundRobin,
            persistence: None,
            header: None,
            drain_timeout: None,
            backends,
        }],
        drain_timeout: Duration::ZERO,
    }
}

fn listener(protocol: Protocol, address: SocketAddr) -> ListenerSpec {
    ListenerSpec {
        id: Uuid::from_u128(3),
        name: "relay".to_owned(),
        network: NETWORK,
        protocol,
        addresses: vec![address],
        pool: Some(POOL),
        limits: Limits {
            connections: None,
            client_data: Some(Duration::from_secs(50)),
            backend_connect: Some(Duration::from_secs(5)),
            backend_data: Some(Duration::from_secs(50)),
        },
        allowed_cidrs: Vec::new(),
        trusted_proxies: Vec::new(),
        frontends: Vec::new(),
        enabled: true,
    }
}

fn backend(address: SocketAddr, number: u128) -> BackendSpec {
    BackendSpec {
        id: Uuid::from_u128(0x100 + number),
        address,
        weight: 1,
        backup: false,
        enabled: true,
        starts_in_rotation: true,
    }
}
