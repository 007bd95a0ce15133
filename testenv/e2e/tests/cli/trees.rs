//! Whole trees: `apply`, `tree`, `watch`, and what `--wait` waits for.

use std::process::Stdio;

use fiberlb_lab::{Central, Stop, can_run};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

use crate::fiberlb::command;
use crate::site::Site;

const WEB: &str = "
load_balancer: {name: web, network: sw0, vip_address: 10.0.0.100}
listeners:
  - {name: front, protocol: TCP, port: 80, default_pool_id: app}
pools:
  - pool: {name: app, protocol: TCP, algorithm: ROUND_ROBIN}
    backends:
      - {address: 10.0.0.1, port: 8080}
      - {address: 10.0.0.2, port: 8080, weight: 2}
";

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_is_applied_drawn_edited_and_applied_again() {
    if !can_run("a_tree_is_applied_drawn_edited_and_applied_again") {
        return;
    }
    let site = Site::start("cli-trees").await;
    let path = site.file("web.yaml", WEB);
    let said = site.run(&format!("apply -f {} --dry-run", path.display())).await.ok();
    assert!(said.starts_with("dry run, nothing is written: created 5,"), "{said}");
    assert_eq!(site.run("tree").await.ok(), "no load balancers\n");

    let said = site.run(&format!("apply -f {} --wait", path.display())).await.ok();
    let (counts, drawn) = said.split_once('\n').unwrap();
    assert_eq!(counts, "created 5, updated 0, deleted 0, unchanged 0");
    let wanted = "\
load balancer web  10.0.0.100  ACTIVE ONLINE
├─ listener front  TCP 80  → pool app  by OVN  ACTIVE ONLINE
└─ pool app  TCP ROUND_ROBIN  ACTIVE ONLINE
   ├─ backend 10.0.0.1:8080  weight 1  ACTIVE NO_MONITOR
   └─ backend 10.0.0.2:8080  weight 2  ACTIVE NO_MONITOR
";
    assert_eq!(drawn, wanted);
    assert_eq!(site.run("tree web").await.ok(), wanted);
    let vips = site.vips().await;
    let backends: Vec<&str> = vips.split_once('=').unwrap().1.split(',').collect();
    assert_eq!(backends.iter().filter(|backend| **backend == "10.0.0.2:8080").count(), 2, "{vips}");

    for format in ["yaml", "json"] {
        let printed = site.run(&format!("tree web -o {format}")).await.ok();
        let said = site.apply(&printed, &["--wait"]).await.ok();
        assert!(said.starts_with("created 0, updated 0, deleted 0, unchanged 5\n"), "{said}");
    }
    let edited = site.run("tree web -o yaml").await.ok().replace("weight: 2", "weight: 0");
    let said = site.apply(&edited, &["--wait", "-o", "json"]).await.json();
    assert_eq!((&said["updated"], &said["unchanged"]), (&1.into(), &4.into()), "{said}");
    assert_eq!(site.vips().await, "10.0.0.100:80=10.0.0.1:8080");
    site.lab.close().unwrap();
}

/// A tree in which little is left to defaults.
const FULL: &str = "
load_balancer: {name: full, description: all of it, tags: [a, b], network: sw0, vip_address: 10.0.0.101}
listeners:
  - {protocol: TCP, port: 80, default_pool_id: app, datapath: PROXY, connection_limit: 7, client_data_timeout: 1500ms}
  - {name: two, protocol: HTTPS, port: 443, default_pool_id: app, allowed_cidrs: [10.0.0.0/8], bandwidth_limit: 4096,
     half_close_timeout: 20s}
  - {protocol: UDP, port: 53, admin_state_up: false}
