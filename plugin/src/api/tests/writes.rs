//! Updates and deletes: etags, fields that cannot be changed, what stands in the way.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;
use crate::status::{Operating, Provisioning};

#[tokio::test]
async fn an_update_counts_a_generation_and_an_equal_one_none() {
    let world = World::new().await;
    let site = world.site().await;
    let changed = world.update::<Backend>(site.backend, |backend| backend.weight = 5).await.unwrap();
    assert_eq!((changed.record.generation, changed.record.spec.weight), (2, 5));
    let again = world.update::<Backend>(site.backend, |backend| backend.weight = 5).await.unwrap();
    assert_eq!(again.record.etag(), changed.record.etag());
}

#[tokio::test]
async fn an_etag_of_an_older_version_is_refused() {
    let world = World::new().await;
    let site = world.site().await;
    let seen = world.cases.get::<Pool>(&tenant(), site.pool).unwrap().record.etag();
    let rename = |name: &'static str| {
        move |current: &Pool, _: &mut Violations| Pool { common: named(name), ..current.clone() }
    };
    world.cases.update(&tenant(), site.pool, rename("a"), seen.as_str()).await.unwrap();
    let error = world.cases.update(&tenant(), site.pool, rename("b"), seen.as_str()).await.unwrap_err();
    assert_eq!((error.reason, error.kind()), (ErrorReason::EtagMismatch, ErrorKind::FailedPrecondition));
    let error = world.cases.delete::<Pool>(&tenant(), site.pool, seen.as_str(), true).await.unwrap_err();
    assert_eq!(error.reason, ErrorReason::EtagMismatch);
}

#[tokio::test]
async fn concurrent_updates_of_different_fields_are_all_kept() {
    let world = World::new().await;
    let site = world.site().await;
    let rename = world.update::<Backend>(site.backend, |backend| backend.common = named("new"));
    let weigh = world.update::<Backend>(site.backend, |backend| backend.weight = 7);
    let (renamed, weighed) = tokio::join!(rename, weigh);
    renamed.and(weighed).unwrap();
    let spec = world.cases.get::<Backend>(&tenant(), site.backend).unwrap().record.spec.clone();
    assert_eq!((spec.common.name.as_str(), spec.weight), ("new", 7));
}

#[tokio::test]
async fn what_cannot_be_changed_is_named_with_a_way_on() {
    let world = World::new().await;
    let site = world.site().await;
    let error = world.update::<Listener>(site.listener, |listener| {
        (listener.port, listener.protocol) = (81, ListenerProtocol::Https);
    });
    let error = error.await.unwrap_err();
    assert_eq!(fields(&error), ["protocol", "port"]);
    assert!(error.message.contains("delete the listener and create another one"), "{error}");
    let elsewhere = |current: &LoadBalancer, _: &mut Violations| LoadBalancerDraft {
        network: current.network.to_string(),
        vips: vec![VipDraft { address: Some("10.0.0.77".parse().unwrap()), subnet: None }],
        project_id: "other".to_owned(),
        ..load_balancer()
    };
    let error = world.cases.update(&tenant(), site.root, elsewhere, "").await.unwrap_err();
    assert_eq!(fields(&error), ["project_id", "vip_address"]);
}

#[tokio::test]
async fn what_is_only_checked_is_answered_as_the_write_would_be_and_not_written() {
    let world = World::new().await;
    let site = world.site().await;
    let head = || world.cases.tree(&tenant(), site.root).unwrap().tree.head;
    let before = head();
    let only = WriteCondition { validate_only: true, ..WriteCondition::default() };
    let create = async |draft: Backend| {
        let given = ResourceDraft::alone(None, draft);
        let violations = Violations::default();
        let request = CreateRequest { given, request: None, validate_only: true, violations };
        world.cases.create::<Backend>(&tenant(), request).await
    };
    let made = create(backend(site.pool, 12)).await.unwrap();
    assert_eq!(made.record.spec.address, backend(site.pool, 12).address);
    assert_eq!(fields(&create(backend(site.pool, 11)).await.unwrap_err()), ["address"]);

    let weigh =
        |weight: u16| move |current: &Backend, _: &mut Violations| Backend { weight, ..current.clone() };
    let changed = world.cases.update(&tenant(), site.backend, weigh(5), only).await.unwrap();
    assert_eq!((changed.record.generation, changed.record.spec.weight), (2, 5));
    let wrong = world.cases.update(&tenant(), site.backend, weigh(300), only).await.unwrap_err();
    assert_eq!(fields(&wrong), ["weight"]);
    let stale = WriteCondition { etag: "7-7", ..only };
    let stale = world.cases.update(&tenant(), site.backend, weigh(5), stale).await.unwrap_err();
    assert_eq!(stale.reason, ErrorReason::EtagMismatch);

    let gone = world.cases.delete::<Listener>(&tenant(), site.listener, only, false).await.unwrap();
    assert_eq!(gone.status.provisioning, Provisioning::PendingDelete);
    let used = world.cases.delete::<Pool>(&tenant(), site.pool, only, true).await.unwrap_err();
    assert_eq!(used.concern, Some(ErrorObject::Resource(Kind::Pool, site.pool)));
    assert_eq!((used.reason, head()), (ErrorReason::InUse, before));
}

