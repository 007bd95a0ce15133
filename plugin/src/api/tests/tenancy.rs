//! A tenant's objects do not exist for another one, whatever is asked.

use super::*;
use crate::resources::{InTree as _, Kind, Resource as _, every_kind};

/// Error of every use case on one resource, for a stranger.
async fn every_use<T: ApiKind>(world: &World, id: Uuid, draft: T::Draft) -> Vec<ApiError> {
    let (cases, stranger) = (&world.cases, stranger());
    let patch = move |_: &T, _: &mut Violations| draft.clone();
    vec![
        cases.get::<T>(&stranger, id).err().unwrap(),
        cases.update::<T>(&stranger, id, patch, "").await.err().unwrap(),
        cases.delete::<T>(&stranger, id, "", true).await.err().unwrap(),
    ]
}

#[tokio::test]
async fn another_tenants_resources_are_not_there() {
    let world = World::new().await;
    let site = world.site().await;
    let before = world.model.tree(site.root).unwrap();
    let mut errors = every_use::<LoadBalancer>(&world, site.root, load_balancer()).await;
    errors.extend(every_use::<Listener>(&world, site.listener, listener(site.root)).await);
    errors.extend(every_use::<Pool>(&world, site.pool, pool(site.root)).await);
    errors.extend(every_use::<Backend>(&world, site.backend, backend(site.pool, 11)).await);
    errors.extend(every_use::<HealthCheck>(&world, site.check, check(site.pool)).await);
    errors.push(world.cases.tree(&stranger(), site.root).err().unwrap());
    errors.push(world.cases.status_history(&stranger(), site.root).unwrap_err());
    errors.push(world.cases.watch(stranger(), Some(site.root)).err().unwrap());
    errors.push(world.cases.backend_health(&stranger(), site.backend).unwrap_err());
    errors.push(world.cases.load_balancer_statistics(&stranger(), site.root).await.unwrap_err());
    errors.push(world.cases.listener_statistics(&stranger(), site.listener).await.unwrap_err());
    errors.push(world.cases.read_access_log(stranger(), site.listener).await.err().unwrap());
    let own = world.cases.listener_statistics(&operator(), site.listener).await.unwrap();
    assert_eq!((own.listener, own.is_counted), (site.listener, false));
    for error in errors {
        assert_eq!(error.reason, ErrorReason::NotFound, "{error}");
    }
    every_kind!(T => {
        let page = world.cases.list::<T>(&stranger(), &ListRequest::default()).unwrap();
        assert!(page.resources.is_empty(), "{:?}", T::KIND);
        let all = world.cases.list::<T>(&operator(), &ListRequest::default()).unwrap();
        assert_eq!(all.resources.len(), 1, "{:?}", T::KIND);
        let below = ListRequest { parent: T::PARENT.map(|kind| if kind == Kind::Pool { site.pool } else { site.root }),
            ..ListRequest::default() };
        if let Some(parent) = below.parent {
            let error = world.cases.list::<T>(&stranger(), &below).err().unwrap();
            assert_eq!((error.reason, error.message.contains(&parent.to_string())), (ErrorReason::NotFound, true));
            assert_eq!(world.cases.list::<T>(&operator(), &below).unwrap().resources.len(), 1);
        }
    });
    assert!(Arc::ptr_eq(&before, &world.model.tree(site.root).unwrap()), "nothing was written");
}

#[tokio::test]
async fn nothing_is_made_below_another_tenants_resources() {
    let world = World::new().await;
    let site = world.site().await;
    async fn refused<T: ApiKind>(world: &World, draft: T::Draft) {
        let refused = world.create_as::<T>(&stranger(), ResourceDraft::alone(None, draft), None).await;
        let error = refused.err().unwrap();
        assert_eq!(error.reason, ErrorReason::NotFound, "{error}");
    }
    refused::<Listener>(&world, Listener { port: 81, ..listener(site.root) }).await;
    refused::<Pool>(&world, pool(site.root)).await;
    refused::<Backend>(&world, backend(site.pool, 12)).await;
    refused::<HealthCheck>(&world, check(site.pool)).await;
    let theirs = LoadBalancerDraft { project_id: "default".to_owned(), ..load_balancer() };
    let error = world.create_as::<LoadBalancer>(&stranger(), ResourceDraft::alone(None, theirs), None).await;
    assert_eq!(fields(&error.unwrap_err()), ["project_id"]);
    let create = |org_id: &str, project_id: &str| {
        let (org_id, project_id) = (org_id.to_owned(), project_id.to_owned());
        let draft = LoadBalancerDraft { org_id, project_id, ..load_balancer() };
        let (world, tenant) = (&world, tenant());
        async move { world.create_as::<LoadBalancer>(&tenant, ResourceDraft::alone(None, draft), None).await }
    };
    assert_eq!(fields(&create("other", "").await.unwrap_err()), ["org_id"]);
    assert_eq!(fields(&create("other", "other").await.unwrap_err()), ["org_id", "project_id"]);
}

#[tokio::test]
async fn a_tree_is_applied_to_its_owners_load_balancer_alone() {
    let world = World::new().await;
    let site = world.site().await;
    let tree = |id| TreeDraft {
        load_balancer: ResourceDraft {
            at: "tree.load_balancer".to_owned(),
            ..ResourceDraft::alone(id, load_balancer())
        },
        listeners: Vec::new(),
        pools: Vec::new(),
    };
    let apply = |id| {
        let request = ApplyRequest {
            tree: tree(id),
            etag: String::new(),
            validate_only: false,
            violations: Violations::default(),
        };
        let cases = world.cases.clone();
        async move { cases.apply(&stranger(), request).await }
    };
    assert_eq!(apply(Some(site.root)).await.err().unwrap().reason, ErrorReason::NotFound);
    let made = apply(None).await.unwrap();
    assert_ne!(made.view.tree.id(), site.root, "a name means the caller's own");
    assert_eq!(world.model.tree(site.root).unwrap().alive(), 5);
}
