//! Signals that stop a daemon, sent to a real process: this test's own binary.
#![cfg(test)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fiberlb_daemon::signals::StopSignals;
use rustix::process::{Pid, Signal, kill_process};

/// Environment variable that makes a run of this binary the daemon.
const DAEMON: &str = "FIBERLB_TEST_DAEMON";

/// The daemon: says when it is ready and when it stops, and then takes `DAEMON` seconds to stop.
#[test]
#[ignore = "run by the other tests"]
fn daemon() {
    let Ok(seconds) = std::env::var(DAEMON) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let signals = StopSignals::install().unwrap();
        println!("ready");
        signals.first().await;
        println!("stopping");
        tokio::time::sleep(Duration::from_secs(seconds.parse().unwrap())).await;
    });
}

fn start(seconds_to_stop: u64) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "daemon", "--ignored", "--nocapture"]).env(DAEMON, seconds_to_stop.to_string());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    until(&mut output, "ready");
    (child, output)
}

fn until(output: &mut impl BufRead, line: &str) {
    let mut text = String::new();
    while !text.trim_end().ends_with(line) {
        text.clear();
        assert!(output.read_line(&mut text).unwrap() > 0, "the daemon ended before {line:?}");
    }
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

#[test]
fn each_signal_begins_an_orderly_end() {
    for signal in [Signal::TERM, Signal::INT] {
        let (mut child, mut output) = start(0);
        send(&child, signal);
        until(&mut output, "stopping");
        assert!(child.wait().unwrap().success());
    }
}

#[tokio::test]
async fn another_signal_cuts_a_long_end_short() {
    let (mut child, mut output) = start(3600);
    send(&child, Signal::INT);
    until(&mut output, "stopping");
    let ended = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None => send(&child, Signal::TERM),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(ended.code(), Some(1));
}
