//! Whole trees: by name, by etag, and what an entry means.

use futures_util::future::join_all;

use super::*;
use crate::resources::name_key;

fn draft(name: &str, pools: &[(Option<Uuid>, &str)]) -> ApplyRequest {
    let pools = pools.iter().enumerate().map(|(index, (id, name))| PoolDraft {
        pool: ResourceDraft {
            id: *id,
            at: format!("tree.pools[{index}].pool"),
            ..ResourceDraft::alone(None, Pool { common: named(name), ..pool(Uuid::nil()) })
        },
        backends: Vec::new(),
        health_check: None,
    });
    let root = LoadBalancerDraft { common: named(name), ..load_balancer() };
    let tree = TreeDraft {
        load_balancer: ResourceDraft {
            at: "tree.load_balancer".to_owned(),
            ..ResourceDraft::alone(None, root)
        },
        listeners: Vec::new(),
        pools: pools.collect(),
    };
    ApplyRequest { tree, etag: String::new(), validate_only: false, violations: Violations::default() }
}

async fn apply(world: &World, request: ApplyRequest) -> Result<Applied, ApiError> {
    world.cases.apply(&tenant(), request).await
}

#[tokio::test]
async fn equal_trees_on_one_plugin_make_one_load_balancer() {
    let world = World::new().await;
    let calls = (0..16).map(|_| apply(&world, draft("shop", &[])));
    let applied: Vec<Applied> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
    let ids: BTreeSet<Uuid> = applied.iter().map(|applied| applied.view.tree.id()).collect();
    assert_eq!((ids.len(), world.model.counts()), (1, (1, 0)));
}

#[tokio::test]
async fn equal_trees_of_a_new_name_at_the_same_time_make_one_load_balancer() {
    let store = SharedStore::default();
    let plugin =
        || World::on_store(Arc::new(store.connection()), Limits::default(), NetworkSettings::default());
    let (one, other) = (plugin().await, plugin().await);
    let calls = (0..16).map(|call| {
        let world = if call % 2 == 0 { &one } else { &other };
        apply(world, draft("shop", &[(None, "app")]))
    });
    let applied: Vec<Applied> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
    let ids: BTreeSet<Uuid> = applied.iter().map(|applied| applied.view.tree.id()).collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert_eq!(applied.iter().map(|applied| applied.created).sum::<u32>(), 2);
    assert_eq!(applied.iter().map(|applied| applied.unchanged).sum::<u32>(), 15 * 2);
}

#[tokio::test]
async fn a_tree_of_a_new_name_is_one_request_to_a_shared_store() {
    let store = SharedStore::default();
    let connections = [store.connection(), store.connection()];
    let [one, other] = &connections;
    let plugin = |connection: &SharedStore| {
        World::on_store(Arc::new(connection.clone()), Limits::default(), NetworkSettings::default())
    };
    let worlds = [plugin(one).await, plugin(other).await];
    let before: u32 = connections.iter().map(SharedStore::requests).sum();
    let owner = tenant();
    // Those that share the key of the first one.
    let key = |name: &str| name_key(&owner.org_id, &owner.project_id, name);
    let names = (0..).map(|number| format!("shop-{number}")).filter(|name| key(name) == key("shop-0"));
    let mut made = 0;
    for (name, world) in names.zip(worlds.iter().cycle()).take(6) {
        let applied = apply(world, draft(&name, &[])).await.unwrap();
        assert_eq!(applied.created, 1, "{name}");
        for world in &worlds {
            world.model.reached(applied.view.tree.head).await;
        }
        made += 1;
    }
    let requests: u32 = connections.iter().map(SharedStore::requests).sum();
    assert_eq!(requests - before, made);
}

#[tokio::test]
async fn a_name_is_free_again_after_a_rename() {
    let world = World::new().await;
    let first = apply(&world, draft("shop", &[])).await.unwrap().view.tree.id();
    let rename = |_: &LoadBalancer, _: &mut Violations| LoadBalancerDraft {
        common: named("old shop"),
        vips: Vec::new(),
        ..load_balancer()
    };
    world.cases.update::<LoadBalancer>(&tenant(), first, rename, "").await.unwrap();
    let second = apply(&world, draft("shop", &[])).await.unwrap();
    assert_eq!(second.created, 1);
    assert_ne!(second.view.tree.id(), first);
}

