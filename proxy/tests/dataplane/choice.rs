//! Selection of the backend that a client gets.

use std::{io, net::Ipv4Addr, time::Duration};

use fiberlb_proxy::dataplane::{Algorithm, BackendSpec, SourceIpPersistence};
use tokio::{io::AsyncReadExt, net::TcpSocket};

use crate::{
    peers::{Server, is_turned_away, name, names, refusing, says_and_hears, silent, times},
    world::{World, backend, patiently},
};

#[tokio::test]
async fn round_robin_goes_in_turn_and_by_weight() {
    let (one, two) = (Server::named(1).await, Server::named(2).await);
    let mut heavy = backend(1, one.address);
    heavy.weight = 3;
    let world = World::new(vec![heavy, backend(2, two.address)]).await;
    let names = names(&world, 40).await;
    assert_eq!((times(&names, 1), times(&names, 2)), (30, 10));
    for four in names.chunks(4) {
        assert_eq!(times(four, 2), 1, "{names:?}");
    }
    assert_eq!(world.quiet().await.bytes_out, 40);
}

#[tokio::test]
async fn weight_zero_takes_no_new_connections_and_keeps_its_old_ones() {
    let (old, new) = (Server::echo().await, Server::named(2).await);
    let mut world = World::new(vec![backend(1, old.address)]).await;
    let mut client = world.connect().await;
    says_and_hears(&mut client).await;
    world.configuration.pools[0].backends[0].weight = 0;
    world.configuration.pools[0].backends.push(backend(2, new.address));
    world.apply_all().await;
    assert_eq!(names(&world, 5).await, [2; 5]);
    says_and_hears(&mut client).await;
}

#[tokio::test]
async fn a_health_flip_counts_for_the_very_next_connection() {
    let (one, two) = (Server::named(1).await, Server::named(2).await);
    let backends = vec![backend(1, one.address), backend(2, two.address)];
    let ids: Vec<_> = backends.iter().map(|backend| backend.id).collect();
    let world = World::new(backends).await;
    world.plane.set_health(ids[0], false);
    assert_eq!(names(&world, 5).await, [2; 5]);
    world.plane.set_health(ids[0], true);
    world.plane.rotation().set_health(ids[1], false);
    assert_eq!(names(&world, 5).await, [1; 5]);
}

#[tokio::test]
async fn a_backup_serves_only_while_no_other_is_left() {
    let (one, spare) = (Server::named(1).await, Server::named(2).await);
    let primary = backend(1, one.address);
    let mut backup = backend(2, spare.address);
    backup.backup = true;
    let id = primary.id;
    let world = World::new(vec![backup, primary]).await;
    assert_eq!(names(&world, 5).await, [1; 5]);
    world.plane.set_health(id, false);
    assert_eq!(names(&world, 5).await, [2; 5]);
    world.plane.set_health(id, true);
    assert_eq!(names(&world, 5).await, [1; 5]);
}

#[tokio::test]
async fn a_backend_that_refuses_is_passed_over_and_so_is_one_that_is_silent() {
    let (refused, _held) = refusing();
    let (silent_address, _queued) = silent();
    let works = Server::named(3).await;
    let backends = vec![backend(1, refused), backend(2, silent_address), backend(3, works.address)];
    let world = World::with(1, backends, |configuration| {
        configuration.listeners[0].limits.backend_connect = Some(Duration::from_millis(100));
    })
    .await;
    assert_eq!(names(&world, 6).await, [3; 6]);
    let counters = world.quiet().await;
    assert!(counters.connect_failures >= 6, "{counters:?}");
    assert_eq!(counters.no_backend, 0);
}

#[tokio::test]
async fn without_a_backend_the_client_is_reset_at_once() {
    let (refused, _held) = refusing();
    let works = Server::named(1).await;
    let (mut down, mut zero, mut off) =
        (backend(1, works.address), backend(2, works.address), backend(3, works.address));
    down.starts_in_rotation = false;
    zero.weight = 0;
    off.enabled = false;
    let cases = [vec![], vec![down, zero, off], vec![backend(4, refused)]];
    for backends in cases {
        let world = World::new(backends).await;
        is_turned_away(&world).await;
        assert_eq!(world.quiet().await.no_backend, 1);
    }
    let world = World::with(1, vec![], |configuration| configuration.listeners[0].pools = vec![]).await;
    is_turned_away(&world).await;
}

