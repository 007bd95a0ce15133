//! Listeners that divide their connections among several pools.

use std::time::Duration;

use fiberlb_proxy::dataplane::{ListenerCounters, PoolSpec, SourceIpPersistence, WeightedPool};
use tokio::{io::AsyncReadExt as _, net::TcpStream};
use uuid::Uuid;

use crate::{
    datagrams::{UdpServer, client, name_at_last, udp},
    namespace::in_namespace,
    peers::{Server, is_reset, names, says_and_hears, times},
    world::{POOL, World, backend, listener, patiently, pool},
};

/// The second pool.
const GREEN: Uuid = Uuid::from_u128(0x6);

/// Connections that show shares: of a tenth of them no draw is off by a tenth.
const CONNECTIONS: usize = 400;

fn weights(blue: u16, green: u16) -> Vec<WeightedPool> {
    vec![WeightedPool { id: POOL, weight: blue }, WeightedPool { id: GREEN, weight: green }]
}

/// Two pools of one backend each, which are called 1 and 2.
async fn world(servers: &[Server; 2], edit: impl Fn(&mut PoolSpec)) -> World {
    World::with(2, vec![backend(1, servers[0].address)], |spec| {
        spec.pools.push(PoolSpec { id: GREEN, ..pool(vec![backend(2, servers[1].address)]) });
        spec.pools.iter_mut().for_each(&edit);
        spec.listeners[0].pools = weights(90, 10);
    })
    .await
}

async fn named() -> [Server; 2] {
    [Server::named(1).await, Server::named(2).await]
}

#[tokio::test]
async fn connections_divide_by_weight_and_follow_a_change_without_a_failure() {
    let servers = named().await;
    let mut world = world(&servers, |_| {}).await;
    let before = names(&world, CONNECTIONS).await;
    assert!((10..=80).contains(&times(&before, 2)), "{} of {CONNECTIONS}", times(&before, 2));
    for (blue, green) in [(50, 50), (0, 100)] {
        world.configuration.listeners[0].pools = weights(blue, green);
        let address = world.address;
        let (during, ()) = tokio::join!(
            async {
                let mut heard = Vec::new();
                for _ in 0..100 {
                    let mut stream = TcpStream::connect(address).await.unwrap();
                    heard.push(stream.read_u8().await.unwrap());
                }
                heard
            },
            world.apply_all()
        );
        assert_eq!(during.len(), 100);
    }
    assert_eq!(names(&world, 20).await, [2; 20]);
    assert_eq!(world.quiet().await.no_backend, 0);
}

#[tokio::test]
async fn a_pool_that_nobody_serves_leaves_its_share_to_the_other_and_takes_it_back() {
    let servers = named().await;
    let world = world(&servers, |_| {}).await;
    world.plane.set_health(Uuid::from_u128(0x1001), false);
    assert_eq!(names(&world, 20).await, [2; 20]);
    world.plane.set_health(Uuid::from_u128(0x1001), true);
    world.plane.set_health(Uuid::from_u128(0x1002), false);
    assert_eq!(names(&world, 100).await, [1; 100]);
    world.plane.set_health(Uuid::from_u128(0x1002), true);
    assert!(times(&names(&world, CONNECTIONS).await, 2) > 0);
}

#[tokio::test]
async fn a_client_that_a_pool_knows_by_address_has_one_pool() {
    let servers = named().await;
    let persistence = Some(SourceIpPersistence { timeout: Duration::from_secs(60) });
    let mut world = world(&servers, |pool| pool.persistence = persistence).await;
    world.configuration.listeners[0].pools = weights(50, 50);
    world.apply_all().await;
    let names = names(&world, 40).await;
    assert!(names.iter().all(|name| *name == names[0]), "{names:?}");
}