#[tokio::test]
async fn an_etag_of_a_tree_is_of_all_that_is_below_it() {
    let world = World::new().await;
    let first = apply(&world, draft("shop", &[(None, "app")])).await.unwrap();
    let etag = first.view.tree.etag();
    let read = world.cases.tree(&tenant(), first.view.tree.id()).unwrap().tree;
    assert_eq!(read.etag(), etag, "as it is read");
    let with = |etag: &str| ApplyRequest {
        etag: etag.to_owned(),
        ..draft("shop", &[(None, "app"), (None, "more")])
    };
    let pool = *first.view.tree.pools.keys().next().unwrap();
    world.create::<Backend>(backend(pool, 11)).await.unwrap();
    let refused = apply(&world, with(&etag)).await.unwrap_err();
    assert_eq!(refused.reason, ErrorReason::EtagMismatch, "a child was written since");
    assert_eq!(world.cases.tree(&tenant(), first.view.tree.id()).unwrap().tree.backends.len(), 1);
    let now = world.cases.tree(&tenant(), first.view.tree.id()).unwrap().tree.etag();
    let second = apply(&world, with(&now)).await.unwrap();
    assert_eq!((second.created, second.deleted), (1, 1));
    assert_ne!(second.view.tree.etag(), now);
    let unchanged = apply(&world, draft("shop", &[(None, "app"), (None, "more")])).await.unwrap();
    assert_eq!(unchanged.view.tree.etag(), second.view.tree.etag());
}

#[tokio::test]
async fn with_an_etag_nothing_is_created_in_place_of_what_is_gone() {
    let world = World::new().await;
    for id in [None, Some(Uuid::from_u128(7))] {
        let mut request = ApplyRequest { etag: "tree-1".to_owned(), ..draft("shop", &[]) };
        request.tree.load_balancer.id = id;
        let refused = apply(&world, request).await.unwrap_err();
        assert_eq!(refused.reason, ErrorReason::EtagMismatch, "{id:?}");
    }
    assert_eq!(world.model.counts(), (0, 0));
}

#[tokio::test]
async fn an_entry_with_an_id_is_not_meant_by_a_name() {
    let world = World::new().await;
    let first = apply(&world, draft("shop", &[(None, "app")])).await.unwrap();
    let app = *first.view.tree.pools.keys().next().unwrap();
    for pools in [[(None, "app"), (Some(app), "app-old")], [(Some(app), "app-older"), (None, "app")]] {
        let swapped = apply(&world, draft("shop", &pools)).await.unwrap();
        let alive = swapped.view.tree.pools.values().filter(|pool| !pool.deleting);
        let names: Vec<&str> = alive.map(|pool| pool.spec.common.name.as_str()).collect();
        assert!(names.contains(&"app") && names.len() == 2, "{names:?}");
        assert!(swapped.view.tree.pools[&app].spec.common.name.starts_with("app-old"));
    }
}

#[tokio::test]
async fn an_entry_with_a_value_that_cannot_be_read_stands_for_no_other_one() {
    let world = World::new().await;
    let mut request = draft("shop", &[(None, "app")]);
    let backends = (0..2).map(|index| ResourceDraft {
        at: format!("tree.pools[0].backends[{index}]"),
        ..ResourceDraft::alone(None, backend(Uuid::nil(), 9))
    });
    request.tree.pools[0].backends = backends.collect();
    // The adapter puts the same placeholder for each port.
    crate::resources::Form::new("tree.pools[0].backends[0]", &mut request.violations)
        .invalid("port", "given 70000");
    crate::resources::Form::new("tree.pools[0].backends[1]", &mut request.violations)
        .invalid("port", "given 80000");
    // And a third one has that port.
    let third = ResourceDraft::alone(None, backend(Uuid::nil(), 9));
    let third = ResourceDraft { at: "tree.pools[0].backends[2]".to_owned(), ..third };
    request.tree.pools[0].backends.push(third);
    let error = apply(&world, request).await.unwrap_err();
    assert_eq!(fields(&error), ["tree.pools[0].backends[0].port", "tree.pools[0].backends[1].port"]);
}