#[tokio::test]
async fn least_connections_prefers_the_one_with_fewer() {
    let (one, two) = (Server::echo().await, Server::echo().await);
    let backends = vec![backend(1, one.address), backend(2, two.address)];
    let ids: Vec<_> = backends.iter().map(|backend| backend.id).collect();
    let mut world = World::with(2, backends, |configuration| {
        configuration.pools[0].algorithm = Algorithm::LeastConnections;
    })
    .await;
    world.plane.set_health(ids[1], false);
    let mut busy = Vec::new();
    for _ in 0..10 {
        let mut client = world.connect().await;
        says_and_hears(&mut client).await;
        busy.push(client);
    }
    // All ten are with the first one. The second one comes back with another name, and takes the next ten.
    let named = Server::named(2).await;
    world.configuration.pools[0].backends[1].address = named.address;
    world.apply_all().await;
    world.plane.set_health(ids[1], true);
    assert_eq!(names(&world, 10).await, [2; 10]);
}

#[tokio::test]
async fn a_draw_keeps_to_weights_and_the_better_one_of_two_has_fewer_connections() {
    let (one, two, none) = (Server::named(1).await, Server::named(2).await, Server::named(3).await);
    let (mut heavy, mut drained) = (backend(1, one.address), backend(3, none.address));
    (heavy.weight, drained.weight) = (3, 0);
    let mut world = World::with(2, vec![heavy, backend(2, two.address), drained], |configuration| {
        configuration.pools[0].algorithm = Algorithm::Random;
    })
    .await;
    let names = names(&world, 200).await;
    assert!((100..=195).contains(&times(&names, 1)) && times(&names, 3) == 0, "{names:?}");

    let (busy, idle) = (Server::echo().await, Server::echo().await);
    world.configuration.pools[0].algorithm = Algorithm::PowerOfTwoChoices;
    world.configuration.pools[0].backends = vec![backend(4, busy.address), backend(5, idle.address)];
    let ids = [0, 1].map(|place: usize| world.configuration.pools[0].backends[place].id);
    world.apply_all().await;
    let mut clients = Vec::new();
    for _ in 0..40 {
        let mut client = world.connect().await;
        says_and_hears(&mut client).await;
        clients.push(client);
    }
    let counters = world.plane.rotation().counters();
    // Of two backends both are drawn each time.
    assert_eq!(ids.map(|id| counters[&id].active), [20, 20]);
}

#[tokio::test]
async fn a_backend_that_begins_has_a_small_share_until_its_slow_start_is_over() {
    let mut servers = Vec::new();
    for name in 1..=3 {
        servers.push(Server::named(name).await);
    }
    let all: Vec<_> =
        servers.iter().zip(1..).map(|(server, number)| backend(number, server.address)).collect();
    let mut world = World::with(1, all[..2].to_vec(), |configuration| {
        configuration.pools[0].slow_start = Some(Duration::from_secs(3_600));
    })
    .await;
    // Turns that were due before are taken first.
    let shares = async |world: &World| {
        names(world, 40).await;
        let names = names(world, 84).await;
        [1, 2, 3].map(|name| times(&names, name))
    };
    let is_even = |shares: [usize; 3]| shares.iter().all(|share| (26..=30).contains(share));
    assert_eq!(times(&names(&world, 20).await, 1), 10, "they began together");
    world.configuration.pools[0].backends = all.clone();
    world.apply_all().await;
    let [one, two, new] = shares(&world).await;
    assert!(one >= 38 && two >= 38 && (3..=5).contains(&new), "{one} {two} {new}");
    // One that is back, is enabled, or has a weight again begins, too.
    world.plane.set_health(all[1].id, false);
    world.plane.set_health(all[1].id, true);
    let [old, back, new] = shares(&world).await;
    assert!(old >= 66 && (5..=9).contains(&back) && (5..=9).contains(&new), "{old} {back} {new}");
    for change in [|it: &mut BackendSpec| it.enabled = false, |it: &mut BackendSpec| it.weight = 0] {
        change(&mut world.configuration.pools[0].backends[0]);
        world.apply_all().await;
        world.configuration.pools[0].backends = all.clone();
        world.apply_all().await;
        let shares = shares(&world).await;
        assert!(is_even(shares), "all of them have begun a moment ago: {shares:?}");
    }
    // A change of the pool begins nothing anew, and a short start is soon over.
    world.configuration.pools[0].slow_start = Some(Duration::from_millis(1));
    world.configuration.pools[0].backends[1].weight = 2;
    world.apply_all().await;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let shares = shares(&world).await;
    assert!((40..=44).contains(&shares[1]), "{shares:?}");
}

