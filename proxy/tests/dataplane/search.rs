//! The search for a backend, and when it ends.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    peers::{ONE_FAILURE, Server, is_turned_away, names, refusing, says_and_hears, silent},
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
async fn another_backend_is_tried_beside_a_silent_one_after_a_second_and_that_is_no_failure() {
    let (address, _queued) = silent();
    let server = Server::echo().await;
    let mut spare = backend(2, server.address);
    spare.backup = true;
    let world = World::with(1, vec![backend(1, address), spare], |configuration| {
        configuration.listeners[0].limits.backend_connect = Some(FOREVER);
        configuration.pools[0].passive_health = Some(ONE_FAILURE);
    })
    .await;
    let started = Instant::now();
    says_and_hears(&mut world.connect().await).await;
    assert!(started.elapsed() >= Duration::from_millis(950) && started.elapsed() < Duration::from_secs(10));
    let counters = world.quiet().await;
    assert_eq!(
        (counters.connect_failures, counters.no_backend, counters.ejections),
        (0, 0, 0),
        "{counters:?}"
    );
}

/// A backend is asked again by the kernel after a second.
#[tokio::test]
async fn a_backend_that_answers_late_serves_where_the_others_refuse() {
    let (slow, [listener, queued]) = silent();
    let (refuses, _held) = refusing();
    let mut spare = backend(2, refuses);
    spare.backup = true;
    let world = World::new(vec![backend(1, slow), spare]).await;
    let mut client = world.connect().await;
    // The other one has refused before this one accepts.
    world.counted(|counters| counters.connect_failures == 1).await;
    drop(queued);
    let listener = std::net::TcpListener::from(listener);
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let server = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(crate::peers::echo(stream));
        }
    });
    says_and_hears(&mut client).await;
    drop(client);
    let counters = world.quiet().await;
    assert_eq!((counters.connect_failures, counters.no_backend), (1, 0), "{counters:?}");
    server.abort();
}

#[tokio::test]
async fn a_silent_backend_that_others_stand_in_for_is_left_out_when_its_timeout_is_over() {
    let (address, _queued) = silent();
    let server = Server::named(2).await;
    let world = World::with(1, vec![backend(1, address), backend(2, server.address)], |configuration| {
        configuration.listeners[0].limits.backend_connect = Some(Duration::from_millis(1_500));
        configuration.pools[0].passive_health = Some(ONE_FAILURE);
    })
    .await;
    let started = Instant::now();
    assert_eq!(names(&world, 2).await, [2; 2]);
    let counters = world.counted(|counters| counters.ejections == 1).await;
    assert!(started.elapsed() >= Duration::from_millis(1_500));
    assert_eq!(counters.connect_failures, 1);
}

#[tokio::test]
async fn one_that_is_left_out_is_tried_when_all_others_have_had_their_time() {
    let timeout = Duration::from_millis(1_500);
    let (refused, held) = refusing();
    let (address, _queued) = silent();
    let works = Server::named(2).await;
    let backends = vec![backend(1, refused), backend(2, works.address), backend(3, address)];
    let ids: Vec<_> = backends.iter().map(|backend| backend.id).collect();
    let world = World::with(1, backends, |configuration| {
        configuration.listeners[0].limits.backend_connect = Some(timeout);
        configuration.pools[0].passive_health = Some(ONE_FAILURE);
    })
    .await;
    world.plane.set_health(ids[2], false);
    assert_eq!(names(&world, 2).await, [2; 2]);
    assert_eq!(world.counted(|counters| counters.ejections == 1).await.connect_failures, 1);
    drop(held);
    let _back = Server::on(refused, |mut stream| async move { drop(stream.write_all(&[1]).await) }).await;
    world.plane.set_health(ids[1], false);
    world.plane.set_health(ids[2], true);
    let started = Instant::now();
    assert_eq!(names(&world, 1).await, [1]);
    assert!(started.elapsed() >= timeout, "{:?}", started.elapsed());
    assert_eq!(world.quiet().await.connect_failures, 2);
}

#[tokio::test]
async fn a_client_that_has_closed_its_half_is_still_served() {
    let (address, _queued) = silent();
    let server = Server::echo().await;
    let mut spare = backend(2, server.address);
    spare.backup = true;
    let world = World::with(1, vec![backend(1, address), spare], |configuration| {
        configuration.listeners[0].limits.backend_connect = Some(Duration::from_millis(200));
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