#[tokio::test]
async fn an_entry_is_known_by_its_key_whatever_else_is_wrong_with_it() {
    let world = World::new().await;
    let mut request = draft("shop", &[(None, "app")]);
    let check = ResourceDraft {
        at: "tree.pools[0].health_check".to_owned(),
        ..ResourceDraft::alone(None, check(Uuid::nil()))
    };
    request.tree.pools[0].health_check = Some(check);
    let made = apply(&world, request.clone()).await.unwrap();
    let pool = *made.view.tree.pools.keys().next().unwrap();
    // What is below the pool names it as its parent, as it was read.
    request.tree.pools[0].pool.at = "tree.pools[0].pool".to_owned();
    let backend = ResourceDraft {
        at: "tree.pools[0].backends[0]".to_owned(),
        ..ResourceDraft::alone(None, backend(pool, 9))
    };
    request.tree.pools[0].backends = vec![backend];
    let mut other_protocol = request.clone();
    other_protocol.tree.pools[0].pool.draft.protocol = PoolProtocol::Udp;
    for (request, at, field) in [
        (other_protocol, "tree.pools[0].pool", "protocol"),
        (request.clone(), "tree.pools[0].health_check", "type"),
        (request, "tree.load_balancer", "tags"),
    ] {
        let mut request = request;
        crate::resources::Form::new(at, &mut request.violations).invalid(field, "cannot be read");
        let error = apply(&world, request).await.unwrap_err();
        assert_eq!(fields(&error), [format!("{at}.{field}")]);
    }
}

#[tokio::test]
async fn a_vip_that_cannot_be_placed_makes_no_backend_wrong() {
    let world = World::new().await;
    let mut request = draft("shop", &[(None, "app")]);
    let given = VipDraft { address: Some("10.0.0.77".parse().unwrap()), subnet: None };
    let elsewhere = VipDraft { address: None, subnet: Some("fd99::/64".parse().unwrap()) };
    request.tree.load_balancer.draft.vips = vec![given, elsewhere];
    let six = Backend { address: "[fd00::7]:80".parse().unwrap(), ..backend(Uuid::nil(), 9) };
    request.tree.pools[0].backends =
        vec![ResourceDraft { at: "tree.pools[0].backends[0]".to_owned(), ..ResourceDraft::alone(None, six) }];
    let error = apply(&world, request).await.unwrap_err();
    assert_eq!(fields(&error), ["tree.load_balancer.additional_vips[0].subnet"]);
}

#[tokio::test]
async fn an_entry_that_is_given_twice_is_blamed_on_what_says_so() {
    let world = World::new().await;
    let mut request = draft("shop", &[(None, "app"), (None, "app")]);
    let at = |what: &str, index: usize| format!("tree.{what}[{index}]");
    request.tree.pools[0].backends = (0..2)
        .map(|index| ResourceDraft {
            at: at("pools[0].backends", index),
            ..ResourceDraft::alone(None, backend(Uuid::nil(), 9))
        })
        .collect();
    request.tree.listeners = (0..2)
        .map(|index| ResourceDraft {
            at: at("listeners", index),
            ..ResourceDraft::alone(None, listener(Uuid::nil()))
        })
        .collect();
    let error = apply(&world, request).await.unwrap_err();
    let by_key = ["tree.pools[0].backends[1].port", "tree.pools[1].pool.name", "tree.listeners[1].port"];
    assert_eq!(fields(&error), by_key);
    let first = apply(&world, draft("shop", &[(None, "app")])).await.unwrap();
    let app = *first.view.tree.pools.keys().next().unwrap();
    let error = apply(&world, draft("shop", &[(Some(app), "app"), (Some(app), "other")])).await.unwrap_err();
    assert_eq!(fields(&error), ["tree.pools[1].pool.id"]);
}

#[tokio::test]
async fn a_pool_is_named_by_its_id_in_any_spelling() {
    let world = World::new().await;
    let first = apply(&world, draft("shop", &[(None, "app")])).await.unwrap();
    let app = *first.view.tree.pools.keys().next().unwrap();
    let spellings = [
        app.to_string().to_uppercase(),
        app.simple().to_string(),
        app.urn().to_string(),
        app.braced().to_string(),
    ];
    for spelling in spellings {
        let mut request = draft("shop", &[(Some(app), "app")]);
        request.tree.listeners = vec![ResourceDraft {
            named: vec![("default_pool_id".into(), spelling.clone())],
            ..ResourceDraft::alone(None, listener(Uuid::nil()))
        }];
        let applied = apply(&world, request).await.unwrap();
        let listener = applied.view.tree.listeners.values().next().unwrap();
        assert_eq!(listener.spec.default_pool_id, Some(app), "{spelling}");
    }
}

