//! `describe`: fields, what stands below, health and events.

use fiberlb_proto::v1::{Event, NodeVerdict};
use prost_types::Timestamp;

use crate::mock::{Mock, Ran};

async fn run(mock: &Mock, args: &str) -> Ran {
    mock.run(&args.split(' ').collect::<Vec<_>>()).await
}

async fn id(mock: &Mock, resource: &str) -> String {
    run(mock, &format!("{resource} -o jsonpath=$.id")).await.ok().trim().to_owned()
}

/// A load balancer with a checked pool, one of whose two backends is down.
async fn site() -> Mock {
    let mock = Mock::start().await;
    for args in [
        "lb create --name web --network tenant-a",
        "pool create --lb web --name app --protocol tcp",
        "backend create --pool web/app --address 10.0.1.11 --port 8080",
        "backend create --pool web/app --address 10.0.1.12 --port 8080",
        "hc create --pool web/app --type tcp",
        "listener create --lb web --protocol tcp --port 80 --default-pool app",
    ] {
        run(&mock, args).await.ok();
    }
    mock.world.break_down("10.0.1.12", "checked and found down: timed out");
    mock.world.set_verdicts(vec![NodeVerdict {
        node_id: "node-1".to_owned(),
        reason: "timed out".to_owned(),
        ..NodeVerdict::default()
    }]);
    mock
}

fn event(kind: &str, id: &str, name: &str) -> Event {
    Event {
        time: Some(Timestamp { seconds: 3600, nanos: 0 }),
        kind: kind.to_owned(),
        resource_id: id.to_owned(),
        name: name.to_owned(),
        old_operating_status: 1,
        operating_status: 3,
        ..Event::default()
    }
}

#[tokio::test]
async fn a_load_balancer_is_shown_with_all_that_is_known_of_it() {
    let mock = site().await;
    let shown = run(&mock, "describe web").await.ok();
    let sections: Vec<&str> = shown.split("\n\n").collect();
    let [fields, tree, health, events] = sections.as_slice() else { panic!("{shown}") };
    assert!(fields.contains("vip_address") && fields.contains("operating_status"), "{fields}");
    assert!(tree.starts_with("load balancer web  ") && tree.contains("checked and found down"), "{tree}");
    let verdict: Vec<&str> = health.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(verdict, ["10.0.1.12:8080", "node-1", "-", "DOWN", "-", "timed", "out"]);
    assert_eq!(health.lines().count(), 2, "the other backend is well");
    assert_eq!(*events, "no events since the plugin was started, 1970-01-01T00:01:00Z\n");

    mock.world.set_events(vec![event("backend", "b", "10.0.1.12:8080"), event("load balancer", "l", "web")]);
    for args in ["describe web", "describe lb web", "lb describe web"] {
        let shown = run(&mock, args).await.ok();
        let events = shown.rsplit("\n\n").next().unwrap();
        let names: Vec<&str> =
            events.lines().skip(1).map(|line| line[22..].split("  ").next().unwrap()).collect();
        assert_eq!(names, ["backend 10.0.1.12:8080", "load balancer web"], "{shown}");
    }
}

#[tokio::test]
async fn what_stands_below_a_load_balancer_is_shown_with_its_own_events() {
    let mock = site().await;
    let (pool, backend) =
        (id(&mock, "pool get web/app").await, id(&mock, "backend get web/app/10.0.1.12:8080").await);
    mock.world.set_events(vec![
        event("load balancer", &id(&mock, "lb get web").await, "web"),
        event("backend", &backend, "10.0.1.12:8080"),
        event("pool", &pool, "app"),
    ]);
    let shown = run(&mock, "describe pool web/app").await.ok();
    assert!(shown.contains("\n\npool app  TCP") && shown.contains("├─ health check tcp"), "{shown}");
    assert!(shown.contains("  backend 10.0.1.12:8080  ONLINE") && shown.contains("  pool app  "), "{shown}");
    assert!(!shown.contains("load balancer web"), "{shown}");
    let shown = run(&mock, "describe member web/app/10.0.1.12:8080").await.ok();
    assert!(shown.contains("NODE") && shown.contains("backend 10.0.1.12:8080  ONLINE"), "{shown}");
    assert!(!shown.contains("pool app"), "{shown}");
    let shown = run(&mock, "listener describe web/80").await.ok();
    assert!(shown.contains("\n\npool app  TCP") && shown.contains("no events"), "{shown}");
}

#[tokio::test]
async fn what_cannot_be_described_is_refused() {
    let mock = site().await;
    let lines = run(&mock, "describe nothing web").await.failed(2);
    assert_eq!(
        lines,
        [r#"error: "nothing" is not a kind; give loadbalancer, listener, pool, backend, healthcheck"#]
    );
    assert!(run(&mock, "describe nobody").await.failed(1)[0].contains(r#"the name "nobody""#));
    run(&mock, "describe web -o json").await.failed(2);
}
