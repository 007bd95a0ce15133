//! Transactions with unknown outcome, and those that another client comes before.

use super::*;

const LOST: Fate = Fate::Unanswered { applied: false };
const UNHEARD: Fate = Fate::Unanswered { applied: true };

#[tokio::test(start_paused = true)]
async fn what_was_done_unheard_is_found_and_not_done_again() {
    let mut world = World::new().await;
    world.judge(first(UNHEARD));
    let _running = world.start().await;
    world.add(1).await;
    sleep(LONG).await;
    assert_eq!(world.sent(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_lost_is_planned_again_with_what_came_meanwhile() {
    let mut world = World::new().await;
    world.judge(first(LOST));
    let _running = world.start().await;
    world.write(&balancer(1)).await;
    world.sent_all(1).await;
    world.write(&balancer(2)).await;
    world.applied(1).await;
    world.applied(2).await;
    assert_eq!(inserted(&world.database.transactions().borrow()[1]), [1, 2]);
    assert_eq!(world.sent(), 2);
    assert!(world.model.observation(id(1)).failure.is_none(), "an unknown outcome is no failure");
}

#[tokio::test(start_paused = true)]
async fn an_end_of_the_connection_in_the_middle_is_an_unknown_outcome() {
    let mut world = World::new().await;
    world.judge(first(UNHEARD));
    let _running = world.start().await;
    world.write(&balancer(1)).await;
    world.sent_all(1).await;
    world.database.stop();
    sleep(LONG).await;
    assert!(world.model.observation(id(1)).applied.is_none());
    world.database.start();
    world.applied(1).await;
    assert_eq!(world.sent(), 1);
}

#[tokio::test(start_paused = true)]
async fn rows_that_went_between_plan_and_transaction_are_planned_again() {
    let (world, _running) = World::with_one().await;
    let (database, mut gone) = (world.database.clone(), false);
    world.judge(move |_| {
        if !std::mem::replace(&mut gone, true) {
            database.write(&[Operation::delete("Load_Balancer", row(1))]).unwrap();
        }
        Fate::Answered
    });
    world.write(&renamed(&world.model.tree(id(1)).unwrap(), "web")).await;
    world.applied(1).await;
    assert_eq!(world.northbound.read().load_balancer.get(&row(1)).unwrap().name, "web");
    assert_eq!(world.sent(), 3, "the first, the one that met no row, and the insert");
}

#[tokio::test(start_paused = true)]
async fn with_a_client_that_replaces_a_row_each_time_the_loop_paces_itself() {
    let (world, _running) = World::with_one().await;
    let (database, mut transactions) = (world.database.clone(), world.database.transactions());
    let times = world.judge(move |_| {
        let _ = database.write(&[Operation::delete("Load_Balancer", row(1))]);
        Fate::Answered
    });
    transactions.mark_unchanged();
    let database = world.database.clone();
    let other = tokio::spawn(async move {
        let ids = json!(["map", [[OWNER_KEY, INSTALLATION.load_balancer(id(1)).to_string()]]]);
        while transactions.changed().await.is_ok() {
            let back = Operation::insert("Load_Balancer", row(1), columns([("external_ids", ids.clone())]));
            database.write(&[back]).unwrap();
        }
    });
    world.write(&renamed(&world.model.tree(id(1)).unwrap(), "web")).await;
    sleep(Duration::from_secs(60)).await;
    let attempts = times.lock().unwrap().len();
    assert!((100..=150).contains(&attempts), "some at once, then two in a second: {attempts}");
    other.abort();
    world.judge(|_| Fate::Answered);
    world.applied(1).await;
}
