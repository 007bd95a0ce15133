//! The five verbs on the five resources.

use fiberlb_lab::can_run;
use serde_json::{Value, json};

use crate::site::Site;

/// A load balancer "web" with a child of each kind, in force.
const CREATES: [&str; 6] = [
    "lb create --name web --network sw0 --vip-address 10.0.0.100 --tag prod",
    "pool create --load-balancer web --name app --protocol tcp",
    "backend create --pool web/app --name b1 --address 10.0.0.1 --port 8080",
    "backend create --pool web/app --address 10.0.0.2 --port 8080",
    "healthcheck create --pool app --name ping --type tcp --delay 1s --timeout 1s",
    "listener create --lb web --name front --protocol tcp --port 80 --default-pool app",
];

/// Each resource with a name, a name that says where it is, a change, and the field that shows it.
const RESOURCES: [(&str, &str, &str, &str, &str); 5] = [
    ("loadbalancer", "web", "web", "--description changed", "description"),
    ("pool", "app", "web/app", "--name changed", "name"),
    ("backend", "b1", "web/changed/10.0.0.1:8080", "--name changed", "name"),
    ("healthcheck", "ping", "web/changed/ping", "--name changed", "name"),
    ("listener", "front", "web/front", "--name changed", "name"),
];

/// Specification of a resource, without the fields that the server sets.
fn spec(mut resource: Value) -> Value {
    resource.as_object_mut().unwrap().remove("state").unwrap();
    resource
}

#[tokio::test(flavor = "multi_thread")]
async fn all_five_resources_live_from_create_to_delete() {
    if !can_run("all_five_resources_live_from_create_to_delete") {
        return;
    }
    let site = Site::start("cli-resources").await;
    for create in CREATES {
        let said = site.run(&format!("{create} --wait")).await.ok();
        // As a list: the headings and one row.
        assert!(
            said.starts_with("NAME ") && said.lines().count() == 2 && said.contains(" ACTIVE "),
            "{said}"
        );
    }
    // No node is there to check: after delay and timeout the backends are in rotation all the same.
    site.until_vips("10.0.0.100:80=10.0.0.1:8080,10.0.0.2:8080").await;

    for (resource, name, path, change, field) in RESOURCES {
        let got = site.run(&format!("{resource} get {name} -o json")).await.json();
        let id = got["id"].as_str().unwrap();
        let by_id = site.run(&format!("{resource} get {id} -o json")).await.json();
        assert_eq!(spec(by_id), spec(got.clone()));
        let listed = site.run(&format!("{resource} list --name {name} -o json")).await.json();
        let specs: Vec<Value> = listed.as_array().unwrap().iter().cloned().map(spec).collect();
        assert_eq!(specs, [spec(got.clone())]);

        let table = site.run(&format!("{resource} list -o wide")).await.ok();
        assert!(table.lines().any(|line| line.starts_with(name) && line.contains(id)), "{table}");
        assert_eq!(table.contains("sw0"), resource == "loadbalancer", "the network by its name: {table}");
        let details = site.run(&format!("{resource} get {name}")).await.ok();
        let beside = if resource == "loadbalancer" { " (sw0)" } else { " (web" };
        assert!(details.contains(beside), "ids with their names: {details}");
        let yaml = site.run(&format!("{resource} get {name} -o yaml")).await.ok();
        assert!(yaml.lines().any(|line| line == format!("name: {name}")), "{yaml}");
        let again = site.apply(&yaml, &["--wait"]).await;
        assert!(again.err.starts_with("unchanged "), "{again:?}");

        let changed = site.run(&format!("{resource} update {path} {change} --wait -o json")).await.json();
        assert_eq!((&changed["id"], &changed[field]), (&json!(id), &json!("changed")));
        assert_eq!(changed["state"]["generation"], "2", "{changed}");
    }
    site.run("backend update web/changed/10.0.0.2:8080 --weight 0 --wait").await.ok();
    assert_eq!(site.vips().await, "10.0.0.100:80=10.0.0.1:8080");

    let by_id = site.run("listener get changed -o json").await.json()["id"].as_str().unwrap().to_owned();
    for delete in [
        format!("listener delete {by_id}"),
        "healthcheck delete web/changed/changed".to_owned(),
        "backend delete changed web/changed/10.0.0.2:8080".to_owned(),
        "pool delete changed".to_owned(),
        "lb delete web".to_owned(),
    ] {
        let said = site.run(&format!("{delete} --wait")).await.ok();
        assert!(said.lines().all(|line| line.ends_with(" deleted")), "{said}");
    }
    for (resource, ..) in RESOURCES {
        assert_eq!(site.run(&format!("{resource} list")).await.ok(), "nothing found\n");
        assert_eq!(site.run(&format!("{resource} list -o json")).await.json(), json!([]));
    }
    assert_eq!(site.vips().await, "");
    site.lab.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_several_are_refused_and_paths_and_ids_tell_them_apart() {
    if !can_run("names_of_several_are_refused_and_paths_and_ids_tell_them_apart") {
        return;
    }
    let site = Site::start("cli-names").await;
    let mut ids = Vec::new();
    for name in ["one", "two"] {
        site.run(&format!("lb create --name {name} --network sw0")).await.ok();
        let made =
            site.run(&format!("pool create --lb {name} --name app --protocol udp -o json")).await.json();
        ids.push(made["id"].as_str().unwrap().to_owned());
    }
    let lines = site.run("pool update app --algorithm source_ip").await.failed(1);
    assert!(lines[0].contains("\"app\" is ambiguous: 2 pools"), "{lines:?}");
    assert!(ids.iter().all(|id| lines.iter().any(|line| line.contains(id.as_str()))), "{lines:?}");
    assert_eq!(site.run("pool get two/app -o json").await.json()["id"], ids[1]);
    site.run(&format!("pool update {} --name own", ids[0])).await.ok();
    assert_eq!(site.run("pool get app -o json").await.json()["id"], ids[1]);

    let lines = site.run("lb delete one").await.failed(1);
    assert!(lines[0].starts_with("error: refused: "), "{lines:?}");
    site.run("lb delete one two --cascade --wait").await.ok();
    assert_eq!(site.run("lb list").await.ok(), "nothing found\n");
    site.lab.close().unwrap();
}
