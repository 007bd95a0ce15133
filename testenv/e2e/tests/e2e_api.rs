//! The API as a client meets it, on a real northbound database.

#![cfg(test)] // for clippy: helpers of tests are tests too

mod common;

use std::process::Command;

use fiberlb_lab::{Lab, can_run};
use fiberlb_proto::v1;
use fiberlb_proto::v1::backend_service_client::BackendServiceClient;
use fiberlb_proto::v1::health_check_service_client::HealthCheckServiceClient;
use fiberlb_proto::v1::listener_service_client::ListenerServiceClient;
use fiberlb_proto::v1::pool_service_client::PoolServiceClient;
use fiberlb_proto::v1::watch_event::{Resource, Type};
use fiberlb_proto::v1::watch_service_client::WatchServiceClient;
use prost_types::FieldMask;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;
use uuid::Uuid;

use common::{Tenant, add_network, tree, until};

const BACKENDS: [&str; 2] = ["10.0.0.1:8080", "10.0.0.2:8080"];

/// A lab's central part with one network, and a plugin on it.
struct Site {
    tenant: Tenant,
    network: Uuid,
    lab: Lab,
}

impl Site {
    async fn start(name: &str) -> Site {
        let lab = Lab::start(name).await.unwrap();
        let network = add_network(&lab, "sw0", &[("subnet", "10.0.0.0/16")]).await;
        let tenant = Tenant::start(&lab).await;
        // Until the database has been seen, a network cannot be checked.
        until("the connection to the database", async || {
            (tenant.plugin.metric("fiberlb_northbound_connected").await.unwrap() > 0.5).then_some(())
        })
        .await;
        Site { tenant, network, lab }
    }

    async fn try_apply(&self, wanted: v1::LoadBalancerTree) -> Result<v1::ApplyLoadBalancerResponse, Status> {
        let request = v1::ApplyLoadBalancerRequest { tree: Some(wanted), ..Default::default() };
        self.tenant.client.clone().apply_load_balancer(request).await.map(tonic::Response::into_inner)
    }

    async fn list(&self, request: v1::ListLoadBalancersRequest) -> v1::ListLoadBalancersResponse {
        self.tenant.client.clone().list_load_balancers(request).await.unwrap().into_inner()
    }
}

/// The fields that a refusal names.
fn fields(refused: &Status) -> Vec<String> {
    let details = refused.get_error_details();
    let wrong = details.bad_request().into_iter().flat_map(|it| &it.field_violations);
    let unmet = details.precondition_failure().into_iter().flat_map(|it| &it.violations);
    wrong.map(|it| it.field.clone()).chain(unmet.map(|it| it.subject.clone())).collect()
}

fn mask(field: &str) -> Option<FieldMask> {
    Some(FieldMask { paths: vec![field.to_owned()] })
}

/// The life of one resource through the five methods of its service: what it lists must be just the one that was made, an
/// update renames it, and after the delete it ends.
macro_rules! five_methods {
    ($client:expr, $kind:ident, $field:ident, $made:expr, parent: $parent:ident, [$create:ident, $get:ident, $list:ident, $update:ident], [$Create:ident, $Get:ident, $List:ident, $Update:ident], $listed:ident) => {{
        let mut client = $client;
        let request = v1::$Create { $field: Some($made), ..Default::default() };
        let made = client.$create(request).await.unwrap().into_inner();
        assert_eq!(made.state.as_ref().unwrap().generation, 1);
        let id = made.id.clone();
        let got = client.$get(v1::$Get { id: id.clone() }).await.unwrap().into_inner();
        assert_eq!(got.id, id);
        let request = v1::$List { $parent: made.$parent.clone(), ..Default::default() };
        let listed = client.$list(request).await.unwrap().into_inner().$listed;
        assert_eq!(listed.iter().map(|it| &it.id).collect::<Vec<_>>(), [&id]);
        let renamed = v1::$kind { id: id.clone(), name: "renamed".to_owned(), ..Default::default() };
        let request = v1::$Update { $field: Some(renamed), update_mask: mask("name"), ..Default::default() };
        let renamed = client.$update(request).await.unwrap().into_inner();
        assert_eq!(renamed.name, "renamed");
        assert_eq!(renamed.state.as_ref().unwrap().generation, 2);
        id
    }};
}

