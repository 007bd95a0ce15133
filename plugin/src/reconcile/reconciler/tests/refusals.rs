//! Load balancers that the database refuses, or that the network does not allow.

use ovsdb::operation::Mutation;
use ovsdb::value;

use super::*;

/// Refuses each transaction that inserts one of these.
fn refuse(guilty: &'static [u8]) -> impl FnMut(&[Operation]) -> Fate + Send + 'static {
    let refusal = Fate::Refused(DatabaseError::ConstraintViolation);
    move |operations| {
        let is_guilty = inserted(operations).iter().any(|number| guilty.contains(number));
        if is_guilty { refusal.clone() } else { Fate::Answered }
    }
}

/// Milliseconds between the attempts at one load balancer that were made without others. Its network's shared rows may be
/// tried with it, and without it at the same time.
fn waits(times: &Times, number: u8) -> Vec<u128> {
    let times = times.lock().unwrap();
    let mut alone: Vec<Instant> = times.iter().filter(|(_, it)| *it == [number]).map(|(at, _)| *at).collect();
    alone.dedup();
    alone.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_refused_transaction_is_retried_in_halves_until_the_guilty_one_stands_alone() {
    let mut world = World::new().await;
    let times = world.judge(refuse(&[3]));
    for number in 1..=8 {
        world.write(&balancer(number)).await;
    }
    let _running = world.start().await;
    for number in [1, 2, 4, 5, 6, 7, 8] {
        world.applied(number).await;
    }
    let parts: Vec<_> = times.lock().unwrap().iter().map(|(_, numbers)| numbers.clone()).collect();
    let expected: [&[u8]; 7] =
        [&[1, 2, 3, 4, 5, 6, 7, 8], &[1, 2, 3, 4], &[1, 2], &[3, 4], &[3], &[4], &[5, 6, 7, 8]];
    assert_eq!(parts, expected);
    assert!(!world.has_row(3));
    sleep(Duration::from_secs(3)).await;
    assert_eq!(waits(&times, 3), [500, 1000], "its fellows' rows are no reason to try it earlier");
}

#[tokio::test(start_paused = true)]
async fn a_refused_load_balancer_waits_longer_each_time_and_says_why_and_until_when() {
    let mut world = World::new().await;
    let times = world.judge(refuse(&[1]));
    let _running = world.start().await;
    let began = now_ms();
    world.write(&balancer(1)).await;
    let failure = world.observed(id(1), |it| it.failure.is_some()).await.failure.clone().unwrap();
    assert!(failure.reason.contains("constraint violation"), "{}", failure.reason);
    let next = failure.next_attempt_at;
    assert!((began + 500..=now_ms() + 500).contains(&next), "{next} of {began}");
    sleep(LONG).await;
    assert_eq!(waits(&times, 1)[..8], [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
    // The others do not wait for it.
    let began = Instant::now();
    world.add(2).await;
    assert!(began.elapsed() < Duration::from_millis(50), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_success_ends_the_failure_and_the_next_one_waits_as_briefly_as_the_first() {
    let mut world = World::new().await;
    world.judge(refuse(&[1]));
    let _running = world.start().await;
    world.write(&balancer(1)).await;
    world.observed(id(1), |it| it.failure.is_some()).await;
    sleep(Duration::from_secs(10)).await;
    world.judge(|_| Fate::Answered);
    world.applied(1).await;
    let times = world.judge(refuse(&[1]));
    world.database.write(&[Operation::delete("Load_Balancer", row(1))]).unwrap();
    sleep(Duration::from_secs(2)).await;
    assert_eq!(waits(&times, 1), [500, 1000]);
    let observation = world.model.observation(id(1));
    assert!(observation.applied.is_some(), "what was applied last is known");
    assert_eq!(observation.failure.as_ref().unwrap().scope, FailureScope::Tree, "rows of it are missing");
}

#[tokio::test(start_paused = true)]
async fn shared_rows_that_were_refused_wait_as_briefly_after_a_success_as_the_first_time() {
    let (world, _running) = World::with_one().await;
    let group = plan::Network::group(INSTALLATION, NETWORK);
    let attempts = |world: &World| {
        let rename = move |it: &Operation| matches!(it, Operation::Update { uuid, .. } if *uuid == group);
        let times = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&times);
        world.database.judge(move |operations| {
            if !operations.iter().any(rename) {
                return Fate::Answered;
            }
            seen.lock().unwrap().push(Instant::now());
            Fate::Refused(DatabaseError::ConstraintViolation)
        });
        let by_hand = columns([("name", json!("by hand"))]);
        world.database.write(&[Operation::update("Load_Balancer_Group", group, by_hand)]).unwrap();
        times
    };
    let name = |world: &World| world.northbound.read().load_balancer_group.get(&group).unwrap().name.clone();
    for _ in 0..2 {
        let times = attempts(&world);
        sleep(Duration::from_secs(4)).await;
        let times = times.lock().unwrap().clone();
        let waits: Vec<_> = times.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000]);
        world.database.judge(|_| Fate::Answered);
        sleep(LONG).await;
        assert_eq!(name(&world), INSTALLATION.network(NETWORK).to_string());
    }
}

#[tokio::test(start_paused = true)]
async fn a_vip_that_another_port_has_is_taken_when_the_port_goes_and_not_later() {
    let mut world = World::new().await;
    let port = Uuid::from_u128(0x71);
    let ports = |way: fn(&'static str, serde_json::Value) -> Mutation| {
        Operation::mutate("Logical_Switch", NETWORK, vec![way("ports", value::uuid(port))])
    };
    let vm = columns([("name", json!("vm")), ("addresses", json!("0a:00:00:00:00:01 10.0.0.1"))]);
    let insert = Operation::insert("Logical_Switch_Port", port, vm);
    world.database.write(&[insert, ports(Mutation::insert)]).unwrap();
    let _running = world.start().await;
    world.write(&balancer(1)).await;
    let failure = world.observed(id(1), |it| it.failure.is_some()).await.failure.clone().unwrap();
    assert_eq!(failure.reason, "the VIP 10.0.0.1 is in use by logical switch port \"vm\" on the network");
    sleep(LONG).await;
    assert!(!world.has_row(1));
    let began = Instant::now();
    world.database.write(&[ports(Mutation::delete)]).unwrap();
    world.applied(1).await;
    assert!(began.elapsed() < Duration::from_millis(50), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_network_that_does_not_exist_blocks_its_load_balancers_until_it_does() {
    let mut world = World::new().await;
    world.database.write(&[Operation::delete("Logical_Switch", NETWORK)]).unwrap();
    let _running = world.start().await;
    world.write(&balancer(1)).await;
    let failure = world.observed(id(1), |it| it.failure.is_some()).await.failure.clone().unwrap();
    assert!(failure.reason.contains("does not exist"), "{}", failure.reason);
    sleep(LONG).await;
    assert_eq!(world.sent(), 0);
    let began = Instant::now();
    world.database.write(&[Operation::insert("Logical_Switch", NETWORK, columns([]))]).unwrap();
    world.applied(1).await;
    assert!(began.elapsed() < Duration::from_millis(50), "{:?}", began.elapsed());
}

/// Columns of a switch with this port.
fn with_port(way: fn(&'static str, serde_json::Value) -> Mutation, port: Uuid) -> Operation {
    Operation::mutate("Logical_Switch", NETWORK, vec![way("ports", value::uuid(port))])
}

#[tokio::test(start_paused = true)]
async fn a_network_that_goes_is_said_at_once_of_what_was_applied_on_it() {
    let (world, _running) = World::with_one().await;
    let began = Instant::now();
    world.database.write(&[Operation::delete("Logical_Switch", NETWORK)]).unwrap();
    let failure = world.observed(id(1), |it| it.failure.is_some()).await.failure.clone().unwrap();
    assert_eq!(failure.scope, FailureScope::NetworkGone, "{failure:?}");
    assert!(began.elapsed() < Duration::from_millis(50), "{:?}", began.elapsed());
    world.database.write(&[Operation::insert("Logical_Switch", NETWORK, columns([]))]).unwrap();
    world.applied(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_way_to_a_physical_network_is_observed_as_it_comes_and_goes() {
    let (world, _running) = World::with_one().await;
    let is_physical = |it: &Observation| it.carried.caveats.is_physical;
    assert!(!is_physical(&world.model.observation(id(1))));
    let port = Uuid::from_u128(0x72);
    let row = columns([("name", json!("to the wire")), ("type", json!("localnet"))]);
    let insert = Operation::insert("Logical_Switch_Port", port, row);
    let sent = world.sent();
    let began = Instant::now();
    world.database.write(&[insert, with_port(Mutation::insert, port)]).unwrap();
    world.observed(id(1), is_physical).await;
    world.database.write(&[with_port(Mutation::delete, port)]).unwrap();
    world.observed(id(1), |it| !is_physical(it)).await;
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
    assert_eq!(world.sent(), sent, "nothing is written for it");
}
