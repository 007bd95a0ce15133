//! Creation: parents, ids, repeated calls.

use super::*;
use crate::resources::Kind;
use crate::status::Provisioning;

fn request(id: &str, digest: &str) -> Option<RequestId> {
    Some(RequestId { id: id.to_owned(), digest: digest.to_owned() })
}

#[tokio::test]
async fn a_new_resource_is_pending_and_reads_as_it_was_given() {
    let world = World::new().await;
    let site = world.site().await;
    let listener = world.cases.get::<Listener>(&tenant(), site.listener).unwrap();
    assert_eq!((listener.record.spec.port, listener.record.generation), (80, 1));
    assert_eq!(listener.status.provisioning, Provisioning::PendingCreate);
    assert_eq!(listener.status.code.as_str(), "NOT_IN_FORCE");
    let tree = world.cases.tree(&tenant(), site.root).unwrap().tree;
    assert_eq!(tree.alive(), 5);
    let lineage = [(Kind::Backend, site.backend), (Kind::Pool, site.pool), (Kind::LoadBalancer, site.root)];
    assert_eq!(tree.lineage(Kind::Backend, site.backend), lineage);
}

#[tokio::test]
async fn a_missing_parent_is_named_and_one_that_is_left_out_is_required() {
    let world = World::new().await;
    let site = world.site().await;
    let nowhere = Uuid::from_u128(99);
    let error = world.create::<Backend>(backend(nowhere, 12)).await.unwrap_err();
    assert_eq!((error.reason, error.message), (ErrorReason::NotFound, format!("there is no pool {nowhere}")));
    let error = world.create::<Backend>(backend(Uuid::nil(), 12)).await.unwrap_err();
    assert_eq!((error.reason, fields(&error)), (ErrorReason::InvalidFields, vec!["pool_id"]));
    // A load balancer is no pool.
    let error = world.create::<Backend>(backend(site.root, 12)).await.unwrap_err();
    assert_eq!(error.reason, ErrorReason::NotFound);
    let wrong = Backend { weight: 1000, ..backend(nowhere, 12) };
    let error = world.create::<Backend>(wrong).await.unwrap_err();
    assert_eq!(fields(&error), ["weight"], "what is wrong with the rest is said first");
}