#[tokio::test]
async fn a_pool_without_weight_drains_as_a_backend_without_weight_does() {
    for (timeout, is_cut) in [(None, false), (Some(Duration::ZERO), true)] {
        let servers = [Server::echo().await, Server::named(2).await];
        let mut world = world(&servers, |pool| pool.drain_timeout = timeout).await;
        world.configuration.listeners[0].pools = weights(1, 0);
        world.apply_all().await;
        let mut client = world.connect().await;
        says_and_hears(&mut client).await;
        world.configuration.listeners[0].pools = weights(0, 1);
        world.apply_all().await;
        assert_eq!(names(&world, 5).await, [2; 5]);
        if is_cut {
            is_reset(&mut client).await;
        } else {
            says_and_hears(&mut client).await;
        }
        assert_eq!(world.counters().backend_gone, u64::from(is_cut));
    }
}

#[tokio::test]
async fn the_limits_of_a_pools_backends_are_its_own() {
    let servers = named().await;
    let mut world = world(&servers, |_| {}).await;
    world.configuration.listeners[0].pools = weights(50, 50);
    world.configuration.pools[0].backends[0].connection_limit = Some(0);
    world.apply_all().await;
    let mut served = 0;
    for _ in 0..60 {
        // The reset of one that is refused may be there before the client knows that it is connected.
        let Ok(mut client) = patiently(TcpStream::connect(world.address)).await else { continue };
        served += u64::from(patiently(client.read_u8()).await.is_ok_and(|name| name == 2));
    }
    let counters = world.quiet().await;
    assert_eq!(counters.refused_by_backend_limit + served, 60, "{counters:?}");
    assert!((10..=50).contains(&served), "{served}");
}

#[test]
fn clients_of_a_pool_without_a_route_keep_none_from_another_pool() {
    in_namespace("clients_of_a_pool_without_a_route_keep_none_from_another_pool", async || {
        const CLIENTS: u32 = 40;
        let alive = UdpServer::on("127.0.0.1:53".parse().unwrap(), 2, 1).await;
        let mut world = World::empty(1, "127.0.0.2:5353".parse().unwrap());
        world.configuration.listeners = vec![listener(world.address)];
        world.configuration.listeners[0].pools = weights(50, 50);
        let green = PoolSpec { id: GREEN, ..pool(vec![backend(2, alive.address)]) };
        world.configuration.pools = vec![pool(vec![backend(1, "198.51.100.1:53".parse().unwrap())]), green];
        udp(&mut world.configuration);
        world.apply_all().await;
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let client = client(world.address).await;
            client.send(b"?").await.unwrap();
            clients.push(client);
        }
        let decided = |it: &ListenerCounters| u64::from(it.active) + it.no_backend == u64::from(CLIENTS);
        let counters = world.counted(decided).await;
        assert!((5..=35).contains(&counters.active), "{counters:?}");
    });
}

#[tokio::test]
async fn sessions_divide_and_stay_in_their_pool() {
    let servers = [UdpServer::named(1).await, UdpServer::named(2).await];
    let mut world = World::with(2, vec![backend(1, servers[0].address)], |spec| {
        spec.pools.push(PoolSpec { id: GREEN, ..pool(vec![backend(2, servers[1].address)]) });
        spec.listeners[0].pools = weights(50, 50);
        udp(spec);
    })
    .await;
    let mut clients = Vec::new();
    for _ in 0..40 {
        let client = client(world.address).await;
        let name = name_at_last(&client).await;
        clients.push((client, name));
    }
    let ones = clients.iter().filter(|(_, name)| *name == 1).count();
    assert!((5..=35).contains(&ones), "{ones}");
    world.configuration.listeners[0].pools = weights(0, 100);
    world.apply_all().await;
    for (client, before) in &clients {
        assert_eq!(name_at_last(client).await, *before, "a session stays while its backend is there");
    }
    for _ in 0..5 {
        assert_eq!(name_at_last(&client(world.address).await).await, 2);
    }
    world.plane.set_health(Uuid::from_u128(0x1001), false);
    for (client, _) in &clients {
        assert_eq!(name_at_last(client).await, 2);
    }
}
