//! A plugin under a service manager, and its configuration without one.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use fiberlb_daemon::testing::{Daemon, NotifySocket, write_secret};
use rustix::process::Signal;
use tokio::net::TcpListener;

const PLUGIN: &str = env!("CARGO_BIN_EXE_fiberlb-plugin");
/// Runs the arguments with standard error as systemd's stream to the journal.
const IN_JOURNAL: &str = "JOURNAL_STREAM=$(stat -Lc %d:%i /dev/stderr) exec env \"$@\"";

fn configuration(directory: &Path, more: &str) -> PathBuf {
    let path = directory.join("plugin.toml");
    let here = directory.display();
    let text = format!(
        "api.listen = \"127.0.0.1:0\"\nmetrics.listen = \"127.0.0.1:0\"\nagents.listen = \"off\"\n\
         store.path = \"{here}/store.redb\"\nnorthbound.endpoints = [\"unix:{here}/nb.sock\"]\n{more}"
    );
    std::fs::write(&path, text).unwrap();
    path
}

#[tokio::test]
async fn systemd_sees_it_ready_alive_and_stopping_and_the_journal_its_levels() {
    let (directory, manager) = (tempfile::tempdir().unwrap(), NotifySocket::bind());
    configuration(directory.path(), "");
    let variables = manager.variables(Duration::from_millis(300));
    let [socket, watchdog] = variables.each_ref().map(String::as_str);
    let folder = format!("CONFIGURATION_DIRECTORY={}", directory.path().display());
    let plugin = Daemon::start("sh", &["-c", IN_JOURNAL, "sh", socket, watchdog, &folder, PLUGIN], None);
    let ready = manager.notified("READY=1").await;
    assert!(ready.contains("STATUS=API on 127.0.0.1:") && !ready.contains("127.0.0.1:9630"), "{ready}");
    manager.notified("WATCHDOG=1").await;
    manager.notified("WATCHDOG=1").await;

    let serving = plugin.logged("serving").await;
    assert!(serving.starts_with("<6> INFO"), "a priority, and no time: {serving}");
    configuration(directory.path(), "log.filter = \"info,fiberlb_plugin=debug\"\n");
    plugin.send(Signal::HUP);
    plugin.logged("read the log filter again filter=\"info,fiberlb_plugin=debug\"").await;
    configuration(directory.path(), "log.filter = \"info,=\"\n");
    plugin.send(Signal::HUP);
    let refused = plugin.logged("cannot read the log filter again").await;
    assert!(refused.starts_with("<3>ERROR") && refused.contains("log.filter is"), "{refused}");
    assert_eq!(plugin.stop().await, Some(0));
    assert!(manager.notified("STOPPING=1").await.contains("WATCHDOG_USEC=0"));
    assert_eq!(manager.rest().await, [""; 0], "another beat would arm the watchdog again");
}

#[tokio::test]
async fn a_plugin_that_waits_for_its_store_stops_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let member = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let path = configuration(directory.path(), "store.timeout_ms = 600000\n");
    let store = format!("chainfire://{}", member.local_addr().unwrap());
    let plugin = Daemon::start(PLUGIN, &["--config", path.to_str().unwrap(), "--store", &store], None);
    let _silent = member.accept().await.unwrap();
    assert_eq!(plugin.stop().await, Some(0));
}

fn check(configuration: &Path) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } =
        Command::new(PLUGIN).arg("check").arg("--config").arg(configuration).output().unwrap();
    let text = [stdout, stderr].concat();
    (status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn a_check_names_each_fault_and_starts_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path().display();
    let path = configuration(directory.path(), "");
    let good = format!("the configuration is good ({})\n", path.display());
    assert_eq!(check(&path), (Some(0), good));
    write_secret(&directory.path().join("api.key"), "no key");
    std::fs::write(directory.path().join("api.pem"), "no certificate").unwrap();
    let more = format!(
        "api.tls_certificate = \"{here}/api.pem\"\napi.tls_key = \"{here}/api.key\"\nfleet.mtu = 1\nlog.filter = \"=\"\n\
         reconcile.batch = 0\n"
    );
    let (status, faults) = check(&configuration(directory.path(), &more));
    assert_eq!((status, faults.lines().count()), (Some(1), 5), "{faults}");
    for fault in
        ["fleet.mtu is 1", "reconcile.batch is 0", "log.filter is", "api.pem cannot be used", "plugin.toml)"]
    {
        assert!(faults.contains(fault), "{fault}: {faults}");
    }
    let (status, faults) = check(&configuration(directory.path(), "api.lisen = 1\n"));
    assert!(status == Some(1) && faults.contains("lisen"), "{faults}");
    assert!(!directory.path().join("store.redb").exists());
}

#[test]
fn a_configuration_that_cannot_be_right_ends_with_2_for_systemd_not_to_start_it_again() {
    let directory = tempfile::tempdir().unwrap();
    let configuration = configuration(directory.path(), "fleet.mtu = 1\n");
    let Output { status, stderr, .. } =
        Command::new(PLUGIN).arg("--config").arg(configuration).output().unwrap();
    let error = String::from_utf8(stderr).unwrap();
    assert!(status.code() == Some(2) && error.starts_with("Error: fleet.mtu is 1"), "{error}");
}
