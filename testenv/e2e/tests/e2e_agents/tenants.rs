//! Two tenants with the same addresses, on two networks of the same nodes: each meets only its own.

use fiberlb_proto::v1;

use crate::api::{fares, id_of, online, until_tree};
use crate::resources::{DIRECT_VIPS, OVN_PORT, PROXY_PORT, VIPS, at, load_balancer, on_both, on_one_node};
use crate::scenario::scenario;
use crate::site::{Site, add_tenant_network, ask, serve, vm};

#[tokio::test(flavor = "multi_thread")]
async fn tenants_with_the_same_addresses_meet_only_their_own() {
    scenario("tenants_with_the_same_addresses_meet_only_their_own", || async {
        let site = Site::start("tenants").await;
        let other = add_tenant_network(&site.lab, "sw1").await;
        let specs = [
            ("a1", 1, "ch1", "sw0"),
            ("ac", 11, "ch2", "sw0"),
            ("z1", 1, "ch2", "sw1"),
            ("zc", 11, "ch1", "sw1"),
        ];
        let specs = specs.map(|(name, number, chassis, switch)| vm(name, number, chassis, switch));
        let [a1, ac, z1, zc] = site.lab.add_vms(specs.into()).await.unwrap().try_into().unwrap();
        let (ill, _well) = (serve(&a1), serve(&z1));
        let mut trees = Vec::new();
        for (name, network) in [("a", site.network), ("z", other)] {
            let rows = on_both(load_balancer(name, network, VIPS, &[1]));
            trees.push(online(&site.tenant, rows).await);
            let direct = on_one_node(load_balancer(&format!("{name}-direct"), network, DIRECT_VIPS, &[1]));
            trees.push(online(&site.tenant, direct).await);
        }
        site.lab.wait_for_sync().await.unwrap();
        let targets = [
            VIPS.map(|vip| at(vip, OVN_PORT)),
            VIPS.map(|vip| at(vip, PROXY_PORT)),
            DIRECT_VIPS.map(|vip| at(vip, OVN_PORT)),
        ];
        for (client, own) in [(&ac, "a1"), (&zc, "z1")] {
            for target in targets.as_flattened() {
                let report = ask(client, *target, 10).await;
                assert_eq!((report.answered, report.share(own)), (10, 10), "{own} by {target}: {report}");
            }
        }

        // One tenant's backend fails: the other's, of the same address, does not.
        drop(ill);
        until_tree(&site.tenant, &id_of(&trees[0]), "the first tenant's backend OFFLINE", |tree| {
            fares(tree, "10.0.0.1").0 == v1::OperatingStatus::Offline
        })
        .await;
        let others = crate::api::tree_now(&site.tenant, &id_of(&trees[2])).await;
        assert_eq!(fares(&others, "10.0.0.1").0, v1::OperatingStatus::Online);
        for target in targets.as_flattened() {
            let report = ask(&zc, *target, 10).await;
            assert_eq!((report.answered, report.share("z1")), (10, 10), "{target}: {report}");
        }
        site.close();
    })
    .await;
}