/// Deletes a resource and waits for its end.
macro_rules! ends {
    ($client:expr, $id:expr, [$delete:ident, $get:ident], [$Delete:ident, $Get:ident]) => {{
        let client = $client;
        let request = v1::$Delete { id: $id.clone(), ..Default::default() };
        let deleted = client.clone().$delete(request).await.unwrap().into_inner();
        assert_eq!(deleted.state.unwrap().provisioning_status(), v1::ProvisioningStatus::PendingDelete);
        until("the end of a resource", async || {
            let gone = client.clone().$get(v1::$Get { id: $id.clone() }).await;
            gone.is_err_and(|status| status.code() == Code::NotFound).then_some(())
        })
        .await;
    }};
}

#[tokio::test(flavor = "multi_thread")]
async fn five_services_have_five_methods_each() {
    if !can_run("five_services_have_five_methods_each") {
        return;
    }
    let site = Site::start("api-methods").await;
    let channel = || site.tenant.plugin.channel().unwrap();
    let mut roots = site.tenant.client.clone();
    let (listeners, pools) = (ListenerServiceClient::new(channel()), PoolServiceClient::new(channel()));
    let (backends, checks) = (BackendServiceClient::new(channel()), HealthCheckServiceClient::new(channel()));

    let wanted = tree("lb", site.network, "10.0.1.1", &[]).load_balancer;
    let request = v1::CreateLoadBalancerRequest { load_balancer: wanted, ..Default::default() };
    let root = roots.create_load_balancer(request).await.unwrap().into_inner().id;
    let got = roots.get_load_balancer(v1::GetLoadBalancerRequest { id: root.clone() }).await.unwrap();
    assert_eq!(got.into_inner().vip_address, "10.0.1.1");
    let renamed = v1::LoadBalancer { id: root.clone(), name: "renamed".to_owned(), ..Default::default() };
    let request = v1::UpdateLoadBalancerRequest { load_balancer: Some(renamed), ..Default::default() };
    assert_eq!(roots.update_load_balancer(request).await.unwrap().into_inner().name, "renamed");
    let listed =
        site.list(v1::ListLoadBalancersRequest { name: "renamed".to_owned(), ..Default::default() }).await;
    assert_eq!(listed.load_balancers.len(), 1);

    let made = v1::Pool {
        load_balancer_id: root.clone(),
        protocol: v1::PoolProtocol::Tcp.into(),
        ..Default::default()
    };
    let pool = five_methods!(pools.clone(), Pool, pool, made, parent: load_balancer_id,
        [create_pool, get_pool, list_pools, update_pool],
        [CreatePoolRequest, GetPoolRequest, ListPoolsRequest, UpdatePoolRequest], pools);
    let made =
        v1::Backend { pool_id: pool.clone(), address: "10.0.0.1".to_owned(), port: 80, ..Default::default() };
    let backend = five_methods!(backends.clone(), Backend, backend, made, parent: pool_id,
        [create_backend, get_backend, list_backends, update_backend],
        [CreateBackendRequest, GetBackendRequest, ListBackendsRequest, UpdateBackendRequest], backends);
    let made = v1::HealthCheck {
        pool_id: pool.clone(),
        r#type: v1::HealthCheckType::Tcp.into(),
        delay: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
        ..Default::default()
    };
    let check = five_methods!(checks.clone(), HealthCheck, health_check, made, parent: pool_id,
        [create_health_check, get_health_check, list_health_checks, update_health_check],
        [CreateHealthCheckRequest, GetHealthCheckRequest, ListHealthChecksRequest, UpdateHealthCheckRequest], health_checks);
    let made = v1::Listener {
        load_balancer_id: root.clone(),
        protocol: v1::ListenerProtocol::Tcp.into(),
        port: 80,
        default_pool_id: pool.clone(),
        ..Default::default()
    };
    let listener = five_methods!(listeners.clone(), Listener, listener, made, parent: load_balancer_id,
        [create_listener, get_listener, list_listeners, update_listener],
        [CreateListenerRequest, GetListenerRequest, ListListenersRequest, UpdateListenerRequest], listeners);
    site.tenant.active(&root).await;
    // No node is there to check: after delay and timeout it is in rotation all the same.
    until("a backend that nobody can check in rotation", async || {
        let tree = site.tenant.active(&root).await;
        let state = tree.pools[0].backends[0].state.clone().unwrap();
        let is_in = state.operating_status() == v1::OperatingStatus::NoMonitor;
        (is_in && state.reason.contains("NOT_CHECKED")).then_some(())
    })
    .await;

    ends!(listeners, listener, [delete_listener, get_listener], [DeleteListenerRequest, GetListenerRequest]);
    ends!(
        checks,
        check,
        [delete_health_check, get_health_check],
        [DeleteHealthCheckRequest, GetHealthCheckRequest]
    );
    ends!(backends, backend, [delete_backend, get_backend], [DeleteBackendRequest, GetBackendRequest]);
    ends!(pools, pool, [delete_pool, get_pool], [DeletePoolRequest, GetPoolRequest]);
    ends!(
        roots,
        root,
        [delete_load_balancer, get_load_balancer],
        [DeleteLoadBalancerRequest, GetLoadBalancerRequest]
    );
    site.lab.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_with_all_its_violations_and_nothing_is_stored() {
    if !can_run("bad_input_is_refused_with_all_its_violations_and_nothing_is_stored") {
        return;
    }
    let site = Site::start("api-refused").await;
    let mut wrong = tree("lb", site.network, "10.0.1.1", &BACKENDS);
    wrong.load_balancer.as_mut().unwrap().description = "x".repeat(256);
    wrong.listeners[0].port = 70_000;
    wrong.listeners[0].default_pool_id = "nobody".to_owned();
    wrong.pools[0].backends[0].address = "10.0.0.1.5".to_owned();
    wrong.pools[0].backends[1].weight = Some(257);
    let refused = site.try_apply(wrong).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    let named = fields(&refused);
    for field in [
        "tree.load_balancer.description",
        "tree.listeners[0].port",
        "tree.listeners[0].default_pool_id",
        "tree.pools[0].backends[0].address",
        "tree.pools[0].backends[1].weight",
    ] {
        assert!(named.iter().any(|found| found == field), "{field} is not among {named:?}");
    }

    let mut unsupported = tree("lb", site.network, "10.0.1.1", &BACKENDS);
    unsupported.listeners[0].protocol = v1::ListenerProtocol::Http.into();
    unsupported.listeners[0].insert_headers =
        Some(v1::InsertHeaders { x_forwarded_for: true, ..Default::default() });
    unsupported.pools[0].health_check =
        Some(v1::HealthCheck { r#type: v1::HealthCheckType::Ping.into(), ..Default::default() });
    let refused = site.try_apply(unsupported).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented, "{refused}");
    let mut named = fields(&refused);
    named.sort_unstable();
    let expected =
        ["tree.listeners[0].insert_headers", "tree.listeners[0].protocol", "tree.pools[0].health_check.type"];
    assert_eq!(named, expected);

    let mut malformed = tree("lb", site.network, "10.0.1.1", &BACKENDS);
    malformed.load_balancer.as_mut().unwrap().id = "not-a-uuid".to_owned();
    malformed.listeners[0].port = 0;
    let refused = site.try_apply(malformed).await.unwrap_err();
    assert_eq!(fields(&refused), ["tree.load_balancer.id", "tree.listeners[0].port"], "{refused}");

    let nowhere = site.try_apply(tree("lb", Uuid::from_u128(1), "10.0.1.1", &BACKENDS)).await.unwrap_err();
    assert_eq!(nowhere.code(), Code::FailedPrecondition, "{nowhere}");
    assert_eq!(fields(&nowhere), ["tree.load_balancer.network"], "{nowhere}");
    assert!(site.list(v1::ListLoadBalancersRequest::default()).await.load_balancers.is_empty());
    site.lab.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_are_told_apart_and_repeats_make_nothing_twice() {
    if !can_run("writers_are_told_apart_and_repeats_make_nothing_twice") {
        return;
    }
    let site = Site::start("api-writers").await;
    let mut client = site.tenant.client.clone();
    let create = |name: &str, vip: &str| v1::CreateLoadBalancerRequest {
        load_balancer: tree(name, site.network, vip, &[]).load_balancer,
        request_id: "order-1".to_owned(),
        ..Default::default()
    };
    let made = client.create_load_balancer(create("lb", "10.0.1.1")).await.unwrap().into_inner();
    let again = client.create_load_balancer(create("lb", "10.0.1.1")).await.unwrap().into_inner();
    assert_eq!(made.id, again.id);
    let other = client.create_load_balancer(create("lb", "10.0.1.2")).await.unwrap_err();
    assert_eq!(
        (other.code(), fields(&other)),
        (Code::AlreadyExists, vec!["request_id".to_owned()]),
        "{other}"
    );

    let etag = made.state.unwrap().etag;
    let update = |description: &str| v1::UpdateLoadBalancerRequest {
        load_balancer: Some(v1::LoadBalancer {
            id: made.id.clone(),
            name: "not in the mask".to_owned(),
            description: description.to_owned(),
            ..Default::default()
        }),
        update_mask: mask("description"),
        etag: etag.clone(),
        ..Default::default()
    };
    let first = client.update_load_balancer(update("first")).await.unwrap().into_inner();
    assert_eq!((first.name.as_str(), first.description.as_str()), ("lb", "first"));
    let second = client.update_load_balancer(update("second")).await.unwrap_err();
    assert_eq!(second.code(), Code::FailedPrecondition, "{second}");
    let unknown =
        v1::UpdateLoadBalancerRequest { update_mask: mask("colour"), etag: String::new(), ..update("x") };
    let unknown = client.update_load_balancer(unknown).await.unwrap_err();
    assert_eq!(fields(&unknown), ["update_mask"], "{unknown}");
    let moved =
        v1::LoadBalancer { id: made.id.clone(), vip_address: "10.0.1.9".to_owned(), ..Default::default() };
    let request = v1::UpdateLoadBalancerRequest { load_balancer: Some(moved), ..Default::default() };
    let immutable = client.update_load_balancer(request).await.unwrap_err();
    assert_eq!(fields(&immutable), ["vip_address"], "{immutable}");
    site.lab.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_is_deleted_wholly_or_not_at_all() {
    if !can_run("a_tree_is_deleted_wholly_or_not_at_all") {
        return;
    }
    let site = Site::start("api-cascade").await;
    let stored = site.tenant.apply(tree("lb", site.network, "10.0.1.1", &BACKENDS)).await;
    let again = site.try_apply(tree("lb", site.network, "10.0.1.1", &BACKENDS)).await.unwrap();
    assert_eq!((again.created, again.updated, again.deleted, again.unchanged), (0, 0, 0, 5));
    let id = stored.load_balancer.unwrap().id;
    let delete = |cascade| v1::DeleteLoadBalancerRequest { id: id.clone(), cascade, ..Default::default() };
    let mut client = site.tenant.client.clone();
    let refused = client.delete_load_balancer(delete(false)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    client.delete_load_balancer(delete(true)).await.unwrap();
    let pools = PoolServiceClient::new(site.tenant.plugin.channel().unwrap());
    until("the end of the tree", async || {
        let listed = pools.clone().list_pools(v1::ListPoolsRequest::default()).await.unwrap().into_inner();
        listed.pools.is_empty().then_some(())
    })
    .await;
    let left = site.lab.nbctl(&["--bare", "--columns=name", "list", "Load_Balancer"]).await.unwrap();
    assert_eq!(left.trim(), "");
    site.tenant.apply(tree("heir", site.network, "10.0.1.1", &BACKENDS)).await;
    site.lab.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_cover_everything_once() {
    if !can_run("pages_cover_everything_once") {
        return;
    }
    let site = Site::start("api-pages").await;
    for number in 0..7 {
        let mut wanted = tree(&format!("lb{number}"), site.network, "", &[]);
        wanted.load_balancer.as_mut().unwrap().tags =
            vec![if number < 3 { "low" } else { "high" }.to_owned()];
        site.try_apply(wanted).await.unwrap();
    }
    let (mut names, mut sizes, mut page_token) = (Vec::new(), Vec::new(), String::new());
    loop {
        let request = v1::ListLoadBalancersRequest { page_size: 3, page_token, ..Default::default() };
        let page = site.list(request).await;
        sizes.push(page.load_balancers.len());
        names.extend(page.load_balancers.into_iter().map(|it| it.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    names.sort_unstable();
    assert_eq!(names, (0..7).map(|number| format!("lb{number}")).collect::<Vec<_>>());
    assert_eq!(sizes, [3, 3, 1]);
    let low =
        site.list(v1::ListLoadBalancersRequest { tags: vec!["low".to_owned()], ..Default::default() }).await;
    assert_eq!(low.load_balancers.len(), 3);
    site.lab.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_tells_what_is_and_then_what_changes() {
    if !can_run("a_watch_tells_what_is_and_then_what_changes") {
        return;
    }
    let site = Site::start("api-watch").await;
    let stored = site.tenant.apply(tree("lb", site.network, "10.0.1.1", &BACKENDS)).await;
    let id = stored.load_balancer.unwrap().id;
    let mut watch = WatchServiceClient::new(site.tenant.plugin.channel().unwrap());
    let request = v1::WatchRequest { load_balancer_id: id.clone() };
    let mut events = watch.watch(request).await.unwrap().into_inner();
    let mut snapshot = 0;
    while events.message().await.unwrap().unwrap().r#type() == Type::Snapshot {
        snapshot += 1;
    }
    // The first event that was no part of the snapshot is SYNCED: a load balancer, a listener, a pool, two backends.
    assert_eq!(snapshot, 5);

    let renamed = v1::LoadBalancer { id: id.clone(), name: "renamed".to_owned(), ..Default::default() };
    let request = v1::UpdateLoadBalancerRequest { load_balancer: Some(renamed), ..Default::default() };
    let mut client = site.tenant.client.clone();
    client.update_load_balancer(request).await.unwrap();
    let event = events.message().await.unwrap().unwrap();
    assert_eq!(event.r#type(), Type::Updated);
    assert!(matches!(event.resource, Some(Resource::LoadBalancer(it)) if it.name == "renamed"));

    let request = v1::DeleteLoadBalancerRequest { id: id.clone(), cascade: true, ..Default::default() };
    client.delete_load_balancer(request).await.unwrap();
    let mut deleted = 0;
    while let Some(event) = events.message().await.unwrap() {
        deleted += u32::from(event.r#type() == Type::Deleted);
    }
    assert_eq!(deleted, 5);
    site.lab.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_service_says_serving() {
    if !can_run("the_health_service_says_serving") {
        return;
    }
    let site = Site::start("api-health").await;
    let mut health = HealthClient::new(site.tenant.plugin.channel().unwrap());
    let said = health.check(HealthCheckRequest { service: String::new() }).await.unwrap().into_inner();
    assert_eq!(said.status, i32::from(tonic_health::pb::health_check_response::ServingStatus::Serving));
    site.lab.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_general_client_calls_every_method_through_reflection() {
    let test = "a_general_client_calls_every_method_through_reflection";
    if !can_run(test) {
        return;
    }
    let python = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/python/bin/python");
    let usable = Command::new(python).args(["-c", "import grpc, grpc_reflection"]).output();
    if !usable.is_ok_and(|output| output.status.success()) {
        eprintln!(
            "SKIPPED {test}: no {python} with grpcio-reflection (testenv/install-packages.sh --python makes it)"
        );
        return;
    }
    let site = Site::start("api-reflection").await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reflection.py");
    let address = site.tenant.plugin.url().replace("http://", "");
    let output = Command::new(python).args([script, &address, &site.network.to_string()]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("25 methods"), "{said}{complaint}");
    site.lab.close().unwrap();
}
