//! The five verbs on all resources, names, lists and errors.

use std::io::{Read as _, Write as _};

use serde_json::json;

use crate::mock::{Mock, bare, finish};

/// A load balancer "web" with pool "app", its backend and its listener.
async fn web() -> Mock {
    let mock = Mock::start().await;
    for args in [
        "lb create --name web --network tenant-a",
        "pool create --load-balancer web --name app --protocol tcp",
        "backend create --pool web/app --address 10.0.1.11 --port 8080 --weight 3",
        "listener create --lb web --name http --protocol tcp --port 80 --default-pool app",
    ] {
        mock.run(&args.split(' ').collect::<Vec<_>>()).await.ok();
    }
    mock
}

#[tokio::test]
async fn every_resource_is_created_shown_listed_changed_and_deleted() {
    let mock = Mock::start().await;
    let cases = [
        ("loadbalancer", "--network n --vip-address 10.0.0.9 --additional-vip fd00::9", "--description new"),
        ("pool", "--load-balancer x --protocol TCP --algorithm least-connections", "--algorithm source_ip"),
        ("listener", "--load-balancer x --protocol udp --port 53 --default-pool x", "--connection-limit -1"),
        ("backend", "--pool x --address fd00::1 --port 80 --backup", "--weight 0 --backup=false"),
        ("healthcheck", "--pool x --type http --timeout 500ms --call-timeout 9s", "--timeout 2s --disable"),
    ];
    for (resource, flags, change) in cases {
        let run = async |verb: &str, flags: &str| {
            let args = format!("{resource} {verb} {flags} -o json").replace("  ", " ");
            mock.run(&args.split(' ').collect::<Vec<_>>()).await
        };
        let created = run("create", &format!("--name x --tag a --tag b {flags}")).await.json();
        assert_eq!((&created["name"], &created["tags"]), (&json!("x"), &json!(["a", "b"])), "{created}");
        assert_eq!(run("get", "x").await.json(), created);
        assert_eq!(run("show", created["id"].as_str().unwrap()).await.json(), created);
        assert_eq!(run("ls", "--tag b").await.json(), json!([created]));
        assert_eq!(run("list", "--tag none").await.json(), json!([]));
        let updated = run("update", &format!("x {change} --etag e1")).await.json();
        assert_eq!(updated["state"]["generation"], "2", "{updated}");
    }
    for (resource, _, _) in cases.into_iter().rev() {
        let said = mock.run(&[resource, "rm", "x", "--wait"]).await.ok();
        assert!(said.ends_with("x deleted\n"), "{said}");
        assert_eq!(mock.run(&[resource, "list"]).await.ok(), "nothing found\n");
    }
}

#[tokio::test]
async fn a_write_shows_what_is_there_now_as_a_list_does() {
    let mock = web().await;
    let run = async |args: &str| mock.run(&args.split(' ').collect::<Vec<_>>()).await.ok();
    for write in [
        "backend update web/app/10.0.1.11:8080 --weight 5",
        "backend update web/app/10.0.1.11:8080 --weight 6 --wait",
    ] {
        let said = run(write).await;
        assert_eq!(said, run("backend list").await);
        assert_eq!(said.lines().count(), 2, "{said}");
    }
    let said = run("backend create --pool app --address 10.0.1.12 --port 80").await;
    assert!(
        said.starts_with("NAME ") && said.lines().count() == 2 && said.contains("10.0.1.12:80"),
        "{said}"
    );
    assert!(
        run("backend get web/app/10.0.1.11:8080").await.lines().any(|line| line == "weight               6")
    );
}

#[tokio::test]
async fn what_is_typed_arrives() {
    let mock = web().await;
    mock.run(&["lb", "create", "--network", "n", "--request-id", "r1", "--disable"]).await.ok();
    assert_eq!(
        mock.world.last_request(),
        json!({"loadBalancer": {"network": "n", "adminStateUp": false}, "requestId": "r1"})
    );
    let args = "listener create --lb web --protocol TERMINATED_HTTPS --port 443 --client-data-timeout 1.5s \
                    --insert-header X-Forwarded-For --tls-version 1.3 --tls-version TLSv1.2 --hsts-max-age 1h \
                    --allowed-cidr 10.0.0.0/8 --id 018f3c2e-7a4b-7c1d-9e2f-0123456789ab";
    let refused = mock.run(&args.split_whitespace().collect::<Vec<_>>()).await.failed(1);
    assert_eq!(refused, ["error: not supported by this server: TERMINATED_HTTPS is not supported yet"]);
    let mut sent = mock.world.last_request()["listener"].clone();
    sent.as_object_mut().unwrap().remove("loadBalancerId").unwrap();
    assert_eq!(
        sent,
        json!({
            "id": "018f3c2e-7a4b-7c1d-9e2f-0123456789ab",
            "protocol": "LISTENER_PROTOCOL_TERMINATED_HTTPS",
            "port": 443,
            "clientDataTimeout": "1.500s",
            "allowedCidrs": ["10.0.0.0/8"],
            "insertHeaders": {"xForwardedFor": true},
            "tls": {"versions": ["TLS_VERSION_1_3", "TLS_VERSION_1_2"], "hsts": {"maxAge": "3600s"}}
        })
    );
}

