//! `apply`, `tree`, `watch` and `--wait`.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::Stdio;

use fiberlb_proto::v1::ProvisioningStatus;
use serde_json::json;
use tempfile::TempDir;

use crate::mock::{Mock, Ran};

const TREE: &str = "
load_balancer: {name: web, network: tenant-a}
listeners: [{name: http, protocol: tcp, port: 80, default_pool_id: app, clientDataTimeout: 30s}]
pools:
  - pool: {name: app, protocol: TCP}
    backends: [{address: 10.0.1.11, port: 8080, weight: 3}, {address: fd00::1, port: 8080, backup: true}]
    health_check: {name: ping, type: TCP, delay: 5s}
";

fn file(dir: &TempDir, text: &str) -> PathBuf {
    let path = dir.path().join("input.yaml");
    std::fs::write(&path, text).unwrap();
    path
}

async fn apply(mock: &Mock, text: &str, flags: &[&str]) -> Ran {
    let dir = TempDir::new().unwrap();
    let mut args = vec!["apply", "-f", "-"];
    args.extend(flags);
    mock.run_with_input(&args, &file(&dir, text)).await
}

/// A server with [`TREE`].
async fn web() -> Mock {
    let mock = Mock::start().await;
    apply(&mock, TREE, &[]).await.ok();
    mock
}

#[tokio::test]
async fn a_tree_is_applied_and_drawn() {
    let mock = Mock::start().await;
    let dir = TempDir::new().unwrap();
    let path = file(&dir, TREE);
    let said = mock.run(&["apply", "--file", path.to_str().unwrap(), "--wait"]).await.ok();
    let wanted = "\
created 6, updated 0, deleted 0, unchanged 0
load balancer web  10.0.1.100  ACTIVE NO_MONITOR
├─ listener http  TCP 80  → pool app  ACTIVE NO_MONITOR
└─ pool app  TCP UNSPECIFIED  ACTIVE NO_MONITOR
   ├─ health check ping  TCP  every 5s  ACTIVE NO_MONITOR
   ├─ backend 10.0.1.11:8080  weight 3  ACTIVE NO_MONITOR
   └─ backend [fd00::1]:8080  weight 1  backup  ACTIVE NO_MONITOR
";
    assert_eq!(said, wanted);
    let drawn = mock.run(&["tree", "web"]).await.ok();
    assert_eq!(drawn, mock.run(&["tree"]).await.ok());
    assert_eq!(drawn, said.split_once('\n').unwrap().1);
}

#[tokio::test]
async fn what_is_printed_can_be_applied() {
    let mock = web().await;
    for format in ["yaml", "json"] {
        let printed = mock.run(&["tree", "web", "-o", format]).await.ok();
        let said = apply(&mock, &printed, &[]).await.ok();
        assert!(said.starts_with("created 0, updated 0, deleted 0, unchanged 6\n"), "{said}");
        let all = mock.run(&["tree", "-o", format]).await.ok();
        assert!(apply(&mock, &all, &[]).await.ok().starts_with("created 0, updated 0"));
    }
    let edited = mock.run(&["tree", "web", "-o", "yaml"]).await.ok().replace("weight: 3", "weight: 4");
    assert!(
        apply(&mock, &edited, &[]).await.ok().starts_with("created 0, updated 1, deleted 0, unchanged 5\n")
    );
}

#[tokio::test]
async fn a_bare_tree_is_what_was_applied() {
    let mock = web().await;
    let wanted = "\
load_balancer:
  name: web
  network: tenant-a
  vip_address: \"10.0.1.100\"
listeners:
- name: http
  protocol: TCP
  port: 80
  default_pool_id: app
  client_data_timeout: 30s
pools:
- pool:
    name: app
    protocol: TCP
  backends:
  - address: \"10.0.1.11\"
    port: 8080
    weight: 3
  - address: fd00::1
    port: 8080
    backup: true
  health_check:
    name: ping
    type: TCP
";
    assert_eq!(mock.run(&["tree", "web", "--bare"]).await.ok(), wanted);
    assert_eq!(mock.run(&["tree", "--bare", "-o", "yaml"]).await.ok(), wanted);
    mock.run(&["lb", "create", "--name", "dns", "--network", "n"]).await.ok();
    let all = mock.run(&["tree", "--bare"]).await.ok();
    assert!(all.starts_with(wanted) && all.contains("\n---\nload_balancer:\n  name: dns\n"), "{all}");
    let json = mock.run(&["tree", "web", "--bare", "-o", "json"]).await.json();
    assert_eq!(json["pools"][0]["backends"][1]["backup"], true);
    assert_eq!(mock.run(&["tree", "--bare", "-o", "json"]).await.json()[1]["load_balancer"]["name"], "dns");
    // With a second one of the name, only the id says which is meant.
    mock.run(&["lb", "create", "--name", "dns", "--network", "n"]).await.ok();
    let all = mock.run(&["tree", "--bare"]).await.ok();
    assert_eq!((all.matches("  id: ").count(), all.matches("  name: dns\n").count()), (2, 2), "{all}");
}

