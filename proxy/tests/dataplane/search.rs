//! The search for a backend, and when it ends.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    peers::{Server, is_turned_away, refusing, says_and_hears, silent},
    world::{World, backend, patiently},
};

/// Far above the patience of any test.
const FOREVER: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_client_that_is_gone_ends_the_search_and_frees_its_place() {
    let (address, _queued) = silent();
    let server = Server::echo().await;
    let backends = vec![backend(1, address), backend(2, server.address)];
    let ids: Vec<_> = backends.iter().map(|backend| backend.id).collect();
    let world = World::with(1, backends, |configuration| {
        configuration.listeners[0].limits.connections = Some(2);
        configuration.listeners[0].limits.backend_connect = Some(FOREVER);
    })
    .await;
    world.plane.set_health(ids[1], false);
    let (plain, mut closed) = (world.connect().await, world.connect().await);
    closed.shutdown().await.unwrap();
    world.counted(|counters| counters.active == 2).await;
    is_turned_away(&world).await;
    for client in [plain, closed] {
        client.set_zero_linger().unwrap();
        drop(client);
    }
    let counters = world.quiet().await;
    assert_eq!((counters.reset_by_client, counters.no_backend, counters.connect_failures), (2, 0, 0));
    world.plane.set_health(ids[1], true);
    world.plane.set_health(ids[0], false);
    says_and_hears(&mut world.connect().await).await;
}

#[tokio::test]
async fn a_silent_backend_is_given_up_long_before_its_timeout_while_there_is_another() {
    let (address, _queued) = silent();
    let server = Server::echo().await;
    let backends = vec![backend(1, address), backend(2, server.address)];
    let world = World::with(1, backends, |configuration| {
        configuration.listeners[0].limits.backend_connect = Some(FOREVER);
    })
    .await;
    for _ in 0..2 {
        says_and_hears(&mut world.connect().await).await;
    }
    let counters = world.quiet().await;
    assert_eq!((counters.connect_failures, counters.no_backend), (1, 0), "{counters:?}");
}

#[tokio::test]
async fn a_client_that_has_closed_its_half_is_still_served() {
    let (address, _queued) = silent();
    let server = Server::echo().await;
    let mut spare = backend(2, server.address);
    spare.backup = true;
    let world = World::with(1, vec![backend(1, address), spare], |configuration| {
        configuration.listeners[0].limits.backend_connect = Some(Duration::from_millis(300));
    })
    .await;
    let mut client = world.connect().await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = Vec::new();
    patiently(client.read_to_end(&mut answer)).await.unwrap();
    assert_eq!((answer.as_slice(), world.quiet().await.connect_failures), (&b"question"[..], 1));
}

#[tokio::test]
async fn a_client_is_not_worth_more_than_sixteen_backends() {
    let refusing: Vec<_> = (0..40).map(|_| refusing()).collect();
    let backends = refusing.iter().zip(1..).map(|((address, _), number)| backend(number, *address)).collect();
    let world = World::new(backends).await;
    is_turned_away(&world).await;
    let counters = world.quiet().await;
    assert_eq!((counters.connect_failures, counters.no_backend), (16, 1));
}