#[tokio::test]
async fn an_update_touches_what_is_given_and_nothing_else() {
    let mock = web().await;
    let sent = async |args: &str| {
        mock.run(&args.split(' ').collect::<Vec<_>>()).await.ok();
        let mut sent = mock.world.last_request();
        for resource in ["pool", "listener", "backend"] {
            if let Some(fields) = sent.get_mut(resource) {
                fields.as_object_mut().unwrap().remove("id").unwrap();
            }
        }
        sent
    };
    assert_eq!(
        sent("backend update web/app/10.0.1.11:8080 --weight 0").await,
        json!({"backend": {"weight": 0}, "updateMask": "weight"})
    );
    assert_eq!(
        sent("pool update app --session-persistence source_ip --tag a").await["pool"],
        json!({"tags": ["a"], "sessionPersistence": {"type": "SESSION_PERSISTENCE_TYPE_SOURCE_IP"}})
    );
    // A part of a message: the rest is kept, and guarded by the etag that it was read with.
    assert_eq!(
        sent("pool update web/app --persistence-timeout 5m").await,
        json!({
            "pool": {"sessionPersistence": {"type": "SESSION_PERSISTENCE_TYPE_SOURCE_IP", "timeout": "300s"}},
            "updateMask": "sessionPersistence",
            "etag": "e2"
        })
    );
    assert_eq!(
        sent("pool update app --clear session-persistence --clear tag").await,
        json!({"pool": {}, "updateMask": "sessionPersistence,tags"})
    );
    assert_eq!(
        sent("listener update http --clear default-pool --admin-state DOWN").await,
        json!({"listener": {"adminStateUp": false}, "updateMask": "adminStateUp,defaultPoolId"})
    );
    assert!(
        sent("listener update web/http --default-pool web/app").await["listener"]["defaultPoolId"]
            .is_string()
    );
    let stale = mock.run(&["pool", "update", "app", "--name", "b", "--etag", "e1"]).await.failed(1);
    assert_eq!(stale, ["error: refused: it was written since it had this etag"]);
}

#[tokio::test]
async fn names_that_several_have_are_refused_with_the_candidates() {
    let mock = web().await;
    mock.run(&["lb", "create", "--name", "other", "--network", "n"]).await.ok();
    mock.run(&["pool", "create", "--lb", "other", "--name", "app", "--protocol", "tcp"]).await.ok();
    let before = mock.world.writes();
    let lines = mock.run(&["pool", "update", "app", "--name", "x"]).await.failed(1);
    assert_eq!(lines[0], "error: \"app\" is ambiguous: 2 pools have this name; give the id of one");
    assert_eq!(lines.iter().filter(|line| line.starts_with("error: candidate: 0")).count(), 2, "{lines:?}");
    assert_eq!(mock.world.writes(), before);
    mock.run(&["pool", "get", "other/app"]).await.ok();
    let lines = mock.run(&["listener", "update", "http", "--default-pool", "nope"]).await.failed(1);
    assert!(lines[0].starts_with("error: --default-pool: no pool has the name \"nope\""), "{lines:?}");
    let lines = mock.run(&["backend", "get", "web/nope/10.0.1.11:8080"]).await.failed(1);
    assert!(
        lines[0].starts_with("error: backend \"web/nope/10.0.1.11:8080\": no pool has the name \"web/nope\""),
        "{lines:?}"
    );
    let lines = mock.run(&["lb", "delete", "other", "misspelt", "--cascade"]).await.failed(1);
    assert!(lines[0].starts_with("error: no load balancer has the name \"misspelt\""), "{lines:?}");
    mock.run(&["lb", "get", "other"]).await.ok();
}