#[tokio::test]
async fn what_is_bad_is_shown_alone() {
    let mock = web().await;
    assert_eq!(mock.run(&["tree", "--bad"]).await.ok(), "nothing is bad\n");
    mock.world.explain("app", ProvisioningStatus::Error, "OVN is away");
    let wanted = "\
load balancer web  10.0.1.100  ACTIVE NO_MONITOR
└─ pool app  TCP UNSPECIFIED  ERROR NO_MONITOR  OVN is away

bad: 1 of 1 pools
";
    assert_eq!(mock.run(&["tree", "web", "--bad"]).await.ok(), wanted);
}

#[tokio::test]
async fn one_resource_that_is_printed_can_be_applied() {
    let mock = web().await;
    for (resource, name) in [
        ("lb", "web"),
        ("listener", "http"),
        ("pool", "app"),
        ("hc", "ping"),
        ("backend", "web/app/10.0.1.11:8080"),
    ] {
        let printed = mock.run(&[resource, "get", name, "-o", "yaml"]).await.ok();
        let before = mock.world.writes();
        let ran = apply(&mock, &printed, &["--wait"]).await;
        assert!(ran.err.starts_with("unchanged "), "{ran:?}");
        assert_eq!(mock.world.writes(), before);
    }
    let printed = mock.run(&["backend", "get", "web/app/10.0.1.11:8080", "-o", "yaml"]).await.ok();
    let edited = printed.replace("weight: 3", "weight: 0");
    assert!(
        apply(&mock, &edited, &["--dry-run"]).await.err.starts_with("dry run, nothing is written: updated")
    );
    let ran = apply(&mock, &edited, &["--wait"]).await;
    assert_eq!(ran.err, "updated backend 10.0.1.11:8080\n");
    assert_eq!(mock.world.last_request()["updateMask"], "weight");
    assert_eq!(mock.world.last_request()["etag"], "e1");
    mock.run(&["backend", "delete", "web/app/10.0.1.11:8080", "--wait"]).await.ok();
    assert_eq!(apply(&mock, &edited, &[]).await.err, "created backend 10.0.1.11:8080\n");
}

#[tokio::test]
async fn nothing_is_sent_of_a_file_with_an_error() {
    let mock = Mock::start().await;
    let text = format!("{TREE}---\nload_balancer: {{name: b}}\nlisteners: [{{prot: 80}}]\n");
    let lines = apply(&mock, &text, &[]).await.failed(2);
    assert_eq!(lines, ["error: -: document 2: listeners[0].prot: unknown key; did you mean port?"]);
    assert_eq!(mock.world.writes(), 0);
    let lines = apply(&mock, "load_balancer: [", &[]).await.failed(2);
    assert!(lines[0].starts_with("error: -: "), "{lines:?}");
    let lines = mock.run(&["apply", "-f", "/nonexistent/file"]).await.failed(2);
    assert!(lines[0].contains("/nonexistent/file"), "{lines:?}");
}

#[tokio::test]
async fn a_dry_run_says_so_and_several_documents_are_applied_in_turn() {
    let mock = Mock::start().await;
    let said = apply(&mock, TREE, &["--dry-run", "--wait"]).await.ok();
    assert!(said.starts_with("dry run, nothing is written: created 5,"), "{said}");
    assert_eq!(mock.run(&["tree"]).await.ok(), "no load balancers\n");
    apply(&mock, &format!("{TREE}---\n{}", TREE.replace("name: web", "name: two")), &[]).await.ok();
    let names = mock.run(&["lb", "list", "-o", "json"]).await.json();
    assert_eq!(names.as_array().unwrap().len(), 2);
    let listed = mock.run(&["lb", "list", "-o", "yaml"]).await.ok();
    let said = apply(&mock, &listed, &["-o", "yaml"]).await.ok();
    assert_eq!(said.matches("---\n").count(), 2, "{said}");
}

