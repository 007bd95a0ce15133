//! Watches: the current state, then every later one.

use std::time::Duration;

use super::*;

async fn next(events: &mut WatchEvents) -> WatchEvent {
    tokio::time::timeout(Duration::from_secs(20), events.next())
        .await
        .expect("an event")
        .expect("open")
        .unwrap()
}

#[tokio::test]
async fn a_watch_begins_with_what_there_is_and_goes_on_with_what_changes() {
    let world = World::new().await;
    let site = world.site().await;
    let mut events = world.cases.watch(tenant(), Some(site.root)).unwrap();
    let mut snapshot = 0;
    loop {
        match next(&mut events).await {
            WatchEvent { change: WatchChange::Snapshot, resource: Some(_) } => snapshot += 1,
            synced => {
                assert_eq!(synced, WatchEvent { change: WatchChange::Synced, resource: None });
                break;
            }
        }
    }
    assert_eq!(snapshot, 5);
    world.update::<Backend>(site.backend, |backend| backend.weight = 9).await.unwrap();
    let WatchEvent { change: WatchChange::Updated, resource: Some(AnyObserved::Backend(backend)) } =
        next(&mut events).await
    else {
        panic!("the backend was changed");
    };
    assert_eq!(backend.record.spec.weight, 9);
    let made = world.create::<Backend>(super::backend(site.pool, 12)).await.unwrap();
    let event = next(&mut events).await;
    assert_eq!((event.change, event.resource), (WatchChange::Created, Some(made.into())));
}

#[tokio::test]
async fn a_watch_shows_a_status_that_changes_with_what_is_waited_for() {
    let world = World::new().await;
    let site = world.site().await;
    let mut events = world.cases.watch(tenant(), Some(site.root)).unwrap();
    while next(&mut events).await.change != WatchChange::Synced {}
    for waited in [Some("a leader".to_owned()), None] {
        world.alone.0.lock().unwrap().clone_from(&waited);
        let event = next(&mut events).await;
        let Some(AnyObserved::LoadBalancer(root)) = event.resource else { panic!("{event:?}") };
        assert_eq!(
            (event.change, root.status.reason == "a leader"),
            (WatchChange::Updated, waited.is_some())
        );
        for _ in 0..4 {
            assert_eq!(next(&mut events).await.change, WatchChange::Updated);
        }
    }
}

#[tokio::test]
async fn a_watch_of_all_shows_the_callers_own_alone() {
    let world = World::new().await;
    world.site().await;
    let mut events = world.cases.watch(stranger(), None).unwrap();
    assert_eq!(next(&mut events).await.change, WatchChange::Synced);
    let given = ResourceDraft::alone(None, load_balancer());
    let own = world.create_as::<LoadBalancer>(&stranger(), given, None).await.unwrap();
    let event = next(&mut events).await;
    assert_eq!((event.change, event.resource), (WatchChange::Created, Some(own.into())));
}

#[tokio::test]
async fn no_more_watches_are_open_than_the_limit_says() {
    let world = World::with(Limits { watches: 1, ..Limits::default() }).await;
    let first = world.cases.watch(tenant(), None).unwrap();
    let error = world.cases.watch(tenant(), None).err().unwrap();
    assert_eq!(
        (error.reason, error.message.as_str()),
        (ErrorReason::LimitExceeded, "watches: at most 1 at the same time")
    );
    drop(first);
    // The watch notices at its next wait that its reader is gone.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while world.cases.watch(tenant(), None).is_err() {
        assert!(tokio::time::Instant::now() < deadline, "the place of a watch that ended is free again");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn one_project_does_not_take_all_watches() {
    let world = World::with(Limits { watches: 3, watches_per_project: 2, ..Limits::default() }).await;
    let own = [world.cases.watch(tenant(), None).unwrap(), world.cases.watch(tenant(), None).unwrap()];
    let refused = world.cases.watch(tenant(), None).unwrap_err();
    assert_eq!(refused.message, "watches_per_project: at most 2 at the same time");
    let other = world.cases.watch(stranger(), None).unwrap();
    assert_eq!(world.cases.watch(operator(), None).unwrap_err().reason, ErrorReason::LimitExceeded);
    drop((own, other));
}

#[tokio::test]
async fn an_access_log_that_is_read_counts_as_a_watch() {
    let world = World::with(Limits { watches: 1, ..Limits::default() }).await;
    let site = world.site().await;
    let mut batches = world.cases.read_access_log(tenant(), site.listener).await.unwrap();
    let mut omitted = 0;
    while omitted < 3 {
        omitted += batches.next().await.unwrap().unwrap().omitted;
    }
    assert_eq!(omitted, 3);
    let refused = world.cases.read_access_log(operator(), site.listener).await.err().unwrap();
    assert_eq!(refused.message, "watches: at most 1 at the same time");
    drop(batches);
    // It is noticed at once, and by a task of its own.
    let ended = async {
        while world.cases.on().metrics.watches.get() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended).await.expect("its place is free again");
}

#[tokio::test(start_paused = true)]
async fn what_a_slow_reader_does_not_take_of_an_access_log_is_taken_from_its_source_all_the_same() {
    let world = World::new().await;
    let site = world.site().await;
    let (source, batches) = tokio::sync::mpsc::channel::<LogBatch>(1);
    *world.alone.1.lock().unwrap() = Some(batches);
    let mut read = world.cases.read_access_log(tenant(), site.listener).await.unwrap();
    for _ in 0..1_000 {
        let batch = LogBatch { connections: Vec::new(), omitted: 1 };
        tokio::time::timeout(Duration::from_secs(1), source.send(batch))
            .await
            .expect("it waits for nobody")
            .unwrap();
    }
    drop(source);
    let mut omitted = 0;
    while let Some(batch) = read.next().await {
        omitted += batch.unwrap().omitted;
    }
    assert_eq!(omitted, 1_000);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_loses_its_watch() {
    let world = World::new().await;
    let mut events = world.cases.watch(tenant(), None).unwrap();
    for _ in 0..100 {
        world.create::<LoadBalancer>(load_balancer()).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(120)).await;
    let mut last = None;
    while let Some(event) = events.next().await {
        last = Some(event);
    }
    assert_eq!(last.unwrap().unwrap_err().reason, ErrorReason::SlowReader);
    assert_eq!(world.cases.on().metrics.watches.get(), 0);
}

#[tokio::test]
async fn what_is_deleted_is_shown_before_what_it_stood_below() {
    let world = World::new().await;
    let site = world.site().await;
    let mut events = world.cases.watch(tenant(), Some(site.root)).unwrap();
    while next(&mut events).await.change != WatchChange::Synced {}
    world.remove(site.root).await;
    let mut kinds = Vec::new();
    while let Some(event) = events.next().await {
        let event = event.unwrap();
        if event.change == WatchChange::Deleted {
            kinds.push(match event.resource.unwrap() {
                AnyObserved::LoadBalancer(_) => 0,
                AnyObserved::Pool(_) | AnyObserved::Listener(_) => 1,
                AnyObserved::Backend(_) | AnyObserved::HealthCheck(_) => 2,
            });
        }
    }
    assert_eq!(kinds, [2, 2, 1, 1, 0]);
}