#[tokio::test]
async fn a_dry_run_of_a_write_shows_its_outcome_and_writes_nothing() {
    let mock = web().await;
    let run = async |line: &str| mock.run(&line.split(' ').collect::<Vec<_>>()).await;
    let before = run("tree web -o json").await.json();
    let made = run("pool create --lb web --name new --protocol tcp --dry-run -o json").await.json();
    assert_eq!(made["name"], "new");
    let changed =
        run("backend update web/app/10.0.1.11:8080 --weight 7 --dry-run --wait -o json").await.json();
    assert_eq!(changed["weight"], 7);
    let wrong = run("backend update web/app/10.0.1.11:8080 --weight 300 --dry-run").await.failed(1);
    assert_eq!(wrong, ["error: --weight: must be 0 to 256"]);
    let gone = run("lb delete web --cascade --dry-run").await.ok();
    assert!(gone.ends_with(" would be deleted\n"), "{gone}");
    let refused = run("lb delete web --dry-run").await.failed(1);
    assert!(refused[0].contains("refused: it has children"), "{refused:?}");
    assert_eq!(run("tree web -o json").await.json(), before);
}

#[tokio::test]
async fn what_is_missing_is_ignored_on_demand() {
    let mock = web().await;
    let run = async |line: &str| mock.run(&line.split(' ').collect::<Vec<_>>()).await;
    let missing = ["misspelt", "018f3c2e-7a4b-7c1d-9e2f-0123456789ab"];
    for line in [format!("lb delete {}", missing[0]), format!("lb delete {}", missing[1])] {
        run(&line).await.failed(1);
        assert_eq!(run(&format!("{line} --ignore-missing")).await.ok(), "");
    }
    assert_eq!(run("backend delete web/nope/10.0.1.11:8080 --ignore-missing").await.ok(), "");
    let both = run("backend delete web/app/nope web/app/10.0.1.11:8080 --ignore-missing").await.ok();
    assert!(both.contains("10.0.1.11:8080") && both.lines().count() == 1, "{both}");
    run("backend get web/app/10.0.1.11:8080").await.failed(1);
}

#[tokio::test]
async fn all_pages_are_read_unless_limited() {
    let mock = Mock::start().await;
    for name in ["a", "b", "c", "d", "e"] {
        mock.run(&["lb", "create", "--name", name, "--network", "n"]).await.ok();
    }
    let count = async |args: &[&str]| mock.run(args).await.json().as_array().unwrap().len();
    assert_eq!(count(&["lb", "list", "-o", "json"]).await, 5);
    assert_eq!(count(&["lb", "list", "-o", "json", "--limit", "3"]).await, 3);
    assert_eq!(count(&["lb", "list", "-o", "json", "--page-size", "1", "--status", "active"]).await, 5);
    assert_eq!(count(&["lb", "list", "-o", "json", "--status", "error"]).await, 0);
    let table = mock.run(&["lb", "list"]).await.ok();
    assert_eq!(table.lines().count(), 6);
    assert!(table.starts_with("NAME ") && !table.contains('\u{1b}'), "{table}");
    assert!(mock.run(&["lb", "list", "--color", "always"]).await.ok().contains('\u{1b}'));
}

#[tokio::test]
async fn violations_name_the_flags() {
    let mock = web().await;
    let name = "x".repeat(256);
    let address = ["--address", "10.0.1.13", "--port", "1", "--weight", "300", "--name", &name];
    let args = [&["backend", "create", "--pool", "web/app"][..], &address].concat();
    let lines = mock.run(&args).await.failed(1);
    assert_eq!(lines, ["error: --weight: must be 0 to 256", "error: --name: at most 255 characters"]);
    let lines = mock.run(&["lb", "delete", "web"]).await.failed(1);
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains("refused: it has children"), "{lines:?}");
    let lines = mock.run(&["lb", "get", "018f3c2e-7a4b-7c1d-9e2f-0123456789ab"]).await.failed(1);
    assert!(lines[0].contains("not found"), "{lines:?}");
}

#[tokio::test]
async fn what_cannot_be_right_ends_with_2() {
    for args in [
        "lb frobnicate",
        "lb create",
        "lb update web",
        "listener create --lb web --protocol TPC --port 80",
        "listener create --lb web --protocol tcp --port 80 --client-data-timeout 5",
        "lb create --network n --enable --disable",
        "lb list --limit 0",
        "lb delete a b --etag x",
        "lb list --endpoint ftp://x",
        "lb list --endpoint https://127.0.0.1:1",
        "lb list --client-cert /nonexistent",
        "lb create --network n --wait=soon",
        "pool update a --tag x --clear tag",
    ] {
        let mock = Mock::start().await;
        let ran = mock.run(&args.split(' ').collect::<Vec<_>>()).await;
        assert_eq!(ran.code, 2, "{args}: {ran:?}");
        assert!(!ran.err.is_empty(), "{args}");
    }
}

