//! Deletion: OVN lets go first, then the store.

use super::*;
use crate::resources::examples::{POOL, backend, change, deleted, pool, put};
use crate::resources::{Exposure, Listener, Pool};

impl World {
    /// A load balancer that is applied, and then deleted by its owner.
    async fn delete(&self, number: u8) {
        self.write(&deleted(&self.model.tree(id(number)).unwrap())).await;
    }

    async fn gone_from_store(&self, number: u8) {
        let mut notices = self.model.subscribe();
        let gone = async {
            while self.model.tree(id(number)).is_some() {
                notices.recv().await.unwrap();
            }
        };
        timeout(LONG, gone).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_deleted_goes_from_ovn_first_and_then_from_the_store() {
    let mut world = World::new().await;
    let _running = world.start().await;
    let before = world.database.rows();
    world.add(1).await;
    world.judge(|_| Fate::Refused(DatabaseError::ResourcesExhausted));
    world.delete(1).await;
    let failed = world.observed(id(1), |it| it.failure.is_some()).await;
    assert!(failed.failure.as_ref().unwrap().reason.contains("resources exhausted"));
    assert!(world.has_row(1) && world.model.tree(id(1)).is_some(), "its addresses are taken until then");
    world.judge(|_| Fate::Answered);
    world.gone_from_store(1).await;
    assert_eq!(world.database.rows(), before, "nothing of it or of its network is left");
    assert!(world.store.snapshot("").await.unwrap().collect().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_is_deleted_goes_alone() {
    let (world, _running) = World::with_one().await;
    let mut tree = Tree::clone(&world.model.tree(id(1)).unwrap());
    tree.listeners.values_mut().for_each(|it| *it = Arc::new(it.deleted()));
    world.write(&tree).await;
    let mut notices = world.model.subscribe();
    while !world.model.tree(id(1)).unwrap().listeners.is_empty() {
        notices.recv().await.unwrap();
    }
    assert!(!world.has_row(1));
    let is_applied = |it: &Observation| it.applied.as_ref().is_some_and(|it| it.listeners.is_empty());
    world.observed(id(1), is_applied).await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_store_holds_up_the_deleted_and_nobody_else() {
    let (world, _running) = World::with_one().await;
    world.purge_store.fail(StoreFault::Slow);
    world.delete(1).await;
    world.sent_all(2).await;
    let began = Instant::now();
    world.add(2).await;
    assert!(began.elapsed() < Duration::from_millis(50), "{:?}", began.elapsed());
    assert!(!world.has_row(1) && world.model.tree(id(1)).is_some());
    world.purge_store.fail(StoreFault::None);
    world.gone_from_store(1).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_deleted_while_nobody_led_goes_when_somebody_does() {
    let (mut world, running) = World::with_one().await;
    world.purge_store.fail(StoreFault::Unreachable);
    world.delete(1).await;
    world.sent_all(2).await;
    running.stop.send(()).unwrap();
    running.ended.await.unwrap();
    world.purge_store.fail(StoreFault::None);
    sleep(LONG).await;
    assert!(world.model.tree(id(1)).is_some());
    let (northbound, events) = world.database.client(Northbound::new(OWNER_KEY));
    (world.northbound, world.events) = (northbound, Some(events));
    let _running = world.start().await;
    world.gone_from_store(1).await;
    assert_eq!(world.sent(), 2, "OVN has nothing of it any more");
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_is_the_vip_of_another_is_observed_as_that_comes_and_goes() {
    let mut world = World::new().await;
    let _running = world.start().await;
    let mut front = balancer(1);
    let member = Uuid::from_u128(0x77);
    put(&mut front, POOL, Pool { load_balancer_id: id(1), ..pool() });
    put(&mut front, member, backend(2));
    world.write(&front).await;
    world.applied(1).await;
    let is_chained = |it: &Observation| it.carried.chained.contains(&member);
    assert!(!is_chained(&world.model.observation(id(1))));
    world.add(2).await;
    world.observed(id(1), is_chained).await;
    // A node has the VIP, and then OVN again.
    for (exposure, chained) in [(Exposure::Direct, false), (Exposure::Auto, true)] {
        let mut rear = Tree::clone(&world.model.tree(id(2)).unwrap());
        let listener = *rear.listeners.keys().next().unwrap();
        change::<Listener>(&mut rear, listener, |listener| listener.exposure = exposure);
        world.write(&rear).await;
        world.observed(id(1), |it| is_chained(it) == chained).await;
    }
    world.delete(2).await;
    world.observed(id(1), |it| !is_chained(it)).await;
}
