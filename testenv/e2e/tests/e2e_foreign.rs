//! Foreign rows stay as they are: rows of others, and those of another installation of FiberLB.

#![cfg(test)] // for clippy: helpers of tests are tests too

mod common;
#[path = "common/rows.rs"]
mod rows;

use std::collections::{BTreeMap, BTreeSet};

use fiberlb_lab::{Lab, can_run};
use fiberlb_proto::v1;
use serde_json::{Value, json};
use tonic::Code;

use common::{Tenant, add_network, tree, until};
use rows::rows;

/// The tables in which FiberLB has rows, or refers to its own.
const TABLES: [&str; 6] = [
    "Load_Balancer",
    "Load_Balancer_Group",
    "Logical_Switch",
    "Logical_Router",
    "Logical_Switch_Port",
    "Logical_Router_Port",
];

type Rows = BTreeMap<String, Value>;

/// Owner of one of our rows, by our keys; a group carries it as its name.
fn owner(row: &Value) -> Option<&str> {
    let ids = &row["external_ids"];
    let owner = ids.get("fiberlb:owner").or_else(|| ids.get("fiberlb:shared"));
    let text = owner.unwrap_or(&row["name"]).as_str()?;
    text.strip_prefix("fiberlb/")?.split('/').next()
}

/// All rows in the tables of [`TABLES`].
async fn all_rows(lab: &Lab) -> Rows {
    let mut all = Rows::new();
    for table in TABLES {
        all.extend(rows(lab, table).await);
    }
    all
}

/// The rows of others, without our rows' ids in the columns that may refer to them.
async fn foreign(lab: &Lab) -> Rows {
    let (ours, mut others): (Rows, Rows) =
        all_rows(lab).await.into_iter().partition(|(_, row)| owner(row).is_some());
    for row in others.values_mut() {
        for column in ["load_balancer_group", "ports"] {
            if let Some(ids) = row.get_mut(column) {
                let theirs = elements(ids).into_iter().filter(|id| !ours.contains_key(id));
                *ids = theirs.collect::<BTreeSet<String>>().into_iter().collect();
            }
        }
    }
    others
}

