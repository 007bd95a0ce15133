//! `node` and `health`.

use fiberlb_proto::v1::{Node, NodeStatus, NodeVerdict};
use serde_json::json;

use crate::mock::{Mock, bare, finish};

#[tokio::test]
async fn nodes_are_listed() {
    let mock = Mock::start().await;
    assert_eq!(mock.run(&["node", "list"]).await.ok(), "no proxy node has ever connected\n");
    assert_eq!(mock.run(&["node", "list", "-o", "json"]).await.json(), json!([]));
    let node = |id: &str, status: NodeStatus| Node {
        id: id.to_owned(),
        status: status.into(),
        networks: 3,
        ..Default::default()
    };
    mock.world.set_nodes(vec![node("n1", NodeStatus::Alive), node("n2", NodeStatus::Dead)]);
    let table = mock.run(&["node", "ls"]).await.ok();
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0][..6], ["ID", "STATUS", "DUTY", "ZONE", "CHASSIS", "NETWORKS"]);
    assert_eq!(rows[0][6..], ["LISTENERS", "CONNECTIONS", "SINCE", "REASON"]);
    assert_eq!((&rows[1][..2], &rows[2][..2]), (&["n1", "ALIVE"][..], &["n2", "DEAD"][..]));
    assert!(mock.run(&["node", "list", "--color", "always"]).await.ok().contains("\u{1b}[32mALIVE"));
    let json = mock.run(&["nodes", "list", "-o", "json"]).await.json();
    assert_eq!(json[1], json!({"id": "n2", "status": "NODE_STATUS_DEAD", "networks": 3}));
    let yaml = mock.run(&["node", "list", "-o", "yaml"]).await.ok();
    assert!(yaml.contains("status: NODE_STATUS_ALIVE"), "{yaml}");
}

#[tokio::test]
async fn a_node_is_cordoned_drained_and_removed() {
    let mock = Mock::start().await;
    let alive =
        Node { id: "n1".to_owned(), status: NodeStatus::Alive.into(), networks: 2, ..Default::default() };
    let alive = Node { capabilities: ["tcp", "udp"].map(str::to_owned).into(), ..alive };
    let stuck =
        Node { id: "n2".to_owned(), waiting_for: "no other node may take it".to_owned(), ..alive.clone() };
    let dead = Node { id: "n3".to_owned(), status: NodeStatus::Dead.into(), ..alive.clone() };
    mock.world.set_nodes(vec![alive, stuck, dead]);
    let shown = mock.run(&["node", "cordon", "n1"]).await.ok();
    assert!(shown.lines().any(|line| line == "duty               CORDONED"), "{shown}");
    assert!(shown.lines().any(|line| line == "capabilities       tcp, udp"), "{shown}");
    assert!(mock.run(&["node", "uncordon", "n1", "-o", "json"]).await.json().get("cordoned").is_none());

    let drained = mock.run(&["node", "drain", "n1", "--wait=1m"]).await.ok();
    assert!(drained.lines().any(|line| line == "duty               DRAINED"), "{drained}");
    let lines = mock.run(&["node", "drain", "n2", "--wait=1500ms"]).await.failed(3);
    let all = lines.join("\n");
    assert!(all.contains("waiting: n2: 2 networks left, 2 of them not taken over yet"), "{all}");
    assert!(all.contains("error: no other node may take it"), "{all}");
    assert_eq!(mock.run(&["node", "show", "n2", "-o", "json"]).await.json()["draining"], json!(true));

    assert_eq!(mock.run(&["node", "remove", "n3"]).await.ok(), "n3 removed\n");
    assert_eq!(mock.run(&["node", "rm", "n2"]).await.failed(1), ["error: refused: node n2 is connected"]);
    assert_eq!(mock.run(&["node", "show", "n3"]).await.failed(1), ["error: not found: there is no node n3"]);
}

#[tokio::test]
async fn the_health_of_a_backend_is_shown_by_id_and_by_name() {
    let mock = Mock::start().await;
    for args in [
        "lb create --name web --network tenant-a",
        "pool create --load-balancer web --name app --protocol tcp",
        "backend create --pool web/app --address 10.0.1.11 --port 8080",
    ] {
        mock.run(&args.split(' ').collect::<Vec<_>>()).await.ok();
    }
    let shown = mock.run(&["health", "show", "web/app/10.0.1.11:8080"]).await.ok();
    assert!(shown.starts_with("backend           web/app/10.0.1.11:8080\n"), "{shown}");
    assert!(shown.ends_with("\n\nno node has a verdict on it\n"), "{shown}");
    let reason = "connection refused".to_owned();
    let verdict = NodeVerdict { node_id: "n1".to_owned(), reason, ..NodeVerdict::default() };
    mock.world.set_verdicts(vec![verdict]);
    let json = mock.run(&["health", "show", "web/app/10.0.1.11:8080", "-o", "json"]).await.json();
    let id = json["backend_id"].as_str().unwrap();
    assert_eq!(
        json,
        json!({
            "backend_id": id,
            "operating_status": "OPERATING_STATUS_OFFLINE",
            "reason": "connection refused",
            "verdicts": [{"node_id": "n1", "reason": "connection refused"}]
        })
    );
    let shown = mock.run(&["health", "show", id]).await.ok();
    assert!(shown.lines().any(|line| line == "operating_status  OFFLINE"), "{shown}");
    assert!(shown.ends_with("n1    -            DOWN     -      connection refused\n"), "{shown}");
    let lines = mock.run(&["health", "show", "nope"]).await.failed(1);
    assert!(lines[0].starts_with("error: no backend has the name \"nope\""), "{lines:?}");
}

#[tokio::test]
async fn they_are_in_the_help_and_in_completions() {
    for (args, words) in [
        (&["node", "list", "--help"][..], &["Examples:\n  fiberlb node list", "SILENT"][..]),
        (&["node", "drain", "--help"][..], &["--wait", "fleet.drain_s"][..]),
        (&["health", "show", "--help"][..], &["Examples:\n  fiberlb health show", "DEGRADED"][..]),
        (&["completions", "bash"][..], &["node", "health"][..]),
        (&["listener", "create", "--help"][..], &["--exposure", "--connection-limit", "--datapath"][..]),
    ] {
        let said = finish(bare(args)).await.ok();
        assert!(words.iter().all(|word| said.contains(word)), "{args:?}: {said}");
    }
    for args in [
        &["node"][..],
        &["health"][..],
        &["health", "show"][..],
        &["node", "list", "x"][..],
        &["node", "drain"][..],
    ] {
        assert_eq!(finish(bare(args)).await.code, 2, "{args:?}");
    }
}
