//! Elections, and ends of terms.

use super::*;

#[tokio::test(start_paused = true)]
async fn who_wins_leads_and_writes_and_who_loses_follows() {
    let (site, a, b) = Site::with_follower().await;
    site.write(&a, &balancer(1)).await;
    a.applied(1).await;
    sleep(LONG).await;
    assert!(a.roles.leads() && !b.roles.leads());
    let transactions = site.database.transactions().borrow().len();
    assert_eq!(transactions, 2, "one for the fence, one for the load balancer");
    let term = site.leader().await.unwrap();
    assert_eq!(a.term(), Some(term.0));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_stops_resigns_at_once() {
    let (_site, a, b) = Site::with_follower().await;
    let began = Instant::now();
    a.stop.send_replace(true);
    b.leads().await;
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    a.running.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_stops_waits_for_its_transaction_before_another_leads() {
    let (site, a) = Site::with_leader().await;
    site.write(&a, &balancer(1)).await;
    a.applied(1).await;
    let b = site.plugin("b").await;
    let mut fate = Some(Fate::Unanswered { applied: false });
    site.database.judge(move |_| fate.take().unwrap_or(Fate::Answered));
    site.write(&a, &balancer(2)).await;
    sent(&site, 3).await;
    let began = Instant::now();
    a.stop.send_replace(true);
    b.leads().await;
    assert!(began.elapsed() > Duration::from_secs(9), "{:?}", began.elapsed());
    b.applied(2).await;
}

/// Waits until so many transactions were sent.
async fn sent(site: &Site, count: usize) {
    let mut transactions = site.database.transactions();
    timeout(LONG, transactions.wait_for(|all| all.len() >= count)).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_ends_the_term_in_the_middle_of_a_transaction() {
    let (site, a) = Site::with_leader().await;
    site.write(&a, &balancer(1)).await;
    a.applied(1).await;
    let b = site.plugin("b").await;
    b.follows(&a.address).await;
    let mut fate = Some(Fate::Unanswered { applied: false });
    site.database.judge(move |_| fate.take().unwrap_or(Fate::Answered));
    site.write(&a, &balancer(2)).await;
    sent(&site, 3).await;
    let began = Instant::now();
    a.store.fail(StoreFault::Unreachable);
    a.store.lose_lease();
    let mut route = a.roles.route();
    timeout(LONG, route.wait_for(|route| *route == SessionRoute::NoLeader)).await.unwrap().unwrap();
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    // It cannot revoke the lease, which expires.
    b.leads().await;
    assert!((LEASE_TTL..LEASE_TTL + SOON).contains(&began.elapsed()), "{:?}", began.elapsed());
    b.applied(2).await;
    a.store.fail(StoreFault::None);
    a.follows(&b.address).await;
    a.applied(2).await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_key_was_replaced_follows_the_one_in_it() {
    let (site, a) = Site::with_leader().await;
    let began = Instant::now();
    let revision = site.set_leader(Some(&record("other"))).await;
    a.follows(&address("other")).await;
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    sleep(LONG).await;
    assert_eq!(site.leader().await, Some(revision), "it removes no key but its own");
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_key_was_deleted_is_elected_anew_with_a_higher_term() {
    let (site, a) = Site::with_leader().await;
    site.write(&a, &balancer(1)).await;
    a.applied(1).await;
    let (before, term) = (a.term(), site.leader().await);
    site.set_leader(None).await;
    assert!(self::leader(&site, term).await > term.unwrap());
    a.leads().await;
    site.write(&a, &balancer(2)).await;
    a.applied(2).await;
    assert!(a.term() > before);
}

#[tokio::test(start_paused = true)]
async fn a_plugin_whose_model_does_not_catch_up_resigns_and_another_leads() {
    let site = Site::new();
    let stuck = site.stuck_plugin("stuck").await;
    let mut term = self::leader(&site, None).await;
    let b = site.plugin("b").await;
    b.follows(&stuck.address).await;
    assert!(!stuck.roles.leads());
    let began = Instant::now();
    b.leads().await;
    assert!(began.elapsed() < CATCH_UP_TIMEOUT + SOON, "{:?}", began.elapsed());
    term = self::leader(&site, Some(term)).await;
    stuck.follows(&b.address).await;
    site.write(&b, &balancer(1)).await;
    b.applied(1).await;
    sleep(LONG).await;
    assert_eq!(site.leader().await, Some(term));
}

/// Waits until another plugin leads than in this term.
async fn leader(site: &Site, before: Option<Revision>) -> Revision {
    let mut watch = site.store.watch(&leader_key(), Revision::ZERO).await.unwrap();
    loop {
        match site.leader().await {
            Some(revision) if Some(revision) != before => return revision,
            _ => drop(timeout(LONG, watch.next()).await.unwrap().unwrap()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_the_northbound_database_others_are_elected_first() {
    let (site, dead) = (Site::new(), database());
    dead.stop();
    let blind = site.plugin_at("blind", &dead).await;
    let b = site.plugin("b").await;
    b.leads().await;
    blind.follows(&b.address).await;
}

#[tokio::test(start_paused = true)]
async fn without_the_northbound_database_and_others_a_plugin_leads_all_the_same() {
    let site = Site::new();
    site.database.stop();
    let began = Instant::now();
    let a = site.plugin("a").await;
    a.leads().await;
    assert!((YIELD_TIMEOUT..YIELD_TIMEOUT + SOON).contains(&began.elapsed()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_store_out_of_reach_is_asked_until_somebody_can_be_elected() {
    let site = Site::new();
    let a = site.plugin("a").await;
    a.store.fail(StoreFault::Unreachable);
    sleep(LONG).await;
    assert!(!a.roles.leads());
    a.store.fail(StoreFault::None);
    a.leads().await;
}

#[tokio::test(start_paused = true)]
async fn the_leader_of_a_newer_release_is_followed_without_an_address() {
    let site = Site::new();
    let newer = br#"{"version":99}"#.to_vec();
    let writes = vec![Write::Put { key: leader_key(), value: newer }];
    site.store.commit(Transaction { compares: Vec::new(), writes }).await.unwrap();
    let a = site.plugin("a").await;
    sleep(LONG).await;
    assert_eq!(a.roles.role(), Role::Follows(None));
    site.set_leader(None).await;
    a.leads().await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_died_is_replaced_when_its_lease_expires() {
    let (_site, a, b) = Site::with_follower().await;
    let began = Instant::now();
    a.running.abort();
    b.leads().await;
    assert!((LEASE_TTL..LEASE_TTL + SOON).contains(&began.elapsed()), "{:?}", began.elapsed());
}