fn elements(set: &Value) -> Vec<String> {
    let elements = set.as_array().map_or(std::slice::from_ref(set), Vec::as_slice);
    elements.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Our rows, by installation.
async fn installations(lab: &Lab) -> BTreeMap<String, Rows> {
    let mut found: BTreeMap<String, Rows> = BTreeMap::new();
    for (id, row) in all_rows(lab).await {
        if let Some(owner) = owner(&row).map(str::to_owned) {
            found.entry(owner).or_default().insert(id, row);
        }
    }
    found
}

/// A cloud that has things of its own on the very networks that tenants balance on.
async fn seed(lab: &Lab) {
    lab.add_router("lr0").await.unwrap();
    lab.attach_router("lr0", "sw0", &["10.0.0.254/24"]).await.unwrap();
    let lines: [&[&str]; 6] = [
        &["lsp-add", "sw0", "theirs", "--", "lsp-set-addresses", "theirs", "02:00:00:00:00:01 10.0.0.9"],
        &["lb-add", "theirs", "10.0.0.90:80", "10.0.0.9:80", "--", "ls-lb-add", "sw0", "theirs"],
        &["set", "Load_Balancer", "theirs", "external_ids:owner=neutron"],
        &["lb-add", "unowned", "10.0.0.91:80", "10.0.0.9:80", "--", "lr-lb-add", "lr0", "unowned"],
        &[
            "--id=@g",
            "create",
            "Load_Balancer_Group",
            "name=theirs",
            "--",
            "add",
            "Logical_Switch",
            "sw1",
            "load_balancer_group",
            "@g",
        ],
        &[
            "lr-add",
            "elsewhere",
            "--",
            "lrp-add",
            "elsewhere",
            "elsewhere-port",
            "02:00:00:00:00:02",
            "10.9.0.1/24",
        ],
    ];
    for line in lines {
        lab.nbctl(line).await.unwrap();
    }
    // northd writes some columns of its own: not while we compare.
    lab.nbctl(&["--wait=sb", "sync"]).await.unwrap();
}

async fn delete(tenant: &Tenant, tree: &v1::LoadBalancerTree) {
    let id = tree.load_balancer.as_ref().unwrap().id.clone();
    let request = v1::DeleteLoadBalancerRequest { id: id.clone(), cascade: true, ..Default::default() };
    tenant.client.clone().delete_load_balancer(request).await.unwrap();
    until("the end of a load balancer", async || {
        let gone =
            tenant.client.clone().get_load_balancer(v1::GetLoadBalancerRequest { id: id.clone() }).await;
        gone.is_err_and(|status| status.code() == Code::NotFound).then_some(())
    })
    .await;
}

async fn listed(tenant: &Tenant) -> BTreeSet<String> {
    let request = v1::ListLoadBalancersRequest::default();
    let listed = tenant.client.clone().list_load_balancers(request).await.unwrap().into_inner();
    listed.load_balancers.into_iter().map(|it| it.name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_rows_and_other_installations_are_left_alone() {
    if !can_run("foreign_rows_and_other_installations_are_left_alone") {
        return;
    }
    let lab = Lab::start("foreign").await.unwrap();
    let routed = add_network(&lab, "sw0", &[]).await;
    let alone = add_network(&lab, "sw1", &[]).await;
    seed(&lab).await;
    let before = foreign(&lab).await;
    assert!(before.len() >= 10, "{before:?}");

    let (one, two) = (Tenant::start(&lab).await, Tenant::start(&lab).await);
    let backends = ["10.0.0.1:8080", "10.0.0.2:8080"];
    let mut ones = one.apply(tree("one", routed, "10.0.0.101", &backends)).await;
    let ones_alone = one.apply(tree("one-alone", alone, "10.1.0.101", &backends)).await;
    let twos = two.apply(tree("two", routed, "10.0.0.102", &backends)).await;
    let twos_alone = two.apply(tree("two-alone", alone, "10.1.0.102", &backends)).await;
    assert_eq!(foreign(&lab).await, before, "after creates");

    let taken = tree("thief", routed, "10.0.0.101", &backends);
    let request = v1::ApplyLoadBalancerRequest { tree: Some(taken), ..Default::default() };
    let refused = two.client.clone().apply_load_balancer(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused}");
    assert_eq!(listed(&one).await, ["one", "one-alone"].map(str::to_owned).into());
    assert_eq!(listed(&two).await, ["two", "two-alone"].map(str::to_owned).into());

    let installed = installations(&lab).await;
    assert_eq!(installed.len(), 2);
    let is_two = |rows: &Rows| rows.values().any(|row| row["name"] == "two");
    let (id_of_two, rows_of_two) = installed.iter().find(|(_, rows)| is_two(rows)).unwrap();
    let quiet = two.plugin.northbound_transactions().await.unwrap();
    ones.pools[0].backends.truncate(1);
    ones = one.apply(ones).await;
    assert_eq!(foreign(&lab).await, before, "after an update");
    for tree in [&ones, &ones_alone] {
        delete(&one, tree).await;
    }
    let left = installations(&lab).await;
    assert_eq!(left.keys().collect::<Vec<_>>(), [id_of_two], "something of the first is left");
    assert_eq!(&left[id_of_two], rows_of_two, "the second's rows changed");
    assert_eq!(two.plugin.northbound_transactions().await.unwrap(), quiet);

    for tree in [&twos, &twos_alone] {
        delete(&two, tree).await;
    }
    until("the end of all our rows", async || installations(&lab).await.is_empty().then_some(())).await;
    let after = foreign(&lab).await;
    assert_eq!(after, before, "after deletes");
    let router = after.values().find(|row| row["name"] == "lr0").unwrap();
    assert_eq!(router["load_balancer_group"], json!([]));
    lab.close().unwrap();
}

/// Number of groups that the switch or router of a name refers to.
async fn groups(lab: &Lab, table: &str, name: &str) -> usize {
    let rows = rows(lab, table).await;
    let row = rows.values().find(|row| row["name"] == name).unwrap();
    elements(&row["load_balancer_group"]).len()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_routers_share_as_their_way_out_has_no_tenants_rows() {
    if !can_run("what_routers_share_as_their_way_out_has_no_tenants_rows") {
        return;
    }
    let lab = Lab::start("way-out").await.unwrap();
    let network = add_network(&lab, "sw0", &[]).await;
    lab.add_switch("sibling", &[]).await.unwrap();
    lab.add_switch("provider", &[]).await.unwrap();
    lab.add_router("lr0").await.unwrap();
    for (switch, address) in
        [("sw0", "10.0.0.254/24"), ("sibling", "10.2.0.254/24"), ("provider", "203.0.113.1/24")]
    {
        lab.attach_router("lr0", switch, &[address]).await.unwrap();
    }
    let tenant = Tenant::start(&lab).await;
    let tree = tenant.apply(tree("one", network, "10.0.0.101", &["10.0.0.1:8080"])).await;
    // Nothing says yet that it is a way out.
    assert_eq!(groups(&lab, "Logical_Switch", "provider").await, 1);

    lab.nbctl(&["lrp-set-gateway-chassis", "lr0-provider", "chassis-1", "20"]).await.unwrap();
    until("the end of the row on the provider's switch", async || {
        (groups(&lab, "Logical_Switch", "provider").await == 0).then_some(())
    })
    .await;
    for (table, name) in [("Logical_Switch", "sw0"), ("Logical_Switch", "sibling"), ("Logical_Router", "lr0")]
    {
        assert_eq!(groups(&lab, table, name).await, 1, "{name}");
    }
    delete(&tenant, &tree).await;
    lab.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_of_neutron_has_its_subnet_by_dhcp_and_no_external_port() {
    if !can_run("a_network_of_neutron_has_its_subnet_by_dhcp_and_no_external_port") {
        return;
    }
    let lab = Lab::start("neutron-rows").await.unwrap();
    // In Neutron it is a UUID.
    let id = "4a1d";
    let network = add_network(&lab, &format!("neutron-{id}"), &[]).await;
    let switch = network.to_string();
    lab.nbctl(&["set", "Logical_Switch", &switch, "external_ids:neutron\\:network_name=tenant"])
        .await
        .unwrap();
    let tenant = Tenant::start(&lab).await;
    let mut wanted = tree("web", network, "", &["10.0.0.1:8080"]);
    let request = || v1::ApplyLoadBalancerRequest { tree: Some(wanted.clone()), ..Default::default() };
    until("the refusal of a network without a subnet", async || {
        let refused = tenant.client.clone().apply_load_balancer(request()).await.unwrap_err();
        (refused.code() == Code::FailedPrecondition).then_some(())
    })
    .await;

    let ids = format!("external_ids:neutron\\:network_id={id}");
    let subnet = ["create", "DHCP_Options", "cidr=10.0.0.0/24", "options:router=10.0.0.254", &ids];
    lab.nbctl(&subnet).await.unwrap();
    let made =
        until("the subnet", async || tenant.client.clone().apply_load_balancer(request()).await.ok()).await;
    let root = made.into_inner().tree.unwrap().load_balancer.unwrap();
    assert_eq!(root.vip_address, "10.0.0.253", "the gateway is none");
    let made = tenant.active(&root.id).await;
    let ports = rows(&lab, "Logical_Switch_Port").await;
    assert!(ports.values().all(|port| port["type"] != "external"), "{ports:?}");
    let channel = tenant.plugin.channel().unwrap();
    let mut operator = v1::ovn_service_client::OvnServiceClient::new(channel);
    let verified = operator.verify_ovn(v1::VerifyOvnRequest {}).await.unwrap().into_inner();
    assert_eq!(verified.differences, []);
    assert!(verified.lacking.iter().any(|note| note.contains("Neutron port")), "{verified:?}");
    wanted.load_balancer.as_mut().unwrap().vip_address = "10.0.0.254".to_owned();
    wanted.load_balancer.as_mut().unwrap().name = "gateway".to_owned();
    let request = v1::ApplyLoadBalancerRequest { tree: Some(wanted), ..Default::default() };
    let refused = tenant.client.clone().apply_load_balancer(request).await.unwrap_err();
    assert!(refused.message().contains("gateway"), "{refused}");
    delete(&tenant, &made).await;
    lab.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_of_others_are_neither_chosen_nor_accepted() {
    if !can_run("addresses_of_others_are_neither_chosen_nor_accepted") {
        return;
    }
    let lab = Lab::start("addresses").await.unwrap();
    let network =
        add_network(&lab, "sw0", &[("subnet", "10.0.0.0/24"), ("exclude_ips", "10.0.0.200..10.0.0.253")])
            .await;
    lab.add_switch("sw1", &[]).await.unwrap();
    lab.add_router("r0").await.unwrap();
    lab.attach_router("r0", "sw0", &["10.0.0.1/24"]).await.unwrap();
    lab.attach_router("r0", "sw1", &["10.1.0.1/24"]).await.unwrap();
    for arguments in [
        "lsp-add sw0 vrrp -- lsp-set-type vrrp virtual -- lsp-set-options vrrp virtual-ip=10.0.0.254 virtual-parents=vm",
        "lsp-add sw0 vm -- lsp-set-port-security vm",
        "lr-nat-add r0 snat 10.0.0.198 10.1.0.0/24",
        "lb-add theirs 10.0.0.197:80 10.0.0.9:80 -- ls-lb-add sw1 theirs",
        "lsp-add sw1 neutron -- set Logical_Switch_Port neutron external_ids:neutron\\:cidrs=10.0.0.196/24",
    ] {
        let mut words: Vec<&str> = arguments.split(' ').collect();
        if arguments.ends_with("lsp-set-port-security vm") {
            words.push("0a:00:00:00:00:01 10.0.0.199");
        }
        lab.nbctl(&words).await.unwrap();
    }
    let tenant = Tenant::start(&lab).await;
    // Set apart for whoever gives addresses out by hand.
    tenant.apply(tree("by-hand", network, "10.0.0.250", &[])).await;
    let chosen = tenant.apply(tree("chosen", network, "", &[])).await;
    assert_eq!(chosen.load_balancer.unwrap().vip_address, "10.0.0.195", "the highest that nobody uses");
    for (address, holder) in [
        ("10.0.0.254", "\"vrrp\""),
        ("10.0.0.199", "\"vm\""),
        ("10.0.0.198", "a NAT of logical router"),
        ("10.0.0.197", "load balancer \"theirs\""),
        ("10.0.0.196", "\"neutron\""),
    ] {
        let request = v1::ApplyLoadBalancerRequest {
            tree: Some(tree("given", network, address, &[])),
            ..Default::default()
        };
        let error = tenant.client.clone().apply_load_balancer(request).await.unwrap_err();
        let text = error.message();
        assert!(text.contains("is in use by") && text.contains(holder), "{address}: {text}");
    }
    drop(tenant);
    lab.close().unwrap();
}
