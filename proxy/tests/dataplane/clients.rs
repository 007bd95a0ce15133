//! Clients that a listener admits.

use crate::{
    peers::{Server, is_turned_away, says_and_hears},
    world::{World, backend},
};

fn allow(world: &mut World, cidrs: &[&str]) {
    world.configuration.listeners[0].allowed_cidrs = cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
}

#[tokio::test]
async fn only_allowed_clients_are_served_and_a_new_list_is_for_new_connections() {
    let server = Server::echo().await;
    let mut world = World::with(2, vec![backend(1, server.address)], |_| {}).await;
    let mut early = world.connect().await;
    says_and_hears(&mut early).await;

    allow(&mut world, &["192.0.2.0/24", "::/0"]);
    world.apply_all().await;
    for _ in 0..5 {
        is_turned_away(&world).await;
    }
    says_and_hears(&mut early).await;

    allow(&mut world, &["192.0.2.0/24", "127.0.0.0/8"]);
    world.apply_all().await;
    says_and_hears(&mut world.connect().await).await;
    drop(early);
    let counters = world.quiet().await;
    assert_eq!((counters.accepted, counters.refused_by_cidr, counters.failed()), (7, 5, 0));
}