pools:
  - pool:
      {name: app, protocol: TCP, algorithm: RANDOM, session_persistence: {type: SOURCE_IP}, drain_timeout: 0s,
       passive_health_check: {}, queue_limit: 9, slow_start: 30s}
    backends:
      - {name: one, address: 10.0.0.1, port: 8080, weight: 0, monitor_port: 8081}
      - {address: 10.0.0.2, port: 8080, backup: true, connection_limit: 5}
    health_check: {type: HTTP, delay: 2s, rise: 4, http_path: /healthy, http_host: web}
  - pool: {name: dns, protocol: UDP}
    health_check: {type: TCP, delay: 10s, timeout: 6s}
";

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_tree_that_is_applied_again_changes_nothing() {
    if !can_run("a_bare_tree_that_is_applied_again_changes_nothing") {
        return;
    }
    let site = Site::start("cli-bare").await;
    site.apply(FULL, &[]).await.ok();
    site.run("pool create --lb full --protocol sctp").await.ok();
    let bare = site.run("tree full --bare").await.ok();
    let ids: Vec<&str> = bare.lines().filter(|line| line.trim_start().starts_with("id: ")).collect();
    assert_eq!(ids.len(), 1, "only the pool without a name needs its id:\n{bare}");
    let has = |key: &str| bare.lines().any(|line| line.trim_start_matches([' ', '-']).starts_with(key));
    for absent in
        ["state:", "etag:", "project_id:", "pool_id: 0", "timeout: 5", "algorithm: ROUND", "http_method:"]
    {
        assert!(!has(absent), "{absent} in:\n{bare}");
    }
    let said = site.apply(&bare, &[]).await.ok();
    assert!(said.starts_with("created 0, updated 0, deleted 0, unchanged 11\n"), "{said}");
    assert_eq!(site.run("tree full --bare").await.ok(), bare);
    let all = site.run("tree --bare -o json").await.ok();
    let said = site.apply(&all, &["--dry-run"]).await.ok();
    assert!(said.contains("created 0, updated 0, deleted 0, unchanged 11\n"), "{said}");
    site.lab.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_and_folders_are_compared_applied_and_deleted() {
    if !can_run("files_and_folders_are_compared_applied_and_deleted") {
        return;
    }
    let site = Site::start("cli-files").await;
    let web = site.file("web.yaml", WEB).display().to_string();
    let dns = site.file("dns.yml", "load_balancer: {name: dns, network: sw0}\n").display().to_string();
    site.file("README", "no document");
    let all = std::path::Path::new(&web).parent().unwrap().display().to_string();
    let lines = site.run(&format!("apply {all}/none {web}")).await.failed(2);
    assert!(lines[0].contains("none: No such file"), "{lines:?}");

    let said = site.run(&format!("diff -f {web}")).await;
    let created = "+ load balancer web\n+ listener front\n+ pool app\n+ backend 10.0.0.1:8080\n+ backend 10.0.0.2:8080\n";
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (4, created, ""));
    site.run(&format!("apply -f {web} {dns} --wait=online,30s")).await.ok();
    assert_eq!(site.run(&format!("diff {web}")).await.ok(), "nothing would change\n");
    site.run("wait web --timeout 30s").await.ok();

    let other =
        WEB.replace("weight: 2", "weight: 3").replace("      - {address: 10.0.0.1, port: 8080}\n", "");
    let other = site.file("web.yaml", &other).display().to_string();
    let said = site.run(&format!("apply --diff --dry-run {other}")).await;
    let changes = "~ backend 10.0.0.2:8080\n    weight: 2 -> 3\n- backend 10.0.0.1:8080\n";
    assert!(said.code == 4 && said.out.starts_with(changes) && said.err.is_empty(), "{said:?}");
    let found = site.run(&format!("diff {other} -o json")).await;
    let found: Value = serde_json::from_str(&found.out).unwrap();
    assert_eq!(found[0]["fields"], serde_json::json!([{"field": "weight", "old": "2", "new": "3"}]));
    assert_eq!((&found[1]["action"], &found[1]["name"]), (&"delete".into(), &"10.0.0.1:8080".into()));

    let said = site.run(&format!("apply {other} --wait")).await.ok();
    let deleted = "created 0, updated 1, deleted 1, unchanged 3\n- backend 10.0.0.1:8080\n";
    assert!(said.starts_with(deleted), "{said}");
    assert!(
        site.run(&format!("apply --diff --dry-run {other}")).await.ok().starts_with("nothing would change")
    );

    let said = site.run(&format!("delete -f {web} {dns} --wait")).await.ok();
    assert!(said.contains("load balancer web") && said.contains("load balancer dns"), "{said}");
    assert_eq!(site.run("lb list").await.ok(), "nothing found\n");
    let again = site.run(&format!("delete -f {web}")).await;
    assert_eq!((again.code, again.err.as_str()), (0, "load balancer web is not there\n"));
    site.lab.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_is_too_short_says_for_what_and_ends_with_3() {
    if !can_run("a_wait_that_is_too_short_says_for_what_and_ends_with_3") {
        return;
    }
    let site = Site::start("cli-wait").await;
    site.apply(WEB, &["--wait"]).await.ok();
    site.lab.stop(Central::Northbound, Stop::Kill).await.unwrap();
    let ran = site.run("listener update front --disable --wait=1500ms").await;
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(
        ran.err.lines().all(|line| line.contains("listener front") && line.contains("northbound")),
        "{ran:?}"
    );
    assert!(ran.out.contains("PENDING_UPDATE"), "{ran:?}");
    site.lab.restart(Central::Northbound).await.unwrap();
    site.run("listener update front --enable --wait").await.ok();
    assert!(site.vips().await.starts_with("10.0.0.100:80="));
    site.lab.close().unwrap();
}

/// A `fiberlb watch` that runs.
struct Watch {
    lines: Lines<BufReader<ChildStdout>>,
    // Killed when dropped.
    _child: Child,
}

impl Watch {
    fn start(site: &Site, args: &[&str]) -> Self {
        let mut command = command(&site.plugin.url(), &[&["watch"], args].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { lines, _child: child }
    }

    /// Reads on to a line; returns the number of those before it.
    async fn until(&mut self, what: &str, is_it: impl Fn(&str) -> bool) -> usize {
        let found = async {
            let mut before = 0;
            while !is_it(&self.lines.next_line().await.unwrap().expect("the watch ended")) {
                before += 1;
            }
            before
        };
        let found = tokio::time::timeout(std::time::Duration::from_secs(60), found).await;
        found.unwrap_or_else(|_| panic!("not seen: {what}"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_shows_what_is_there_and_each_change() {
    if !can_run("a_watch_shows_what_is_there_and_each_change") {
        return;
    }
    let site = Site::start("cli-watch").await;
    site.apply(WEB, &["--wait"]).await.ok();
    let mut table = Watch::start(&site, &[]);
    let mut json = Watch::start(&site, &["web", "-o", "json"]);
    assert_eq!(table.until("the end of what is there", |line| line.contains("SYNCED")).await, 5);
    assert_eq!(json.until("the end of what is there", |line| line.contains("TYPE_SYNCED")).await, 5);

    site.run("backend update web/app/10.0.0.1:8080 --weight 7").await.ok();
    table.until("the update", |line| line.contains("  UPDATED  ") && line.contains("10.0.0.1:8080")).await;
    let is_in_force = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap();
        let backend = &event["backend"];
        event["type"] == "TYPE_UPDATED"
            && backend["weight"] == 7
            && backend["state"]["provisioning_status"] == "PROVISIONING_STATUS_ACTIVE"
            && backend["state"]["observed_generation"] == backend["state"]["generation"]
    };
    json.until("the update in force", is_in_force).await;
    site.run("lb delete web --cascade").await.ok();
    let is_gone = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap();
        event["type"] == "TYPE_DELETED" && event["load_balancer"]["name"] == "web"
    };
    json.until("the end of the load balancer", is_gone).await;
    site.lab.close().unwrap();
}