#[tokio::test]
async fn wait_ends_when_all_is_in_force() {
    let mock = Mock::start().await;
    mock.world.hold();
    let applied = apply(&mock, TREE, &["--wait", "-o", "json"]);
    let settled = async {
        mock.world.watched(1).await;
        mock.world.settle();
    };
    let (applied, ()) = tokio::join!(applied, settled);
    let answer = applied.json();
    assert_eq!(answer["tree"]["load_balancer"]["state"]["provisioning_status"], "PROVISIONING_STATUS_ACTIVE");

    let waiting = mock.run(&["lb", "delete", "web", "--cascade", "--wait"]);
    let settled = async {
        mock.world.watched(2).await;
        assert!(mock.run(&["tree", "web"]).await.ok().contains("PENDING_DELETE"));
        mock.world.settle();
    };
    let (waited, ()) = tokio::join!(waiting, settled);
    assert!(waited.ok().ends_with("load balancer web deleted\n"));
}

#[tokio::test]
async fn wait_says_why_and_runs_out_of_time_with_3() {
    let mock = web().await;
    mock.world.hold();
    let waiting =
        mock.run(&["pool", "update", "app", "--algorithm", "source-ip", "--wait=2500ms", "-o", "json"]);
    let explained = async {
        mock.world.watched(1).await;
        mock.world.explain("app", ProvisioningStatus::Error, "OVN is\u{1b} away");
    };
    let (waited, ()) = tokio::join!(waiting, explained);
    let reason = "pool app is not active yet: ERROR: OVN is\\u{1b} away";
    assert!(waited.err.contains(&format!("waiting: {reason}\n")), "{waited:?}");
    assert!(waited.err.ends_with(&format!("error: {reason}\n")), "{waited:?}");
    assert_eq!(waited.code, 3);
    let shown: serde_json::Value = serde_json::from_str(&waited.out).unwrap();
    assert_eq!(shown["algorithm"], "ALGORITHM_SOURCE_IP");
}

#[tokio::test]
async fn watch_shows_a_line_for_each_event() {
    let mock = web().await;
    for (format, synced, updated) in [
        ("table", "SYNCED", "UPDATED   load balancer web  "),
        ("json", r#"{"type":"TYPE_SYNCED"}"#, r#"{"type":"TYPE_UPDATED","load_balancer":{"#),
    ] {
        let mut child = mock.command(&["watch", "web", "-o", format]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        // Reads on in a thread of its own while the server goes on in this one.
        let (snapshot, mut lines) = tokio::task::spawn_blocking(move || {
            let mut seen = 0;
            while !lines.next().unwrap().contains(synced) {
                seen += 1;
            }
            (seen, lines)
        })
        .await
        .unwrap();
        assert_eq!(snapshot, 6);
        mock.run(&["lb", "update", "web", "--description", format]).await.ok();
        let line = tokio::task::spawn_blocking(move || lines.next().unwrap()).await.unwrap();
        assert!(line.contains(updated), "{line}");
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[tokio::test]
async fn names_cannot_steer_a_terminal() {
    let mock = Mock::start().await;
    mock.run(&["lb", "create", "--network", "n", "--name", "a\u{1b}[2J\u{9b}\u{202e}\n"]).await.ok();
    let id = mock.run(&["lb", "list", "-o", "json"]).await.json()[0]["id"].as_str().unwrap().to_owned();
    for args in [
        vec!["lb", "list"],
        vec!["lb", "get", &id],
        vec!["lb", "get", &id, "-o", "json"],
        vec!["lb", "get", &id, "-o", "yaml"],
        vec!["tree"],
    ] {
        let out = mock.run(&args).await.ok();
        for c in ['\u{1b}', '\u{9b}', '\u{202e}'] {
            assert!(!out.contains(c), "{args:?}: {out:?}");
        }
    }
    let name = mock.run(&["lb", "get", &id, "-o", "json"]).await.json()["name"].clone();
    assert_eq!(name, json!("a\u{1b}[2J\u{9b}\u{202e}\n"));
}
