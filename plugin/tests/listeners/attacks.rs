//! Attacks by one address, each on all three listeners, and what others get meanwhile.

use std::time::Duration;

use fiberlb_daemon::testing::{Opening, get, open};
use tokio::task::JoinHandle;

use crate::world::{ATTACKER, Target, World};

/// Lets others connect again and again until the attack is over.
async fn serves_during<T>(world: &World, target: Target, attack: JoinHandle<T>) -> T {
    loop {
        let is_over = attack.is_finished();
        world.serves(target).await;
        if is_over {
            return attack.await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: make test-hostile"]
async fn hostile_silent_and_half_open_connections_cost_nothing() {
    let settings = "total = 5000\nper_source = 5000\npending = 5000\nfirst_byte_ms = 600000\nhandshake_ms = 600000\n\
                    request_ms = 600000";
    let world = World::start(settings, None).await;
    for target in Target::ALL {
        let half = if target == Target::Metrics { Opening::HalfPreface } else { Opening::HalfHello };
        for opening in [Opening::Silent, half] {
            let attack = tokio::spawn(open(2000, 0, opening, ATTACKER, world.address(target)));
            let attack = serves_during(&world, target, attack).await;
            // The kernel has them before the listener does.
            let all = async { while world.connections(target).await < 2000 {} };
            tokio::time::timeout(Duration::from_secs(30), all).await.unwrap();
            let share = world.plugin.cpu_share(Duration::from_secs(5)).await;
            println!("{target:?}: {share:.3} of a core with 2000 connections, {opening:?}");
            assert!(share < 0.05, "{target:?} {opening:?}: {share} of a core");
            world.serves(target).await;
            drop(attack);
        }
    }
    world.check_log(&[]);
    assert_eq!(world.plugin.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: make test-hostile"]
async fn hostile_halves_of_openings_and_floods_keep_nobody_out() {
    let world = World::start("", None).await;
    for target in Target::ALL {
        let to = world.address(target);
        let attack = tokio::spawn(async move {
            let mut open_connections = Vec::new();
            for opening in [Opening::Silent, Opening::HalfPreface, Opening::HalfHello] {
                open_connections.extend(open(2000, 0, opening, ATTACKER, to).await);
            }
            open_connections.extend(open(1500, 300, Opening::Hello, ATTACKER, to).await);
            open_connections
        });
        let attack = serves_during(&world, target, attack).await;
        assert!(world.connections(target).await <= 1024 + 1);
        drop(attack);
    }
    world.check_log(&Target::ALL);
    assert_eq!(world.plugin.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_descriptors_are_shared_out_and_some_are_kept() {
    let world = World::start("first_byte_ms = 600000", Some(200)).await;
    let mut attacks = Vec::new();
    for target in Target::ALL {
        let silent = tokio::spawn(open(300, 0, Opening::Silent, ATTACKER, world.address(target)));
        attacks.push(serves_during(&world, target, silent).await);
    }
    let share = world.plugin.cpu_share(Duration::from_secs(3)).await;
    assert!(share < 0.05, "{share} of a core");
    for target in Target::ALL {
        world.serves(target).await;
        let series = format!(
            "fiberlb_listener_refused_total{{listener=\"{}\",reason=\"descriptors\"}}",
            target.name()
        );
        assert_eq!(world.metric(&series).await, 0, "the listeners keep to their share");
    }
    let ready = get(ATTACKER, world.address(Target::Metrics), "/readyz").await.unwrap();
    assert_eq!(ready, (200, "ok\n".to_owned()), "the store has what it needs");
    world.check_log(&Target::ALL);
    drop(attacks);
    assert_eq!(world.plugin.stop().await, Some(0));
}
