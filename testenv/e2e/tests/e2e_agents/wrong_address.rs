//! Backends that accept nothing, and that nobody checks: whoever typed their address learns of it.

use std::time::Duration;

use fiberlb_lab::workload::Requests;
use fiberlb_proto::v1;

use crate::api::{id_of, until_tree};
use crate::resources::{PROXY_PORT, at, listener, load_balancer_v4};
use crate::scenario::scenario;
use crate::site::Site;

const VIP: &str = "10.0.0.100";

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_whose_unchecked_backends_accept_nothing_says_so() {
    scenario("a_listener_whose_unchecked_backends_accept_nothing_says_so", || async {
        let site = Site::start("wrong").await;
        // There is a machine at the first address, which listens on no port, and none at the second.
        let [client, _deaf] = site.vms([("client", 11, "ch1"), ("deaf", 1, "ch2")]).await;
        let mut wanted = load_balancer_v4("web", site.network, VIP, &[1, 77]);
        wanted.pools[0].health_check = None;
        wanted.listeners =
            vec![v1::Listener { datapath: v1::Datapath::Proxy.into(), ..listener(PROXY_PORT) }];
        let id = id_of(&site.tenant.apply(wanted).await);
        let state = |tree: &v1::LoadBalancerTree| tree.listeners[0].state.clone().unwrap();
        let is_online =
            |tree: &v1::LoadBalancerTree| state(tree).operating_status() == v1::OperatingStatus::Online;
        until_tree(&site.tenant, &id, "a listener that is ONLINE", is_online).await;
        site.lab.wait_for_sync().await.unwrap();

        let short = Duration::from_secs(5);
        let report = Requests::tcp(&client, at(VIP, PROXY_PORT)).timeout(short).run(2).await.unwrap();
        assert_eq!(report.answered, 0);
        let says = "no backend accepts their connections";
        let told = until_tree(&site.tenant, &id, "a listener that says that", |tree| {
            state(tree).reason.contains(says)
        })
        .await;
        let state = state(&told);
        assert_eq!(state.operating_status(), v1::OperatingStatus::Degraded, "{state:?}");
        assert_eq!(state.reason_code, "SOME_PROXIES_FAILED");
        site.close();
    })
    .await;
}