#[tokio::test]
async fn a_deleted_resource_stays_to_be_seen_and_takes_no_writes() {
    let world = World::new().await;
    let site = world.site().await;
    let before = world.cases.get::<Listener>(&tenant(), site.listener).unwrap().record.etag();
    let gone = world.cases.delete::<Listener>(&tenant(), site.listener, "", false).await.unwrap();
    assert_eq!(gone.status.provisioning, Provisioning::PendingDelete);
    let again = world.cases.delete::<Listener>(&tenant(), site.listener, "", false).await.unwrap();
    assert_eq!(again.record.etag(), gone.record.etag(), "deleting it again changes nothing");
    let delete =
        async |etag: &str| world.cases.delete::<Listener>(&tenant(), site.listener, etag, false).await;
    let wrong = delete("7-7").await.unwrap_err();
    assert_eq!((wrong.reason, wrong.kind()), (ErrorReason::EtagMismatch, ErrorKind::FailedPrecondition));
    for seen in [before.as_str(), &gone.record.etag()] {
        assert_eq!(delete(seen).await.unwrap().record.etag(), gone.record.etag(), "{seen}");
    }
    let error = world.update::<Listener>(site.listener, |listener| listener.admin_state_up = false).await;
    assert_eq!(error.unwrap_err().reason, ErrorReason::BeingDeleted);
    let same_port = world.create::<Listener>(listener(site.root)).await.unwrap_err();
    assert_eq!((same_port.reason, fields(&same_port)), (ErrorReason::TakenFields, vec!["port"]));
    assert!(same_port.message.contains("free again when OVN has let go of it"), "{same_port}");
}

