//! A process without descriptors: this test's own binary.

use std::time::Duration;

use fiberlb_daemon::listen::ConnectionSettings;
use fiberlb_daemon::logs::{LogFormat, LogSettings};
use fiberlb_daemon::testing::{Daemon, Opening, PATIENCE, get, open};

use crate::world::{ATTACKER, HONEST, World, patient};

/// The process: a listener that believes that it may have more connections than descriptors. It takes one more step than a
/// daemon, which fits its listeners to its descriptors.
#[tokio::test]
#[ignore = "run by the other test, in a process of its own"]
async fn daemon() {
    LogSettings { format: LogFormat::Json, ..LogSettings::default() }.start().unwrap();
    let world = World::start(ConnectionSettings { total: 4096, ..patient() }, |listener| listener);
    tracing::info!(address = %world.address(), "serving");
    // Until the other test ends it, and no longer than that may take.
    tokio::time::sleep(10 * PATIENCE).await;
}

#[tokio::test]
async fn without_descriptors_accepting_pauses_and_some_give_way() {
    let binary = std::env::current_exe().unwrap();
    let arguments = ["--exact", "exhausted::daemon", "--ignored", "--nocapture"];
    let mut daemon = Daemon::start(binary.to_str().unwrap(), &arguments, Some(64));
    let address = daemon.serving("address").await.parse().unwrap();
    let start = tokio::time::Instant::now();
    let silent = open(200, 0, Opening::Silent, ATTACKER, address).await;
    for _ in 0..5 {
        assert_eq!(get(HONEST, address, "/").await.unwrap(), (200, "hello".to_owned()));
    }
    let share = daemon.cpu_share(Duration::from_secs(3)).await;
    assert!(share < 0.05, "{share} of a core");
    let seconds = start.elapsed().as_secs() + 2;
    let log = daemon.log();
    let lines = log.iter().filter(|line| line.contains("refused connections")).count();
    assert!(lines >= 1 && lines as u64 <= seconds, "{lines} lines in {seconds} s: {log:?}");
    assert!(log.iter().any(|line| line.contains("raise LimitNOFILE")), "{log:?}");
    drop(silent);
    assert!(get(HONEST, address, "/").await.is_ok());
}
