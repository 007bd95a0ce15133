//! Limits on the number of connections.

use std::net::IpAddr;

use fiberlb_daemon::listen::{ConnectionSettings, RefusedReason};
use fiberlb_daemon::testing::{Opening, get, open};

use crate::world::{ATTACKER, HONEST, World, client, patient};

#[tokio::test]
async fn silent_connections_give_way_to_others() {
    let settings = ConnectionSettings { total: 50, per_source: 20, pending: 30, ..patient() };
    let world = World::start(settings, |listener| listener);
    let mut flood = Vec::new();
    for number in 10..20_u8 {
        let source = IpAddr::from([127, 0, 0, number]);
        flood.push(open(30, 0, Opening::Silent, source, world.address()).await);
    }
    world.until("the limit is reached", |world| world.connections() == 30).await;
    assert_eq!(get(HONEST, world.address(), "/").await.unwrap(), (200, "hello".to_owned()));
    assert!(world.refused(RefusedReason::Displaced) >= 270);
    let more = open(30, 0, Opening::HalfPreface, ATTACKER, world.address()).await;
    assert!(client(HONEST, &world).await.get("/").await.is_ok());
    drop((flood, more));
    world.until("all are gone", |world| world.connections() == 0).await;
}

#[tokio::test]
async fn a_source_with_busy_connections_alone_is_refused_and_others_are_not() {
    let settings = ConnectionSettings { per_source: 3, total: 5, ..patient() };
    let world = World::start(settings, |listener| listener);
    let mut busy = Vec::new();
    for _ in 0..3 {
        let mut client = client(ATTACKER, &world).await;
        let stream = client.begin("/stream").await.unwrap();
        busy.push((client, stream));
    }
    assert!(get(ATTACKER, world.address(), "/").await.is_err());
    assert!(world.refused(RefusedReason::PerSource) >= 1);
    for _ in 0..2 {
        let mut client = client(HONEST, &world).await;
        let stream = client.begin("/stream").await.unwrap();
        busy.push((client, stream));
    }
    assert!(get([127, 0, 0, 4].into(), world.address(), "/").await.is_err());
    assert!(world.refused(RefusedReason::Total) >= 1);
    busy.remove(0);
    world.until("one has gone", |world| world.connections() == 4).await;
    assert!(get(ATTACKER, world.address(), "/").await.is_ok());
}

#[tokio::test]
async fn a_shared_source_stands_for_many() {
    let shared_sources = vec!["127.0.0.2".parse().unwrap()];
    let settings = ConnectionSettings { per_source: 2, shared_sources, ..patient() };
    let world = World::start(settings, |listener| listener);
    let proxied = open(10, 0, Opening::Silent, ATTACKER, world.address()).await;
    let direct = open(10, 0, Opening::Silent, HONEST, world.address()).await;
    world.until("all but eight are open", |world| world.connections() == 12).await;
    world.until("eight gave way", |world| world.refused(RefusedReason::Displaced) == 8).await;
    drop((proxied, direct));
}

#[tokio::test]
async fn idle_connections_give_way_when_there_is_nobody_else() {
    let settings = ConnectionSettings { total: 3, ..patient() };
    let world = World::start(settings, |listener| listener);
    let mut idle = Vec::new();
    for _ in 0..3 {
        let mut client = client(ATTACKER, &world).await;
        client.get("/").await.unwrap();
        idle.push(client);
    }
    assert!(client(HONEST, &world).await.get("/").await.is_ok());
    assert_eq!(world.refused(RefusedReason::Displaced), 1);
    let _ = (&mut idle[0].ended).await;
    assert!(idle[1].get("/").await.is_ok() && idle[2].get("/").await.is_ok());
}