#[tokio::test]
async fn pages_end_and_filters_all_apply() {
    let world = World::new().await;
    let site = world.site().await;
    for number in 12..20 {
        let common = Common { tags: [format!("t{}", number % 2)].into(), ..named("b") };
        world.create::<Backend>(Backend { common, ..backend(site.pool, number) }).await.unwrap();
    }
    let list = |request: ListRequest| world.cases.list::<Backend>(&tenant(), &request);
    let (mut seen, mut token) = (BTreeSet::new(), String::new());
    loop {
        let request = ListRequest { page_size: 4, page_token: token, ..ListRequest::default() };
        let page = list(request).unwrap();
        assert!(page.resources.len() <= 4);
        seen.extend(page.resources.iter().map(|backend| backend.record.id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen.len(), 9);
    let tagged = ListRequest { tags: vec!["t0".to_owned()], name: "b".to_owned(), ..ListRequest::default() };
    assert_eq!(list(tagged.clone()).unwrap().resources.len(), 4);
    let active = ListRequest { provisioning: Some(Provisioning::Active), ..tagged };
    assert!(list(active).unwrap().resources.is_empty());
}

#[tokio::test]
async fn a_page_token_continues_the_query_that_it_was_given_for_and_no_other() {
    let world = World::new().await;
    let site = world.site().await;
    for number in 12..20 {
        let common = Common { tags: ["t".to_owned(), "u".to_owned()].into(), ..named("b") };
        world.create::<Backend>(Backend { common, ..backend(site.pool, number) }).await.unwrap();
    }
    let tags = || vec!["t".to_owned(), "u".to_owned()];
    let query = ListRequest { page_size: 3, tags: tags(), ..ListRequest::default() };
    let first = world.cases.list::<Backend>(&tenant(), &query).unwrap();
    let page_token = first.next_page_token;
    assert!(!page_token.contains(&site.backend.simple().to_string()));
    // The next page may have another size, and tags are a set. What it came after may be gone.
    let last = first.resources.last().unwrap().record.id;
    world.cases.delete::<Backend>(&tenant(), last, "", false).await.unwrap();
    let (page_size, reversed) = (1000, tags().into_iter().rev().collect());
    let next = ListRequest { page_size, tags: reversed, page_token: page_token.clone(), ..query.clone() };
    let rest = world.cases.list::<Backend>(&tenant(), &next).unwrap();
    assert_eq!((rest.resources.len(), rest.next_page_token), (5, String::new()));
    assert!(rest.resources.iter().all(|backend| backend.record.id > last));

    let refused = |error: Option<ApiError>| {
        let error = error.unwrap();
        assert_eq!((error.kind(), fields(&error)), (ErrorKind::InvalidArgument, vec!["page_token"]));
        assert!(error.message.contains("begin without a token"), "{error}");
    };
    let same = ListRequest { page_token, ..query };
    for other in [
        ListRequest { name: "b".to_owned(), ..same.clone() },
        ListRequest { tags: vec!["t".to_owned()], ..same.clone() },
        ListRequest { tags: Vec::new(), name: "tu".to_owned(), ..same.clone() },
        ListRequest { parent: Some(site.pool), ..same.clone() },
        ListRequest { provisioning: Some(Provisioning::PendingCreate), ..same.clone() },
        ListRequest { operating: Some(Operating::Offline), ..same.clone() },
        ListRequest { page_token: "garbage!".to_owned(), ..same.clone() },
        // As earlier releases made them.
        ListRequest { page_token: URL_SAFE_NO_PAD.encode(last.as_bytes()), ..same.clone() },
    ] {
        refused(world.cases.list::<Backend>(&tenant(), &other).err());
    }
    for other in [stranger(), operator()] {
        refused(world.cases.list::<Backend>(&other, &same).err());
    }
    refused(world.cases.list::<Pool>(&tenant(), &same).err());
}

#[tokio::test]
async fn a_tree_above_a_limit_that_was_lowered_can_be_changed_and_shrink() {
    let world = World::with(Limits { backends_per_pool: 3, ..Limits::default() }).await;
    let site = world.site().await;
    for number in 12..14 {
        world.create::<Backend>(backend(site.pool, number)).await.unwrap();
    }
    let lowered =
        World { cases: world.with_limits(Limits { backends_per_pool: 1, ..Limits::default() }), ..world };
    lowered.update::<Backend>(site.backend, |backend| backend.admin_state_up = false).await.unwrap();
    lowered.cases.delete::<Backend>(&tenant(), site.backend, "", false).await.unwrap();
    let error = lowered.create::<Backend>(backend(site.pool, 20)).await.unwrap_err();
    assert_eq!(error.reason, ErrorReason::LimitExceeded);
}

#[tokio::test]
async fn rows_above_a_limit_that_was_lowered_can_be_changed_and_shrink() {
    let world = World::new().await;
    let site = world.site().await;
    let second = world.create::<Backend>(backend(site.pool, 12)).await.unwrap().record.id;
    let limits = Limits { vips_bytes_per_load_balancer: 1, vips_bytes: 1, ..Limits::default() };
    let lowered = World { cases: world.with_limits(limits), ..world };
    lowered.update::<Backend>(site.backend, |backend| backend.admin_state_up = false).await.unwrap();
    let error = lowered.update::<Backend>(site.backend, |backend| backend.weight = 2).await.unwrap_err();
    assert_eq!(error.reason, ErrorReason::LimitExceeded);
    lowered.cases.delete::<Backend>(&tenant(), second, "", false).await.unwrap();
}

#[tokio::test]
async fn what_is_wrong_with_a_field_hides_nothing_that_is_wrong_with_others() {
    let world = World::new().await;
    let site = world.site().await;
    let error = world.update::<Listener>(site.listener, |listener| {
        listener.common = named(&"x".repeat(300));
        listener.default_pool_id = Some(Uuid::from_u128(70));
    });
    assert_eq!(fields(&error.await.unwrap_err()), ["name", "default_pool_id"]);
}

#[tokio::test]
async fn what_is_being_deleted_has_room_for_one_replacement() {
    let world = World::with(Limits { backends_per_pool: 3, ..Limits::default() }).await;
    let site = world.site().await;
    let mut made = 1;
    let refused = loop {
        match world.create::<Backend>(backend(site.pool, 20 + made)).await {
            Ok(backend) => {
                world.cases.delete::<Backend>(&tenant(), backend.record.id, "", false).await.unwrap();
            }
            Err(refused) => break refused,
        }
        made += 1;
    };
    assert_eq!((refused.reason, made), (ErrorReason::LimitExceeded, 6), "{refused}");
    assert!(refused.message.contains("5 are being deleted"), "{refused}");
}

#[tokio::test]
async fn a_page_ends_before_it_is_too_large_for_a_client() {
    let world = World::with(Limits { tags: 1000, ..Limits::default() }).await;
    let tags = || (0..1000).map(|tag| format!("{tag:0255}")).collect();
    for _ in 0..20 {
        let common = Common { tags: tags(), ..Common::default() };
        world.create::<LoadBalancer>(LoadBalancerDraft { common, ..load_balancer() }).await.unwrap();
    }
    let (mut request, mut pages, mut seen) =
        (ListRequest { page_size: 1000, ..ListRequest::default() }, 0, 0);
    loop {
        let page = world.cases.list::<LoadBalancer>(&tenant(), &request).unwrap();
        seen += page.resources.len();
        pages += 1;
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!((seen, pages), (20, 4));
}