async fn name_for(world: &World, client: Ipv4Addr) -> io::Result<u8> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((client, 0).into()).unwrap();
    let mut stream = socket.connect(world.address).await?;
    patiently(stream.read_u8()).await
}

#[tokio::test]
async fn source_ip_keeps_a_client_with_its_backend_on_every_worker() {
    let mut servers = Vec::new();
    for name in 1..=4 {
        servers.push(Server::named(name).await);
    }
    let backends = servers.iter().zip(1..).map(|(server, number)| backend(number, server.address)).collect();
    let world = World::with(2, backends, |configuration| {
        configuration.pools[0].algorithm = Algorithm::SourceIp;
    })
    .await;
    let mut met = std::collections::HashSet::new();
    for client in (0..20).map(|number| Ipv4Addr::new(127, 7, 7, number)) {
        let first = name_for(&world, client).await.unwrap();
        for _ in 0..4 {
            assert_eq!(name_for(&world, client).await.unwrap(), first);
        }
        met.insert(first);
    }
    assert!(met.len() > 1);
}

/// The algorithm has no say, weights have.
#[tokio::test]
async fn persistent_clients_meet_the_same_backend_on_every_node() {
    let mut servers = Vec::new();
    for name in 1..=4 {
        servers.push(Server::named(name).await);
    }
    let mut backends: Vec<_> =
        servers.iter().zip(1..).map(|(server, number)| backend(number, server.address)).collect();
    backends[3].weight = 0;
    let node = async || {
        World::with(2, backends.clone(), |configuration| {
            configuration.pools[0].algorithm = Algorithm::LeastConnections;
            configuration.pools[0].persistence =
                Some(SourceIpPersistence { timeout: Duration::from_secs(60) });
        })
        .await
    };
    let (mut one, other) = (node().await, node().await);
    let clients = || (0..20).map(|number| Ipv4Addr::new(127, 7, 8, number));
    let mut met = Vec::new();
    for client in clients() {
        met.push(name_for(&one, client).await.unwrap());
    }
    for (client, met) in clients().zip(&met).rev() {
        assert_eq!(name_for(&other, client).await.unwrap(), *met);
    }
    let different: std::collections::HashSet<_> = met.iter().collect();
    assert_eq!((different.len(), met.contains(&4)), (3, false), "{met:?}");

    // One that comes takes clients from nobody who is remembered.
    one.configuration.pools[0].backends[3].weight = 256;
    one.apply_all().await;
    for (client, met) in clients().zip(&met) {
        assert_eq!(name_for(&one, client).await.unwrap(), *met);
    }
    assert_eq!(name_for(&one, Ipv4Addr::new(127, 7, 9, 1)).await.unwrap(), 4, "nearly all others");
}

#[tokio::test]
async fn a_persistent_client_stays_until_its_backend_goes() {
    let (one, two) = (Server::named(1).await, Server::named(2).await);
    let backends = vec![backend(1, one.address), backend(2, two.address)];
    let ids: Vec<_> = backends.iter().map(|backend| backend.id).collect();
    let mut world = World::with(2, backends, |configuration| {
        configuration.pools[0].persistence = Some(SourceIpPersistence { timeout: Duration::from_secs(60) });
    })
    .await;
    let first = name(&world).await.unwrap();
    assert_eq!(names(&world, 6).await, [first; 6]);
    world.configuration.pools[0].backends[0].weight = 7; // a change of the pool keeps all entries
    world.apply_all().await;
    assert_eq!(names(&world, 6).await, [first; 6]);
    world.plane.set_health(ids[usize::from(first) - 1], false);
    assert_eq!(names(&world, 6).await, [3 - first; 6]);
}
