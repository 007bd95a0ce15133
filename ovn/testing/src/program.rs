//! Programs of the release of OVN under test.

use std::process::Command;
use std::time::Duration;

use fiberlb_ovn_release::Release;
use serde_json::{Value, json};

/// Name of the database that the servers have.
pub(crate) const DATABASE: &str = "OVN_Northbound";

/// Time limit of everything that a test waits for.
pub const LONG: Duration = Duration::from_secs(20);

/// Release whose programs the tests run.
pub fn release() -> &'static Release {
    Release::chosen().unwrap()
}

/// Runs a program that must succeed; returns its standard output.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Parameters of a `transact` request on [`DATABASE`].
pub(crate) fn transaction(operations: &[Value]) -> String {
    let head = [json!(DATABASE)];
    Value::Array(head.iter().chain(operations).cloned().collect()).to_string()
}
