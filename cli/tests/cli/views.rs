//! Tables and other views of resources, references to them, and waits.

use serde_json::json;

use crate::mock::{Mock, Ran};

/// Two load balancers; the listener and the health check of one have no names.
async fn site() -> Mock {
    let mock = Mock::start().await;
    for args in [
        "lb create --name web --network tenant-a",
        "lb create --name dns --network tenant-a",
        "pool create --lb web --name app --protocol tcp",
        "backend create --pool web/app --address 10.0.1.11 --port 8080 --weight 3",
        "backend create --pool web/app --address 10.0.1.12 --port 8080 --weight 20",
        "hc create --pool web/app --type tcp",
        "listener create --lb web --protocol tcp --port 80 --default-pool app",
        "listener create --lb dns --name 80 --protocol udp --port 53",
    ] {
        run(&mock, args).await.ok();
    }
    mock
}

async fn run(mock: &Mock, args: &str) -> Ran {
    mock.run(&args.split(' ').collect::<Vec<_>>()).await
}

/// References to all resources of a kind.
async fn names_of(mock: &Mock, kind: &str) -> Vec<String> {
    run(mock, &format!("{kind} ls -o name")).await.ok().lines().map(str::to_owned).collect()
}

/// Rows of a table, by their cells.
fn rows(table: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| {
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
    };
    table.lines().map(cells).collect()
}

#[tokio::test]
async fn tables_show_names_and_wide_ones_ids() {
    let mock = site().await;
    let listeners = rows(&run(&mock, "listener ls --sort-by port").await.ok());
    assert_eq!(listeners[0][..4], ["NAME", "LOAD BALANCER", "PROTOCOL", "PORT"]);
    assert_eq!(listeners[1][..4], ["80", "dns", "UDP", "53"]);
    assert_eq!(listeners[2][..5], ["-", "web", "TCP", "80", "app"]);
    let backends = rows(&run(&mock, "backend ls --sort-by weight").await.ok());
    assert_eq!(backends[0][..4], ["NAME", "POOL", "ADDRESS", "WEIGHT"]);
    assert_eq!(backends[1][..4], ["-", "web/app", "10.0.1.11:8080", "3"]);
    let id = run(&mock, "lb get web -o jsonpath={.id}").await.ok();
    assert!(!run(&mock, "lb ls").await.ok().contains(id.trim()));
    let wide = run(&mock, "lb ls -o wide").await.ok();
    assert!(wide.contains(id.trim()) && wide.contains("tenant-a"), "{wide}");
}

#[tokio::test]
async fn traffic_of_one_load_balancer_and_of_all() {
    let mock = site().await;
    let all = rows(&run(&mock, "stats").await.ok());
    assert_eq!(all[0][..4], ["LISTENER", "CARRIER", "ACTIVE", "CONNECTIONS"]);
    assert_eq!(all[1][..4], ["web/tcp:80", "PROXY", "0", "80"]);
    assert_eq!(all[2][..4], ["dns/80", "PROXY", "0", "53"]);
    assert_eq!(rows(&run(&mock, "stats dns").await.ok()).len(), 2);
    let web = rows(&run(&mock, "stats web").await.ok());
    let subjects = [3, 4, 5].map(|row: usize| web[row][0].as_str());
    assert_eq!(subjects, ["POOL, BACKEND", "web/app", "web/app/10.0.1.11:8080"]);
    assert_eq!(run(&mock, "stats web -o jsonpath={.traffic.connections_total}").await.ok(), "80\n");
    assert_eq!(run(&mock, "stats -o json").await.json().as_array().map(Vec::len), Some(2));
    run(&mock, "stats nobody").await.failed(1);
    run(&mock, "stats -o wide").await.failed(2);
}

