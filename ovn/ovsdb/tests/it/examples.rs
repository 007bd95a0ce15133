//! The example programs, run against a real ovsdb-server.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{ChildStdout, Command};
use tokio::time::timeout;

use crate::rows::TABLE;
use fiberlb_ovn_testing::{LONG, Server};

/// Cargo builds examples beside the folder of the tests.
fn example(name: &str) -> Command {
    let test = std::env::current_exe().unwrap();
    let path: PathBuf = test.parent().unwrap().parent().unwrap().join("examples").join(name);
    assert!(path.is_file(), "{} is not built: run cargo build --examples", path.display());
    let mut command = Command::new(path);
    command.kill_on_drop(true).stdin(Stdio::null());
    command
}

async fn next(lines: &mut Lines<BufReader<ChildStdout>>) -> String {
    timeout(LONG, lines.next_line()).await.expect("no line").unwrap().expect("the example ended")
}

async fn transact(server: &Server, arguments: &[&str]) -> (bool, String) {
    let endpoint = server.unix().to_string();
    let mut command = example("transact");
    let output = command.args([&endpoint, "OVN_Northbound"]).args(arguments).output().await.unwrap();
    let text = if output.status.success() { output.stdout } else { output.stderr };
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn what_one_example_writes_the_other_shows() {
    let server = Server::start().await;
    let endpoint = server.unix().to_string();
    let mut watch = example("watch");
    let watch = watch.args([endpoint.as_str(), "OVN_Northbound", TABLE]).stdout(Stdio::piped());
    let mut watch = watch.spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();

    let (done, said) = transact(&server, &["insert", TABLE, r#"{"name": "a"}"#]).await;
    assert!(done, "{said}");
    let (uuid, row) = said.trim().split_once(' ').unwrap();
    let row: Value = serde_json::from_str(row).unwrap();
    assert_eq!((&row["name"], &row["vips"]), (&json!("a"), &json!(["map", []])), "{said}");
    assert_eq!(next(&mut lines).await, format!("+ {TABLE} {uuid} {row}"));

    let (done, said) = transact(&server, &["update", TABLE, uuid, r#"{"name": "b"}"#]).await;
    assert!(done && said.contains(r#""name":"b""#), "{said}");
    assert_eq!(next(&mut lines).await, format!(r#"~ {TABLE} {uuid} {{"name":"b"}}"#));

    let (done, said) = transact(&server, &["delete", TABLE, uuid]).await;
    assert_eq!((done, said), (true, format!("{uuid} deleted\n")));
    assert_eq!(next(&mut lines).await, format!("- {TABLE} {uuid}"));
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let server = Server::start().await;
    let unknown = "00000000-0000-0000-0000-000000000007";
    for (arguments, reason) in [
        (&["delete", TABLE, unknown][..], "has no row 00000000-0000-0000-0000-000000000007"),
        (&["insert", TABLE, r#"{"name": 5}"#], "the database refused the transaction"),
        (&["insert", TABLE, "{"], "EOF while parsing"),
        (&["insert", "No_Such_Table", "{}"], "has no table No_Such_Table"),
        (&["frobnicate", TABLE], "frobnicate takes other operands"),
    ] {
        let (done, said) = transact(&server, arguments).await;
        assert!(!done && said.contains(reason), "{arguments:?}: {said}");
    }
}
