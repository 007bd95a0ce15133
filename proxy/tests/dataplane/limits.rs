//! Limits of connections.

use fiberlb_proxy::{
    dataplane::{Dataplane, DataplaneOptions, StartError},
    shortage::NodeResource,
};

use crate::{
    peers::{Server, is_reset, is_turned_away, says_and_hears},
    world::{World, backend, listener, own_address, patiently, pool},
};

#[tokio::test]
async fn a_listener_has_no_more_connections_than_its_limit_over_all_workers() {
    let server = Server::echo().await;
    let world = World::with(2, vec![backend(1, server.address)], |configuration| {
        configuration.listeners[0].limits.connections = Some(2);
    })
    .await;
    let (mut first, mut second) = (world.connect().await, world.connect().await);
    says_and_hears(&mut first).await;
    says_and_hears(&mut second).await;
    for _ in 0..5 {
        is_turned_away(&world).await;
    }
    drop(first);
    world.counted(|counters| counters.active == 1).await;
    says_and_hears(&mut world.connect().await).await;
    drop(second);
    let counters = world.quiet().await;
    assert_eq!((counters.accepted, counters.refused_by_limit), (8, 5));
}

#[tokio::test]
async fn without_room_in_the_process_clients_wait_and_are_served_later() {
    let server = Server::echo().await;
    let mut world = World::empty(1, (own_address(), 8080).into());
    world.plane = Dataplane::start(DataplaneOptions { workers: 1, max_connections: 2 }).unwrap();
    world.configuration.listeners = vec![listener(world.address)];
    world.configuration.pools = vec![pool(vec![backend(1, server.address)])];
    world.apply_all().await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = world.connect().await;
        says_and_hears(&mut client).await;
        clients.push(client);
    }
    // The acceptor was waiting already and may take one more; those after it wait.
    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(world.connect().await);
    }
    assert!(world.counters().active <= 3);
    let shortages = world.plane.shortages();
    patiently(async {
        while shortages.totals().all(|(_, total)| total == 0) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let short: Vec<_> =
        shortages.totals().filter(|(_, total)| *total > 0).map(|(resource, _)| resource).collect();
    assert_eq!(short, [NodeResource::Connections]);
    drop(clients);
    for mut client in waiting {
        says_and_hears(&mut client).await;
    }
    assert_eq!(world.quiet().await.accepted, 5);
}

#[tokio::test]
async fn a_data_plane_needs_a_worker() {
    let error = Dataplane::start(DataplaneOptions { workers: 0, max_connections: 1 }).unwrap_err();
    assert!(matches!(error, StartError::NoWorkers));
}

#[tokio::test]
async fn shutting_down_waits_for_connections_and_then_cuts_them() {
    let server = Server::echo().await;
    let world = World::with(2, vec![backend(1, server.address)], |_| {}).await;
    let (address, mut client) = (world.address, world.connect().await);
    says_and_hears(&mut client).await;
    let shutdown = tokio::spawn(world.plane.shutdown(crate::world::PATIENCE));
    patiently(async { while tokio::net::TcpStream::connect(address).await.is_ok() {} }).await;
    says_and_hears(&mut client).await;
    drop(client);
    patiently(shutdown).await.unwrap();

    let world = World::with(2, vec![backend(1, server.address)], |_| {}).await;
    let mut client = world.connect().await;
    says_and_hears(&mut client).await;
    patiently(world.plane.shutdown(std::time::Duration::from_millis(50))).await;
    is_reset(&mut client).await;
}
