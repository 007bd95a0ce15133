//! Troubles of a network are said in the statuses of what is on it.

use fiberlb_proto::v1;

use crate::api::{backend, fares, id_of, levels, until_tree};
use crate::resources::{OVN_PORT, VIPS, listener, load_balancer_v4};
use crate::scenario::scenario;
use crate::site::{Site, serve_v4};

/// Code of the only listener's reason.
fn code(tree: &v1::LoadBalancerTree) -> &str {
    &tree.listeners[0].state.as_ref().unwrap().reason_code
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_network_is_said_of_what_is_on_it() {
    scenario("what_is_wrong_with_a_network_is_said_of_what_is_on_it", || async {
        let site = Site::start("network-status").await;
        let [b1] = site.vms([("b1", 1, "ch1")]).await;
        let _server = serve_v4(&b1);
        // The other backend is in no subnet of the network, which has no router.
        let mut wanted = load_balancer_v4("web", site.network, VIPS[0], &[1]);
        wanted.listeners = vec![listener(OVN_PORT)];
        wanted.pools[0].backends.push(crate::resources::backend("192.0.2.1"));
        let id = id_of(&site.tenant.apply(wanted).await);
        let tree = until_tree(&site.tenant, &id, "no route, in words", |tree| {
            fares(tree, "192.0.2.1").1.contains("no route to it from the network")
                && fares(tree, "10.0.0.1").0 == v1::OperatingStatus::Online
        })
        .await;
        assert_eq!(fares(&tree, "192.0.2.1").0, v1::OperatingStatus::Offline);
        assert!(levels(&tree).iter().all(|(status, _)| *status == v1::OperatingStatus::Degraded), "{tree:?}");
        let health = site.operator().health(&backend(&tree, "192.0.2.1").id).await;
        for verdict in &health.verdicts {
            assert!(
                !verdict.up && verdict.addresses.iter().any(|it| it.starts_with("10.0.0.")),
                "{verdict:?}"
            );
        }
        assert!(!health.verdicts.is_empty(), "{health:?}");

        let mut without = tree.clone();
        without.pools[0].backends.retain(|backend| backend.address != "192.0.2.1");
        site.tenant.apply(without).await;
        until_tree(&site.tenant, &id, "ONLINE", |tree| code(tree).is_empty()).await;

        let nbctl = async |arguments: &[&str]| drop(site.lab.nbctl(arguments).await.unwrap());
        nbctl(&["pg-add", "security", "b1"]).await;
        for holder in ["sw0", "security"] {
            nbctl(&["acl-add", holder, "from-lport", "1000", "ip4", "allow-stateless"]).await;
            let tree =
                until_tree(&site.tenant, &id, "STATELESS_ACLS", |tree| code(tree) == "STATELESS_ACLS").await;
            assert!(levels(&tree)[0].0 == v1::OperatingStatus::Degraded, "{holder}: {tree:?}");
            nbctl(&["acl-del", holder]).await;
            until_tree(&site.tenant, &id, "no ACL", |tree| code(tree).is_empty()).await;
        }

        let localnet =
            ["lsp-set-type", "wire", "localnet", "--", "lsp-set-options", "wire", "network_name=physnet"];
        nbctl(
            &[&["lsp-add", "sw0", "wire", "--", "lsp-set-addresses", "wire", "unknown", "--"][..], &localnet]
                .concat(),
        )
        .await;
        let tree =
            until_tree(&site.tenant, &id, "PHYSICAL_NETWORK", |tree| code(tree) == "PHYSICAL_NETWORK").await;
        assert!(levels(&tree)[0].0 == v1::OperatingStatus::Online && levels(&tree)[0].1.contains("DIRECT"));
        nbctl(&["lsp-del", "wire"]).await;
        until_tree(&site.tenant, &id, "no wire", |tree| code(tree).is_empty()).await;

        nbctl(&["ls-del", "sw0"]).await;
        let is_gone = |state: Option<&v1::ResourceState>| {
            state.is_some_and(|state| {
                state.reason_code == "NETWORK_GONE"
                    && state.provisioning_status() == v1::ProvisioningStatus::Error
                    && state.operating_status() == v1::OperatingStatus::Error
            })
        };
        until_tree(&site.tenant, &id, "NETWORK_GONE at every level", |tree| {
            let PoolStates { pool, backends, check } = PoolStates::of(tree);
            is_gone(tree.load_balancer.as_ref().and_then(|it| it.state.as_ref()))
                && is_gone(tree.listeners[0].state.as_ref())
                && is_gone(pool)
                && is_gone(check)
                && backends.into_iter().all(is_gone)
        })
        .await;
        crate::api::delete(&site.tenant, &id).await;
        site.close();
    })
    .await;
}

/// States of the only pool, and of what is below it.
struct PoolStates<'a> {
    pool: Option<&'a v1::ResourceState>,
    backends: Vec<Option<&'a v1::ResourceState>>,
    check: Option<&'a v1::ResourceState>,
}

impl<'a> PoolStates<'a> {
    fn of(tree: &'a v1::LoadBalancerTree) -> Self {
        let below = &tree.pools[0];
        Self {
            pool: below.pool.as_ref().and_then(|it| it.state.as_ref()),
            backends: below.backends.iter().map(|it| it.state.as_ref()).collect(),
            check: below.health_check.as_ref().and_then(|it| it.state.as_ref()),
        }
    }
}
