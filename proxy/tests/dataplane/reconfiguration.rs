//! Configurations that follow each other.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use fiberlb_proxy::{
    dataplane::{ListenerError, ListenerSpec, WeightedPool},
    sockets::OwnNamespace,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use uuid::Uuid;

use crate::{
    peers::{Server, is_reset, name, names, says_and_hears},
    world::{LISTENER, NETWORK, World, backend, listener, own_address, patiently},
};

async fn echo_world() -> (Server, World) {
    let server = Server::echo().await;
    let world = World::with(2, vec![backend(1, server.address)], |_| {}).await;
    (server, world)
}

#[tokio::test]
async fn a_listener_that_goes_refuses_new_clients_and_keeps_its_old_ones() {
    let (_server, mut world) = echo_world().await;
    let mut client = world.connect().await;
    says_and_hears(&mut client).await;
    world.configuration.listeners.clear();
    world.apply_all().await;
    let refused = TcpStream::connect(world.address).await.unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    says_and_hears(&mut client).await;
    assert_eq!(world.counters().active, 1, "it is counted while it has connections");
    world.configuration.drain_timeout = Duration::ZERO;
    drop(client);
    patiently(async {
        while !world.plane.counters().is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn connections_of_a_listener_that_has_gone_are_reset_after_the_drain_timeout() {
    let (_server, mut world) = echo_world().await;
    let mut client = world.connect().await;
    says_and_hears(&mut client).await;
    world.configuration.drain_timeout = Duration::from_millis(100);
    world.configuration.listeners[0].enabled = false;
    world.apply_all().await;
    assert_eq!(world.plane.draining(), 1);
    says_and_hears(&mut client).await;
    is_reset(&mut client).await;
    patiently(async {
        while world.plane.draining() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(cuts(&world), [1, 0, 0]);
}

/// Connections that the node has cut: of listeners that are gone, of networks that have left, and at its stop.
fn cuts(world: &World) -> [u64; 3] {
    let totals: Vec<u64> = world.plane.cuts().totals().map(|(_, total)| total).collect();
    totals.try_into().unwrap()
}

/// Connections of a listener that is gone already are reset, too, though the drain deadline is far.
#[tokio::test]
async fn connections_of_a_network_that_leaves_are_reset_on_both_sides_at_once() {
    let (sender, mut accepted) = tokio::sync::mpsc::unbounded_channel();
    let server = Server::start(move |mut stream| {
        let sender = sender.clone();
        async move {
            stream.write_all(b"!").await.unwrap();
            sender.send(stream).unwrap();
        }
    })
    .await;
    let mut world = World::with(2, vec![backend(1, server.address)], |_| {}).await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = world.connect().await;
        assert_eq!(patiently(client.read_u8()).await.unwrap(), b'!');
        clients.push((client, patiently(accepted.recv()).await.unwrap()));
    }
    let (stays, factory) = (Uuid::from_u128(77), Arc::new(OwnNamespace));
    world.configuration.networks.insert(stays, factory);
    let other = SocketAddr::new(world.address.ip(), 8081);
    let staying = ListenerSpec { id: Uuid::from_u128(78), network: stays, ..listener(other) };
    world.configuration.listeners.push(staying);
    world.configuration.listeners.remove(0);
    world.apply_all().await;
    let mut stayed = patiently(TcpStream::connect(other)).await.unwrap();
    assert_eq!(patiently(stayed.read_u8()).await.unwrap(), b'!');
    let mut staying_server = patiently(accepted.recv()).await.unwrap();
    assert_eq!((world.plane.draining(), cuts(&world)), (8, [0; 3]));

    world.configuration.networks.remove(&NETWORK);
    world.configuration.leaving.insert(NETWORK);
    world.apply_all().await;
    assert_eq!((world.plane.draining(), cuts(&world)), (0, [0, 8, 0]), "before it is applied");
    for (mut client, mut server) in clients {
        is_reset(&mut client).await;
        is_reset(&mut server).await;
    }
    stayed.write_all(b"?").await.unwrap();
    assert_eq!(patiently(staying_server.read_u8()).await.unwrap(), b'?');
}

#[tokio::test]
async fn connections_that_are_left_when_the_process_stops_are_reset_and_counted() {
    let (_server, world) = echo_world().await;
    let mut clients = [world.connect().await, world.connect().await];
    for client in &mut clients {
        says_and_hears(client).await;
    }
    let cuts = world.plane.cuts();
    patiently(world.plane.shutdown(Duration::from_millis(50))).await;
    for client in &mut clients {
        is_reset(client).await;
    }
    assert_eq!(cuts.totals().map(|(_, total)| total).collect::<Vec<_>>(), [0, 0, 2]);
}

#[tokio::test]
async fn a_listener_that_comes_back_keeps_its_connections() {
    let (_server, mut world) = echo_world().await;
    let mut client = world.connect().await;
    says_and_hears(&mut client).await;
    world.configuration.drain_timeout = Duration::from_millis(200);
    let listeners = std::mem::take(&mut world.configuration.listeners);
    world.apply_all().await;
    world.configuration.listeners = listeners;
    world.apply_all().await;
    tokio::time::sleep(Duration::from_millis(400)).await; // past the time at which it would have been cut
    says_and_hears(&mut client).await;
    assert_eq!(world.counters().active, 1);
}

#[tokio::test]
async fn a_change_of_the_pool_under_traffic_loses_no_connection() {
    let (one, two) = (Server::named(1).await, Server::named(2).await);
    let mut world = World::with(2, vec![backend(1, one.address)], |_| {}).await;
    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> =
        (0..4).map(|_| tokio::spawn(client(world.address, stop.clone(), served.clone()))).collect();
    for round in 0..100 {
        let address = if round % 2 == 0 { two.address } else { one.address };
        world.configuration.pools[0].backends = vec![backend(round % 3, address)];
        world.configuration.listeners[0].limits.connections = Some(1_000 + round as u32);
        world.apply_all().await;
        let before = served.load(Ordering::Relaxed);
        patiently(async {
            while served.load(Ordering::Relaxed) < before + 5 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        patiently(client).await.unwrap();
    }
    let counters = world.quiet().await;
    assert_eq!(
        (
            counters.no_backend,
            counters.reset_by_client + counters.reset_by_backend,
            counters.connect_failures
        ),
        (0, 0, 0),
        "{counters:?}"
    );
}

async fn client(address: std::net::SocketAddr, stop: Arc<AtomicBool>, served: Arc<AtomicUsize>) {
    while !stop.load(Ordering::Relaxed) {
        TcpStream::connect(address).await.unwrap().read_u8().await.unwrap();
        served.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn after_a_change_the_new_pool_serves_at_once() {
    let (one, two) = (Server::named(1).await, Server::named(2).await);
    let mut world = World::with(2, vec![backend(1, one.address)], |_| {}).await;
    for round in 0..20 {
        let (address, name) = if round % 2 == 0 { (two.address, 2) } else { (one.address, 1) };
        world.configuration.pools[0].backends = vec![backend(1, address)];
        world.apply_all().await;
        assert_eq!(names(&world, 3).await, [name; 3]);
    }
}

#[tokio::test]
async fn a_listener_that_cannot_be_built_is_refused_alone() {
    let (_server, mut world) = echo_world().await;
    let mut client = world.connect().await;
    says_and_hears(&mut client).await;
    let occupied = std::net::TcpListener::bind((own_address(), 8080)).unwrap();
    let mut others =
        vec![listener(occupied.local_addr().unwrap()), listener(world.address), listener(world.address)];
    for (other, id) in others.iter_mut().zip(100..) {
        other.id = Uuid::from_u128(id);
    }
    others[2].addresses = vec![(own_address(), 8080).into()];
    others[2].pools = vec![WeightedPool::alone(Uuid::from_u128(404))];
    let mut fine = listener((own_address(), 8080).into());
    fine.id = Uuid::from_u128(200);
    let fine_address = fine.addresses[0];
    world.configuration.listeners.extend(others);
    world.configuration.listeners.push(fine);
    let outcomes = world.apply().await;
    assert!(outcomes[0].result.is_ok());
    assert!(matches!(outcomes[1].result, Err(ListenerError::Bind { .. })), "{outcomes:?}");
    assert!(
        matches!(outcomes[2].result, Err(ListenerError::AddressTaken { owner: LISTENER, .. })),
        "{outcomes:?}"
    );
    assert!(matches!(outcomes[3].result, Err(ListenerError::UnknownPool(_))), "{outcomes:?}");
    assert!(outcomes[4].result.is_ok());
    says_and_hears(&mut client).await;
    says_and_hears(&mut world.connect().await).await;
    says_and_hears(&mut TcpStream::connect(fine_address).await.unwrap()).await;
    drop(occupied);
    assert!(world.apply().await[1].result.is_ok(), "it is tried again");
}

#[tokio::test]
async fn a_refused_change_leaves_what_was_there() {
    let (_server, mut world) = echo_world().await;
    let original = world.configuration.listeners[0].clone();
    let occupied = std::net::TcpListener::bind((own_address(), 8080)).unwrap();
    world.configuration.listeners[0].addresses.push(occupied.local_addr().unwrap());
    assert!(matches!(world.apply().await[0].result, Err(ListenerError::Bind { .. })));
    says_and_hears(&mut world.connect().await).await;
    world.configuration.listeners[0] = original;
    world.configuration.listeners[0].pools = vec![WeightedPool::alone(Uuid::from_u128(404))];
    assert!(matches!(world.apply().await[0].result, Err(ListenerError::UnknownPool(_))));
    says_and_hears(&mut world.connect().await).await;
    world.configuration.networks.clear();
    assert!(matches!(
        world.apply().await[0].result,
        Err(ListenerError::UnknownPool(_) | ListenerError::UnknownNetwork(_))
    ));
    assert!(
        TcpStream::connect(world.address).await.is_err(),
        "a network that has gone takes its sockets along"
    );
}

#[tokio::test]
async fn an_address_moves_to_another_listener_without_a_gap() {
    let (one, two) = (Server::named(1).await, Server::named(2).await);
    let mut world = World::with(2, vec![backend(1, one.address)], |_| {}).await;
    assert_eq!(name(&world).await.unwrap(), 1);
    world.configuration.listeners[0].id = Uuid::from_u128(77);
    world.configuration.pools[0].backends = vec![backend(2, two.address)];
    world.apply_all().await;
    assert_eq!(names(&world, 4).await, [2; 4]);
    assert_eq!(world.plane.counters()[&Uuid::from_u128(77)].accepted, 4);
}

#[tokio::test]
async fn a_network_that_was_made_anew_gets_new_sockets() {
    let (_server, mut world) = echo_world().await;
    let mut client = world.connect().await;
    says_and_hears(&mut client).await;
    world.configuration.networks.insert(NETWORK, Arc::new(OwnNamespace));
    world.apply_all().await;
    says_and_hears(&mut client).await;
    says_and_hears(&mut world.connect().await).await;
}