#[tokio::test]
async fn nothing_is_created_below_what_is_being_deleted() {
    let world = World::new().await;
    let site = world.site().await;
    world.update::<Listener>(site.listener, |listener| listener.default_pool_id = None).await.unwrap();
    world.cases.delete::<Pool>(&tenant(), site.pool, "", true).await.unwrap();
    let error = world.create::<Backend>(backend(site.pool, 12)).await.unwrap_err();
    assert_eq!(error.reason, ErrorReason::BeingDeleted);
    assert_eq!(error.message, r#"pool "servers" is being deleted"#);
    world.cases.delete::<LoadBalancer>(&tenant(), site.root, "", true).await.unwrap();
    let error = world.create::<Backend>(backend(site.pool, 12)).await.unwrap_err();
    assert_eq!(error.message, r#"load balancer "shop" is being deleted"#, "the highest one");
}

#[tokio::test]
async fn a_repeated_request_makes_nothing_new() {
    let world = World::new().await;
    let tenant = tenant();
    let call = |digest| {
        world.create_as::<LoadBalancer>(
            &tenant,
            ResourceDraft::alone(None, load_balancer()),
            request("call-1", digest),
        )
    };
    let made = call("a").await.unwrap();
    assert_eq!(call("a").await.unwrap().record.id, made.record.id);
    let error = call("b").await.unwrap_err();
    assert_eq!((error.reason, fields(&error)), (ErrorReason::TakenFields, vec!["request_id"]));
    let pool = ResourceDraft::alone(None, pool(made.record.id));
    let error = world.create_as::<Pool>(&tenant, pool, request("call-1", "a")).await.unwrap_err();
    assert_eq!(fields(&error), ["request_id"], "also for another kind");
    assert_eq!(world.model.counts(), (1, 0));
}

#[tokio::test]
async fn a_repeated_request_of_another_project_shows_nothing() {
    let world = World::new().await;
    let given = || ResourceDraft::<LoadBalancer>::alone(None, load_balancer());
    let made = world.create_as(&tenant(), given(), request("call-1", "a")).await.unwrap();
    let of = LoadBalancerDraft { project_id: "default".to_owned(), ..load_balancer() };
    let error = world
        .create_as::<LoadBalancer>(&stranger(), ResourceDraft::alone(None, of), request("call-1", "a"))
        .await
        .unwrap_err();
    assert_eq!(fields(&error), ["project_id"], "a stranger cannot ask by the request's id");
    let own = world.create_as(&stranger(), given(), request("call-1", "a")).await.unwrap();
    assert_ne!(own.record.id, made.record.id, "and has request ids of its own");
}

#[tokio::test]
async fn concurrent_calls_with_one_request_make_one() {
    let world = World::new().await;
    let site = world.site().await;
    let tenant = tenant();
    let call = || {
        let given = ResourceDraft::alone(None, backend(site.pool, 12));
        world.create_as::<Backend>(&tenant, given, request("call-1", "a"))
    };
    let made = futures_util::future::join_all((0..8).map(|_| call())).await;
    let ids: BTreeSet<Uuid> = made.into_iter().map(|made| made.unwrap().record.id).collect();
    assert_eq!(ids.len(), 1);
}

#[tokio::test]
async fn an_id_is_used_once_whatever_its_kind() {
    let world = World::new().await;
    let site = world.site().await;
    let tenant = tenant();
    let again = |id| {
        world.create_as::<Backend>(&tenant, ResourceDraft::alone(Some(id), backend(site.pool, 12)), None)
    };
    for id in [site.root, site.listener, site.pool, site.check] {
        let error = again(id).await.unwrap_err();
        assert_eq!((error.reason, fields(&error)), (ErrorReason::TakenFields, vec!["id"]), "{error}");
    }
    let id = Uuid::from_u128(77);
    assert_eq!(again(id).await.unwrap().record.id, id);
    assert_eq!(again(id).await.unwrap().record.id, id, "an equal repeated call");
    let other = ResourceDraft::alone(Some(id), backend(site.pool, 13));
    assert_eq!(fields(&world.create_as::<Backend>(&tenant, other, None).await.unwrap_err()), ["id"]);
}

#[tokio::test]
async fn everything_that_is_wrong_comes_back_at_once() {
    let world = World::new().await;
    let site = world.site().await;
    let wrong = Backend {
        common: Common { name: "x".repeat(256), ..Common::default() },
        address: ([127, 0, 0, 1], 8080).into(),
        weight: 257,
        ..backend(site.pool, 12)
    };
    let given = ResourceDraft::alone(None, wrong);
    let error = world.create_as::<Backend>(&tenant(), given, request("no spaces", "a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert_eq!(fields(&error), ["request_id", "name", "address", "weight"]);
}

#[tokio::test]
async fn limits_say_their_name() {
    let world = World::with(Limits { backends_per_pool: 1, tags: 1, ..Limits::default() }).await;
    let site = world.site().await;
    let error = world.create::<Backend>(backend(site.pool, 12)).await.unwrap_err();
    assert_eq!(error.reason, ErrorReason::LimitExceeded);
    assert_eq!(error.message, "backends_per_pool: at most 1, this would make 2");
    let mut tagged = pool(site.root);
    tagged.common.tags = ["a", "b"].map(str::to_owned).into();
    assert_eq!(fields(&world.create::<Pool>(tagged).await.unwrap_err()), ["tags"]);
}

/// A site takes 28 bytes, `10.0.0.254:80` and `10.0.0.11:8080` with room for a comma; another listener alone takes 13.
#[tokio::test]
async fn what_the_northbound_database_would_hold_is_limited() {
    let (of_one, of_project, all) = ("vips_bytes_per_load_balancer", "vips_bytes_per_project", "vips_bytes");
    let limits = |limited: &str| {
        let most = |name| if name == limited { 52 } else { 1000 };
        let (vips_bytes_per_load_balancer, vips_bytes_per_project) = (most(of_one), most(of_project));
        Limits {
            vips_bytes_per_load_balancer,
            vips_bytes_per_project,
            vips_bytes: most(all),
            ..Limits::default()
        }
    };
    let refused = |result: Result<Uuid, ApiError>, name: &str, bytes: u32| {
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted);
        assert_eq!(error.message, format!("{name}: at most 52, this would make {bytes}"));
    };
    let second_listener = async |world: &World, who: &Principal| {
        let root = ResourceDraft::alone(None, load_balancer());
        let root = world.create_as::<LoadBalancer>(who, root, None).await.unwrap().record.id;
        let listener = ResourceDraft::alone(None, listener(root));
        world.create_as::<Listener>(who, listener, None).await.map(|made| made.record.id)
    };

    let world = World::with(limits(of_one)).await;
    let pool = world.site().await.pool;
    refused(world.create::<Backend>(backend(pool, 12)).await.map(|made| made.record.id), of_one, 53);
    second_listener(&world, &tenant()).await.unwrap();

    let world = World::with(limits(of_project)).await;
    world.site().await;
    refused(second_listener(&world, &tenant()).await, of_project, 61);
    second_listener(&world, &stranger()).await.unwrap();

    let world = World::with(limits(all)).await;
    world.site().await;
    refused(second_listener(&world, &stranger()).await, all, 61);
}

#[tokio::test]
async fn what_an_answer_with_the_whole_tree_would_hold_is_limited() {
    let world = World::new().await;
    let site = world.site().await;
    let bytes = world.model.tree(site.root).unwrap().bytes();
    let limits = |tree_bytes| Limits { tree_bytes, ..Limits::default() };
    let tagged = |number: u8, bytes: usize| {
        let common = Common { tags: ["x".repeat(bytes)].into(), ..Common::default() };
        Backend { common, ..backend(site.pool, number) }
    };
    let own = World { cases: world.with_limits(limits(bytes + 1500)), ..world };
    own.create::<Backend>(tagged(12, 250)).await.unwrap();
    let error = own.create::<Backend>(tagged(13, 250)).await.unwrap_err();
    assert_eq!(error.reason, ErrorReason::LimitExceeded);
    assert!(
        error.message.starts_with(&format!("tree_bytes: at most {}, this would make ", bytes + 1500)),
        "{error}"
    );
    let larger =
        own.update::<Backend>(site.backend, |backend| backend.common.tags = ["y".repeat(255)].into());
    assert_eq!(larger.await.unwrap_err().reason, ErrorReason::LimitExceeded);
    // Above a limit that was lowered it can be changed, and shrink.
    let lowered = World { cases: own.with_limits(limits(1)), ..own };
    lowered.update::<Backend>(site.backend, |backend| backend.weight = 7).await.unwrap();
    lowered.cases.delete::<Backend>(&tenant(), site.backend, "", false).await.unwrap();
}

#[tokio::test]
async fn concurrent_calls_with_one_request_make_one_load_balancer() {
    let world = World::new().await;
    let tenant = tenant();
    let call = || {
        let given = ResourceDraft::<LoadBalancer>::alone(None, load_balancer());
        world.create_as(&tenant, given, request("call-1", "a"))
    };
    let made = futures_util::future::join_all((0..8).map(|_| call())).await;
    let ids: BTreeSet<Uuid> = made.into_iter().map(|made| made.unwrap().record.id).collect();
    assert_eq!((ids.len(), world.model.counts()), (1, (1, 0)), "each has a tree of its own, and one guard");
}

#[tokio::test]
async fn a_load_balancer_that_is_created_again_is_the_one_that_there_is() {
    let world = World::new().await;
    let (id, tenant) = (Some(Uuid::from_u128(77)), tenant());
    let create = |draft| world.create_as::<LoadBalancer>(&tenant, ResourceDraft::alone(id, draft), None);
    let made = create(load_balancer()).await.unwrap();
    assert_eq!(create(load_balancer()).await.unwrap(), made, "with the address that was chosen");
    let vips = vec![VipDraft { address: Some(made.record.spec.vips[0]), subnet: None }];
    let explicit = LoadBalancerDraft { vips, network: "net".to_owned(), ..load_balancer() };
    assert_eq!(create(explicit.clone()).await.unwrap(), made, "and with that one given");
    world.networks.lock().unwrap().networks.insert(Uuid::from_u128(7), ("elsewhere", Vec::new()));
    let others = [
        (vec!["id"], LoadBalancerDraft { admin_state_up: false, ..explicit }),
        (vec!["id"], LoadBalancerDraft { common: named("another"), ..load_balancer() }),
        (vec!["id"], LoadBalancerDraft { common: Common::default(), ..load_balancer() }),
        (vec!["id"], LoadBalancerDraft { vips: vec![VipDraft::default(); 2], ..load_balancer() }),
        (vec!["id", "vip_subnet"], LoadBalancerDraft { network: "elsewhere".to_owned(), ..load_balancer() }),
        (vec!["id", "network"], LoadBalancerDraft { network: String::new(), ..load_balancer() }),
    ];
    for (wrong, other) in others {
        let error = create(other.clone()).await.unwrap_err();
        assert_eq!(fields(&error), wrong, "{other:?}");
    }
}

#[tokio::test]
async fn a_taken_id_hides_nothing_else_and_an_address_of_no_host_weighs_more() {
    let world = World::new().await;
    let site = world.site().await;
    let own = world.cases.get::<LoadBalancer>(&tenant(), site.root).unwrap().record.spec.vips[0];
    let create = |address: IpAddr| {
        let vips = vec![VipDraft { address: Some(address), subnet: None }];
        let draft = LoadBalancerDraft { vips, common: named("another"), ..load_balancer() };
        let (world, tenant) = (&world, tenant());
        async move {
            world.create_as(&tenant, ResourceDraft::<LoadBalancer>::alone(Some(site.root), draft), None).await
        }
    };
    let edge = create([10, 0, 0, 0].into()).await.unwrap_err();
    assert_eq!((edge.reason, fields(&edge)), (ErrorReason::UnmetFields, vec!["id", "vip_address"]));
    let same = create(own).await.unwrap_err();
    assert_eq!(
        (same.reason, fields(&same)),
        (ErrorReason::TakenFields, vec!["id"]),
        "its address is its own"
    );
}

#[tokio::test]
async fn what_is_not_supported_hides_no_pool_that_is_not_there() {
    let world = World::new().await;
    let site = world.site().await;
    let nowhere = Listener { port: 81, default_pool_id: Some(Uuid::from_u128(70)), ..listener(site.root) };
    let mut request = CreateRequest {
        given: ResourceDraft::alone(None, nowhere),
        request: None,
        validate_only: false,
        violations: Violations::default(),
    };
    crate::resources::Form::new("", &mut request.violations).unsupported("protocol", "HTTP");
    let error = world.cases.create::<Listener>(&tenant(), request).await.unwrap_err();
    assert_eq!(
        (error.reason, fields(&error)),
        (ErrorReason::UnmetFields, vec!["protocol", "default_pool_id"])
    );
}

#[tokio::test]
async fn the_nil_id_is_nobodys() {
    let world = World::new().await;
    let nil = ResourceDraft::<LoadBalancer>::alone(Some(Uuid::nil()), load_balancer());
    assert_eq!(fields(&world.create_as(&tenant(), nil, None).await.unwrap_err()), ["id"]);
}
