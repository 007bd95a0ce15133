//! Observations of the leader, as its followers get them.

use super::*;
use crate::resources::examples::deleted;

#[tokio::test(start_paused = true)]
async fn a_follower_shows_what_the_leader_observes() {
    let (site, a, b) = Site::with_follower().await;
    let refusal = Fate::Refused(ovsdb::error::DatabaseError::ConstraintViolation);
    site.database.judge(
        move |operations: &[Operation]| {
            if inserted(operations).contains(&2) { refusal.clone() } else { Fate::Answered }
        },
    );
    site.write(&b, &balancer(1)).await;
    site.write(&b, &balancer(2)).await;
    b.applied(1).await;
    b.observed(2, |it| it.failure.is_some()).await;
    let (here, there) = (a.model.observation(id(2)), b.model.observation(id(2)));
    assert_eq!(here.failure, there.failure);
    site.database.judge(|_| Fate::Answered);
    b.applied(2).await;
    assert!(b.has_row(2));
}

#[tokio::test(start_paused = true)]
async fn the_statuses_of_many_are_one_transaction() {
    let (site, a) = Site::with_leader().await;
    for number in 1..=30 {
        site.write(&a, &balancer(number)).await;
    }
    for number in 1..=30 {
        a.applied(number).await;
    }
    let mut watch = site.store.watch(STATUSES, Revision::ZERO).await.unwrap();
    let first = timeout(LONG, watch.next()).await.unwrap().unwrap();
    assert_eq!(first.changes.len(), 30);
    assert!(timeout(LONG, watch.next()).await.is_err(), "and no second one");
}

#[tokio::test(start_paused = true)]
async fn what_a_former_leader_did_not_publish_is_not_shown_by_it() {
    let (site, a) = Site::with_leader().await;
    a.store.fail(StoreFault::Slow);
    site.write(&a, &balancer(1)).await;
    a.applied(1).await;
    site.set_leader(Some(&record("other"))).await;
    // The status that was on its way is refused.
    a.store.fail(StoreFault::None);
    a.follows(&address("other")).await;
    a.observed(1, |it| it.applied.is_none()).await;
    assert!(site.store.snapshot(STATUSES).await.unwrap().collect().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_goes_on_from_what_was_published_and_sends_and_publishes_nothing() {
    let (site, a) = Site::with_leader().await;
    let b = site.plugin("b").await;
    site.write(&a, &balancer(1)).await;
    b.applied(1).await;
    let published = site.store.snapshot(STATUSES).await.unwrap().collect().await.unwrap();
    a.stop.send_replace(true);
    b.leads().await;
    sleep(LONG).await;
    let sent = site.database.transactions().borrow().clone();
    assert_eq!(sent.len(), 3, "a's fence and rows, and b's fence: {sent:?}");
    assert_eq!(site.store.snapshot(STATUSES).await.unwrap().collect().await.unwrap(), published);
}

#[tokio::test(start_paused = true)]
async fn a_deleted_load_balancer_leaves_no_status() {
    let (site, a) = Site::with_leader().await;
    let b = site.plugin("b").await;
    site.write(&a, &balancer(1)).await;
    b.applied(1).await;
    site.write(&b, &deleted(&b.model.tree(id(1)).unwrap())).await;
    let mut notices = b.model.subscribe();
    while b.model.tree(id(1)).is_some() {
        notices.recv().await.unwrap();
    }
    sleep(LONG).await;
    assert!(site.store.snapshot(STATUSES).await.unwrap().collect().await.unwrap().is_empty());
    assert!(!b.has_row(1) && a.roles.leads());
}