#[tokio::test]
async fn logs_are_lines_and_a_broken_stream_is_opened_again() {
    let mock = site().await;
    let text = run(&mock, "logs web/80 -f -n 3").await;
    let shown = text.out.clone();
    let reasons: Vec<bool> = shown.lines().map(|line| line.contains("  closed  ")).collect();
    assert_eq!(reasons, [true, false, true], "{shown}");
    assert!(text.err.contains("7 connections are left out"), "{}", text.err);
    assert!(text.err.contains("reconnecting: another plugin leads"), "{}", text.err);
    let json = run(&mock, "logs web/80 -n 1 -o json").await.ok();
    assert!(json.lines().count() == 1 && json.contains(r#""reason":"closed""#), "{json}");
    run(&mock, "logs web/99 -n 1").await.failed(1);
    run(&mock, "logs web/80 -n 0").await.failed(2);
}

#[tokio::test]
async fn names_that_are_printed_are_references() {
    let mock = site().await;
    assert_eq!(names_of(&mock, "listener").await, ["web/tcp:80", "dns/80"]);
    assert_eq!(names_of(&mock, "backend").await, ["web/app/10.0.1.11:8080", "web/app/10.0.1.12:8080"]);
    for kind in ["lb", "listener", "pool", "backend", "hc"] {
        for name in names_of(&mock, kind).await {
            run(&mock, &format!("{kind} get {name}")).await.ok();
        }
    }
    let port = async |reference: &str| {
        run(&mock, &format!("listener get {reference} -o json")).await.json()["port"].clone()
    };
    assert_eq!((port("web/80").await, port("web/TCP:80").await), (json!(80), json!(80)));
    // A name goes before a port.
    assert_eq!((port("dns/80").await, port("dns/53").await), (json!(53), json!(53)));
    assert_eq!(run(&mock, "hc get web/app -o json").await.json()["type"], "HEALTH_CHECK_TYPE_TCP");
    run(&mock, "hc delete web/app").await.ok();
    assert_eq!(
        run(&mock, "hc get web/app").await.failed(1),
        [r#"error: pool "web/app" has no health check"#]
    );
}

#[tokio::test]
async fn what_has_no_name_is_called_by_what_tells_it_apart() {
    let mock = site().await;
    let drawn = run(&mock, "tree web").await.ok();
    for line in ["listener tcp:80  → pool app", "health check tcp  "] {
        assert!(drawn.contains(line), "{drawn}");
    }
    assert_eq!(names_of(&mock, "hc").await, ["web/app"]);
    for (args, called) in [
        ("listener delete web/80", "listener web/tcp:80 is being deleted\n"),
        ("hc delete web/app", "health check web/app is being deleted\n"),
    ] {
        assert_eq!(run(&mock, args).await.ok(), called, "{args}");
    }
    run(&mock, "pool create --lb dns --name app --protocol udp").await.ok();
    let lines = run(&mock, "pool get app").await.failed(1);
    assert!(lines[0].contains("2 pools have this name"), "{lines:?}");
    assert!(lines[1].ends_with(" (web/app)") && lines[2].ends_with(" (dns/app)"), "{lines:?}");
}

#[tokio::test]
async fn values_are_selected_and_fields_that_do_not_exist_refused() {
    let mock = site().await;
    let addresses = run(&mock, "backend ls -o jsonpath=$[*].address").await.ok();
    assert_eq!(addresses, "10.0.1.11\n10.0.1.12\n");
    let lines = run(&mock, "backend ls -o jsonpath=$[").await.failed(2);
    assert!(lines[0].contains("is not a JSONPath"), "{lines:?}");
    for order in ["-weight", "weight:desc"] {
        let weights = run(&mock, &format!("backend ls --sort-by {order} -o jsonpath=$[*].weight")).await.ok();
        assert_eq!(weights, "20\n3\n", "{order}");
    }
    let lines = run(&mock, "backend ls --sort-by wieght").await.failed(2);
    assert!(lines[0].contains(r#"has no field "wieght""#), "{lines:?}");
    let lines = run(&mock, "lb ls -o xml").await.failed(2);
    assert!(lines[0].contains("give table, wide, name, json, yaml or jsonpath=PATH"), "{lines:?}");
}

#[tokio::test]
async fn a_format_is_honoured_or_refused() {
    let mock = site().await;
    assert_eq!(run(&mock, "tree -o name").await.ok(), "web\ndns\n");
    assert_eq!(run(&mock, "tree web -o name").await.ok(), "web\n");
    assert_eq!(run(&mock, "node ls -o name").await.ok(), "");
    for (args, takes) in [
        ("tree web --bare -o name", "yaml, json"),
        ("tree web --bad -o json", "table"),
        ("tree web -o wide", "table, name, json"),
        ("node ls -o wide", "table, name, json"),
        ("health show web/app/10.0.1.11:8080 -o name", "table, json"),
        ("watch -o name", "table, wide, json"),
    ] {
        let lines = run(&mock, args).await.failed(2);
        assert!(lines[0].contains(&format!("is not possible here; give {takes}")), "{lines:?}");
    }
}

#[tokio::test]
async fn files_are_deleted_on_trial_and_folders_say_what_they_leave_out() {
    let mock = Mock::start().await;
    let folder = tempfile::TempDir::new().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    std::fs::create_dir(folder.path().join("more")).unwrap();
    for name in ["a", "b"] {
        write(&format!("{name}.yaml"), &format!("load_balancer: {{name: {name}, network: tenant-a}}"));
    }
    let path = folder.path().to_str().unwrap();
    let applied = run(&mock, &format!("apply {path} -o name")).await;
    assert_eq!(
        applied.err,
        format!("{path}/more: a folder within a folder, skipped; name it to have it, too\n")
    );
    assert_eq!(applied.ok(), "a\nb\n");
    let before = mock.world.writes();
    let trial = run(&mock, &format!("delete -f {path} --dry-run -o json")).await;
    assert_eq!(
        trial.err,
        format!(
            "{path}/more: a folder within a folder, skipped; name it to have it, too\ndry run, nothing is deleted\n"
        )
    );
    assert_eq!(trial.json().as_array().map(Vec::len), Some(2));
    let trial = run(&mock, &format!("delete -f {path} --dry-run")).await.ok();
    assert_eq!(trial.lines().filter(|line| line.ends_with("would be deleted")).count(), 2, "{trial}");
    assert_eq!(mock.world.writes(), before);
    let id = "018f3c2e-7a4b-7c1d-9e2f-0123456789ab";
    write("b.yaml", &format!("{{id: {id}, load_balancer_id: {id}, protocol: TCP, port: 0}}"));
    write("c.yaml", "load_balancer: {name: c, network: tenant-a}");
    let lines = run(&mock, &format!("apply -f {path}")).await.failed(1);
    let files = lines.iter().map(|line| line.replace(path, ""));
    let expected = ["error: applied: /a.yaml", "error: not applied: /c.yaml"];
    assert!(expected.iter().all(|line| files.clone().any(|found| found == *line)), "{lines:?}");
}

#[tokio::test]
async fn what_was_waited_for_in_vain_is_applied() {
    let mock = Mock::start().await;
    mock.world.hold();
    let folder = tempfile::TempDir::new().unwrap();
    for name in ["a", "b", "c"] {
        let text = format!("load_balancer: {{name: {name}, network: tenant-a}}");
        std::fs::write(folder.path().join(format!("{name}.yaml")), text).unwrap();
    }
    let path = folder.path().to_str().unwrap();
    let lines = run(&mock, &format!("apply {path} --wait=100ms")).await.failed(3);
    let files: Vec<String> = lines.iter().map(|line| line.replace(path, "")).collect();
    let expected = ["error: applied: /a.yaml", "error: not applied: /b.yaml, /c.yaml"];
    assert!(expected.iter().all(|line| files.iter().any(|found| found.starts_with(line))), "{files:?}");
}

#[tokio::test]
async fn a_status_is_waited_for() {
    let mock = site().await;
    run(&mock, "wait web").await.ok();
    run(&mock, "backend update web/app/10.0.1.11:8080 --weight 9 --wait=online").await.ok();
    run(&mock, "backend update web/app/10.0.1.11:8080 --weight 8 --wait=online,5s").await.ok();
    let late = run(&mock, "wait web --for deleted --timeout 100ms").await.failed(3);
    assert!(late.iter().any(|line| line.contains("load balancer web is not deleted yet")), "{late:?}");
    run(&mock, "lb delete web --cascade").await.ok();
    run(&mock, "wait web --for deleted").await.ok();
    assert!(run(&mock, "wait web").await.failed(1)[0].contains(r#"no load balancer has the name "web""#));
}

#[tokio::test]
async fn help_is_there_however_it_is_asked_for() {
    let mock = Mock::start().await;
    for args in ["help", "help lb create", "lb help create", "lb create --help"] {
        assert!(run(&mock, args).await.ok().contains("Usage: fiberlb"), "{args}");
    }
    assert!(run(&mock, "lb").await.failed(2).iter().any(|line| line.contains("Usage: fiberlb loadbalancer")));
    // The endpoint, which the environment of this run sets, is not required.
    let lines = run(&mock, "lb create").await.failed(2);
    assert!(
        lines.iter().any(|line| line == "Usage: fiberlb loadbalancer create --network <TEXT>"),
        "{lines:?}"
    );
    assert!(!run(&mock, "listener create --help").await.ok().contains("ot supported yet"));
}

#[tokio::test]
async fn what_has_neither_id_nor_name_is_not_deleted_by_chance() {
    let mock = Mock::start().await;
    run(&mock, "lb create --name only --network tenant-a").await.ok();
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("nameless.yaml");
    std::fs::write(&path, "load_balancer: {network: tenant-a, vip_address: 10.0.0.9}").unwrap();
    let before = mock.world.writes();
    let lines = mock.run(&["delete", "-f", path.to_str().unwrap()]).await.failed(2);
    assert!(lines[0].contains("needs the id or the name"), "{lines:?}");
    mock.run(&["wait", ""]).await.failed(2);
    assert_eq!(mock.world.writes(), before);
    run(&mock, "lb get only").await.ok();
}

#[tokio::test]
async fn two_documents_of_one_load_balancer_are_refused_before_anything_is_written() {
    let mock = Mock::start().await;
    let folder = tempfile::TempDir::new().unwrap();
    for (name, text) in [
        ("a.yaml", "load_balancer: {name: web, network: n}"),
        ("b.yaml", "load_balancer: {name: dns, network: n}\n---\nload_balancer: {name: web, network: n}"),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    for verb in ["apply", "diff", "delete"] {
        let lines = mock.run(&[verb, "-f", folder.path().to_str().unwrap()]).await.failed(2);
        let [line] = lines.as_slice() else { panic!("{lines:?}") };
        assert!(line.contains("b.yaml: document 2: load balancer \"web\" is described by"), "{line}");
    }
    assert_eq!(mock.world.writes(), 0);
}