#[tokio::test]
async fn nobody_there_is_said_with_what_to_do() {
    let lines = finish(bare(&["lb", "list", "--endpoint", "127.0.0.1:1"])).await.failed(1);
    assert!(
        lines[0].starts_with("error: cannot reach the FiberLB plugin at http://127.0.0.1:1 ("),
        "{lines:?}"
    );
    assert!(lines[0].contains("check that it is running and that its API is there, or set"), "{lines:?}");
    // A port that is not the API's, such as that of metrics.
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = other.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        while let Ok((mut peer, _)) = other.accept() {
            let mut preface = [0; 24];
            let _ignored = peer.read_exact(&mut preface);
            let _ignored = peer.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let lines = finish(bare(&["lb", "list", "--endpoint", &endpoint])).await.failed(1);
    assert!(lines.len() == 1 && lines[0].contains("that its API is there, or set --endpoint"), "{lines:?}");
}

#[tokio::test]
async fn what_is_typed_wrong_is_said_in_plain_words() {
    let mock = web().await;
    let before = mock.world.writes();
    let listener = "listener create --lb web --protocol tcp --port";
    for (typed, said) in [
        ("lb delete web --wait 30s".to_owned(), "error: --wait 30s: write --wait=30s"),
        (
            "lb update web --disable --wait online,5m".to_owned(),
            "error: --wait online,5m: write --wait=online,5m",
        ),
        (
            format!("{listener} http"),
            "error: invalid value 'http' for '--port <PORT>': must be a number, 1 to 65535",
        ),
        (
            format!("{listener} -1"),
            "error: invalid value '-1' for '--port <PORT>': must be a number, 1 to 65535",
        ),
        (
            format!("{listener} 80 --connection-rate -1"),
            "error: invalid value '-1' for '--connection-rate <N>': must be a whole number of at least 0",
        ),
        (
            "lb create --network n --name a/b".to_owned(),
            "error: invalid value 'a/b' for '--name <NAME>': must not contain '/'",
        ),
        (
            "pool update app --name ".to_owned(),
            "error: invalid value '' for '--name <NAME>': must not be blank: leave the flag out",
        ),
    ] {
        let lines = mock.run(&typed.split(' ').collect::<Vec<_>>()).await.failed(2);
        assert!(lines[0].starts_with(said), "{typed}: {lines:?}");
    }
    assert_eq!(mock.world.writes(), before);
    for (typed, tip) in [("lb delete --all", None), ("lb list --limt 1", Some("--limit"))] {
        let text = mock.run(&typed.split(' ').collect::<Vec<_>>()).await.failed(2).join("\n");
        assert!(text.contains("unexpected argument"), "{text}");
        assert_eq!(text.contains("similar argument"), tip.is_some(), "{text}");
        assert!(!text.contains("timeout"), "{text}");
        assert!(tip.is_none_or(|tip| text.contains(tip)), "{text}");
    }
}

#[tokio::test]
async fn a_second_resource_of_a_name_is_noted() {
    let mock = web().await;
    let made = mock.run(&["lb", "create", "--name", "web", "--network", "n", "-o", "json"]).await;
    let id = made.out.parse::<serde_json::Value>().unwrap()["id"].as_str().unwrap().to_owned();
    assert!(made.err.starts_with(r#"note: another load balancer has the name "web", too"#), "{made:?}");
    assert!(made.err.contains(&id), "{made:?}");
    let pool = ["pool", "create", "--lb", &id, "--protocol", "tcp", "--name", "app"];
    assert_eq!(mock.run(&pool).await.err, "", "the other pool of the name is another load balancer's");
    assert!(mock.run(&pool).await.err.starts_with("note: another pool has the name"));
}

#[tokio::test]
async fn what_needs_no_server_asks_none() {
    let version = finish(bare(&["version"])).await.ok();
    assert_eq!(version, concat!("fiberlb ", env!("CARGO_PKG_VERSION"), "\n"));
    let version = finish(bare(&["version", "-o", "json"])).await.json();
    assert_eq!(version, serde_json::json!({"version": env!("CARGO_PKG_VERSION")}));
    assert!(finish(bare(&["health", "show", "--help"])).await.ok().contains("LEFT OUT UNTIL: "));
    for shell in ["bash", "zsh", "fish"] {
        assert!(finish(bare(&["completions", shell])).await.ok().contains("healthcheck"), "{shell}");
    }
    let help = finish(bare(&["--help"])).await.ok();
    for word in ["Exit codes", "Examples:", "FIBERLB_ENDPOINT", "apply", "healthcheck"] {
        assert!(help.contains(word), "{word} in {help}");
    }
    for resource in ["lb", "listener", "pool", "member", "hc"] {
        for verb in ["create", "get", "describe", "list", "update", "delete"] {
            let help = finish(bare(&[resource, verb, "--help"])).await.ok();
            assert!(help.contains("Examples:\n  fiberlb"), "{help}");
        }
    }
}
