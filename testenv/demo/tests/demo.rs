//! The demo's own conduct. Its whole walkthrough is what `make demo` runs.

#![cfg(test)] // for clippy: helpers of tests are tests too

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use fiberlb_lab::{can_run, find_labs};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Starts the demo, and waits until it runs a lab.
fn demo_with_a_lab() -> Child {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_fiberlb-demo"));
    let mut demo = demo.env_remove("KEEP").stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("starting two chassis")), "the demo has no lab");
    // It prints on; nobody else reads that.
    std::thread::spawn(move || lines.for_each(drop));
    demo
}

#[test]
fn an_interrupt_ends_the_demo_and_its_lab() {
    if !can_run("an_interrupt_ends_the_demo_and_its_lab") {
        return;
    }
    let mut demo = demo_with_a_lab();
    let owner = demo.id();
    assert!(find_labs().iter().any(|lab| lab.owner == owner));
    kill(Pid::from_raw(owner.try_into().unwrap()), Signal::SIGINT).unwrap();
    assert_eq!(demo.wait().unwrap().code(), Some(130));
    assert!(find_labs().iter().all(|lab| lab.owner != owner));
}