#[tokio::test]
async fn weighted_pools_are_named_and_unknown_or_missing_ones_are_told() {
    let world = World::new().await;
    let weights = |count: usize| std::iter::repeat_n(WeightedPool { pool_id: Uuid::nil(), weight: 5 }, count);
    let request = |named: &[&str], count| {
        let mut request = draft("shop", &[(None, "blue"), (None, "green")]);
        let weighted_pools = weights(count).collect();
        let named = named
            .iter()
            .enumerate()
            .map(|(place, name)| (WeightedPools::path(place).into(), (*name).to_owned()));
        request.tree.listeners = vec![ResourceDraft {
            at: "tree.listeners[0]".to_owned(),
            named: named.collect(),
            ..ResourceDraft::alone(None, Listener { weighted_pools, ..listener(Uuid::nil()) })
        }];
        request
    };
    let error = apply(&world, request(&["blue", "nobody"], 3)).await.unwrap_err();
    let wrong =
        ["tree.listeners[0].weighted_pools[1].pool_id", "tree.listeners[0].weighted_pools[2].pool_id"];
    assert_eq!(fields(&error), wrong);
    let applied = apply(&world, request(&["green", "blue"], 2)).await.unwrap();
    let tree = &applied.view.tree;
    let own = tree.listeners.values().next().unwrap();
    let named = |pool: &WeightedPool| tree.pools[&pool.pool_id].spec.common.name.clone();
    let names: Vec<String> = own.spec.weighted_pools.iter().map(named).collect();
    assert_eq!(names, ["green", "blue"]);
    let again = apply(&world, request(&["green", "blue"], 2)).await.unwrap();
    assert_eq!((again.created, again.updated, again.unchanged), (0, 0, 4));

    for pool in own.spec.pools() {
        let deleted = world.cases.delete::<Pool>(&tenant(), pool.pool_id, "", true).await;
        let error = deleted.unwrap_err();
        assert_eq!(error.reason, ErrorReason::InUse);
        assert!(error.message.contains("it is one of the weighted pools of listener"), "{error}");
    }
    let mut without = request(&["green"], 1);
    without.tree.pools.remove(0);
    let applied = apply(&world, without).await.unwrap();
    assert_eq!((applied.updated, applied.deleted), (1, 1));
}

#[tokio::test]
async fn ids_of_another_trees_resources_are_taken_for_its_owner_as_for_others() {
    let world = World::new().await;
    let site = world.site().await;
    let before = world.model.tree(site.root).unwrap();
    let thief = || {
        let mut request = draft("thief", &[(None, "app")]);
        request.tree.pools[0].backends = vec![ResourceDraft {
            at: "tree.pools[0].backends[0]".to_owned(),
            ..ResourceDraft::alone(None, backend(Uuid::nil(), 9))
        }];
        request.tree.pools[0].health_check = Some(ResourceDraft {
            at: "tree.pools[0].health_check".to_owned(),
            ..ResourceDraft::alone(None, check(Uuid::nil()))
        });
        request.tree.listeners = vec![ResourceDraft {
            at: "tree.listeners[0]".to_owned(),
            ..ResourceDraft::alone(None, listener(Uuid::nil()))
        }];
        request
    };
    for id in [site.root, site.listener, site.pool, site.backend, site.check] {
        let mut of_pool = thief();
        of_pool.tree.pools[0].pool.id = Some(id);
        let mut of_backend = thief();
        of_backend.tree.pools[0].backends[0].id = Some(id);
        let mut of_check = thief();
        of_check.tree.pools[0].health_check.as_mut().unwrap().id = Some(id);
        let mut of_listener = thief();
        of_listener.tree.listeners[0].id = Some(id);
        for (request, at) in [
            (of_pool, "tree.pools[0].pool"),
            (of_backend, "tree.pools[0].backends[0]"),
            (of_check, "tree.pools[0].health_check"),
            (of_listener, "tree.listeners[0]"),
        ] {
            for (principal, validate_only) in [(tenant(), false), (tenant(), true), (stranger(), false)] {
                let request = ApplyRequest { validate_only, ..request.clone() };
                let error = world.cases.apply(&principal, request).await.unwrap_err();
                let expected = (ErrorReason::TakenFields, vec![format!("{at}.id")]);
                assert_eq!((error.reason, fields(&error)), (expected.0, vec![&*expected.1[0]]), "{id}");
            }
        }
    }
    assert!(Arc::ptr_eq(&before, &world.model.tree(site.root).unwrap()));
    assert_eq!((world.model.counts(), world.model.shared_ids().len()), ((1, 4), 0));
}
