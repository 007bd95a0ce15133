//! The loop of a leader on a shared store.

use super::*;
use crate::reconcile::examples::{elect, term};

impl World {
    async fn lead(&mut self) -> Running {
        let fence = elect(&self.store).await;
        self.start_behind(Some(fence)).await
    }

    fn term(&self) -> Option<u64> {
        term(&self.northbound.read())
    }
}

fn is_guarded(operations: &[Operation]) -> bool {
    matches!(operations.first(), Some(Operation::Wait { table, .. }) if table == "NB_Global")
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_raises_the_fence_before_anything_else_and_guards_all_that_follows() {
    let mut world = World::new().await;
    world.write(&balancer(1)).await;
    let _running = world.lead().await;
    world.applied(1).await;
    world.add(2).await;
    let transactions = world.database.transactions().borrow().clone();
    assert_eq!(transactions.iter().map(|it| inserted(it)).collect::<Vec<_>>(), [vec![], vec![1], vec![2]]);
    let raises = |it: &Operation| matches!(it, Operation::Mutate { table, .. } if table == "NB_Global");
    assert!(transactions[0].iter().any(raises));
    assert!(transactions.iter().all(|it| is_guarded(it)));
}

#[tokio::test(start_paused = true)]
async fn a_deposed_leader_is_refused_and_its_loop_ends() {
    let mut world = World::new().await;
    let running = world.lead().await;
    world.add(1).await;
    let mut successor = elect(&world.store).await;
    let (other, _events) = world.database.client(Northbound::new(OWNER_KEY));
    successor.raise(&other).await.unwrap();
    let raised = world.term();
    world.write(&balancer(2)).await;
    assert_eq!(timeout(LONG, running.ended).await.unwrap().unwrap(), Ended::Deposed);
    assert!(!world.has_row(2));
    assert_eq!(world.term(), raised);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_deposed_while_it_plans_writes_nothing() {
    let mut world = World::new().await;
    let running = world.lead().await;
    world.add(1).await;
    // It passes its own check of the fence, and the successor comes before its transaction.
    let _successor = elect(&world.store).await;
    let (database, northbound) = (world.database.clone(), world.northbound.clone());
    let mut term = Some(1000);
    world.judge(move |_| {
        if let Some(term) = term.take() {
            let raise = plan::fence::raise(INSTALLATION, term, &northbound.read()).unwrap().unwrap();
            database.write(&raise).unwrap();
        }
        Fate::Answered
    });
    world.write(&balancer(2)).await;
    assert_eq!(timeout(LONG, running.ended).await.unwrap().unwrap(), Ended::Deposed);
    assert!(!world.has_row(2));
    let last = world.database.transactions().borrow().last().cloned().unwrap();
    assert!(is_guarded(&last) && inserted(&last) == [2], "it was sent, and refused");
}

#[tokio::test(start_paused = true)]
async fn a_store_out_of_reach_stops_a_new_leader_until_it_is_back() {
    let mut world = World::new().await;
    let _running = world.lead().await;
    world.store.fail(StoreFault::Unreachable);
    write(&world.store.connection(), &world.model, &balancer(1)).await;
    sleep(LONG).await;
    assert_eq!((world.sent(), world.metrics.queue_length.get()), (0, 1));
    world.store.fail(StoreFault::None);
    world.applied(1).await;
}

#[tokio::test(start_paused = true)]
async fn after_a_lost_answer_the_term_is_another_before_anything_is_written() {
    for applied in [false, true] {
        let mut world = World::new().await;
        let _running = world.lead().await;
        world.add(1).await;
        let before = world.term();
        world.judge(first(Fate::Unanswered { applied }));
        world.add(2).await;
        assert!(world.term() > before, "{before:?}");
        let sent = world.database.transactions().borrow().iter().filter(|it| inserted(it) == [2]).count();
        assert_eq!(sent, if applied { 1 } else { 2 });
    }
}
