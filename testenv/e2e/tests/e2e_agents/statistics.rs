//! Traffic of listeners, as the API tells it: over both nodes, across the end of one, and nothing of what OVN carries.

use std::time::{Duration, SystemTime};

use fiberlb_lab::Vm;
use fiberlb_lab::workload::Server;
use fiberlb_proto::v1;
use fiberlb_proto::v1::listener_service_client::ListenerServiceClient;

use crate::api::{id_of, online, tree_now};
use crate::common::{Tenant, until};
use crate::echo::EchoConnection;
use crate::resources::{OVN_PORT, VIPS, at, listener, load_balancer, load_balancer_v4};
use crate::scenario::scenario;
use crate::site::{Site, ask, serve, serve_v4, vm};
use crate::unknown_health::apply;

const REQUESTS: u64 = 20;
/// Connections that stay open.
const OPEN: usize = 8;
/// A drain timeout that no test waits for.
const DRAIN: Duration = Duration::from_secs(600);
/// Port of the listener that OVN carries.
const PLAIN_PORT: u16 = 81;

async fn statistics(tenant: &Tenant, id: &str) -> v1::LoadBalancerStatistics {
    let request = v1::GetLoadBalancerStatisticsRequest { id: id.to_owned() };
    tenant.client.clone().get_load_balancer_statistics(request).await.unwrap().into_inner()
}

/// Waits until so many connections are counted and have ended, and gives the traffic.
async fn counted(tenant: &Tenant, id: &str, connections: u64) -> v1::Traffic {
    until("the connections counted", async || {
        let traffic = statistics(tenant, id).await.traffic.unwrap();
        (traffic.connections_total == connections && traffic.connections_active == 0).then_some(traffic)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn traffic_is_counted_over_all_nodes_and_outlives_one() {
    scenario("traffic_is_counted_over_all_nodes_and_outlives_one", || async {
        let mut site = Site::start("statistics").await;
        let vms = [vm("b1", 1, "ch2", "sw0"), vm("c1", 11, "ch1", "sw0")];
        let [b1, c1]: [Vm; 2] = site.lab.add_vms(vms.into()).await.unwrap().try_into().unwrap();
        let _servers: [Server; 2] = serve(&b1);
        let mut tree = load_balancer("web", site.network, VIPS, &[1]);
        let proxied = v1::Listener { datapath: v1::Datapath::Proxy.into(), ..listener(OVN_PORT) };
        let plain = v1::Listener { port: PLAIN_PORT.into(), ..listener(OVN_PORT) };
        tree.listeners = vec![proxied, plain];
        let tree = online(&site.tenant, tree).await;
        site.lab.wait_for_sync().await.unwrap();
        let id = id_of(&tree);

        for port in [OVN_PORT, PLAIN_PORT] {
            assert!(ask(&c1, at(VIPS[0], port), REQUESTS).await.all_answered());
        }
        let first = counted(&site.tenant, &id, REQUESTS).await;
        assert!(first.bytes_out_total > 0, "{first:?}");
        assert_eq!(first.connections_failed_total, 0);
        for found in statistics(&site.tenant, &id).await.listeners {
            let listener = tree.listeners.iter().find(|listener| listener.id == found.listener_id).unwrap();
            let is_proxied = listener.port == u32::from(OVN_PORT);
            let total = found.traffic.unwrap().connections_total;
            assert_eq!((found.counted, total > 0), (is_proxied, is_proxied), "port {}", listener.port);
        }

        let backends = until("the connections of the backends counted", async || {
            let backends = statistics(&site.tenant, &id).await.backends;
            let traffic = backends.iter().filter_map(|backend| backend.traffic.as_ref());
            (traffic.map(|it| it.connections_total).sum::<u64>() == REQUESTS).then_some(backends)
        })
        .await;
        let pool = &tree.pools[0];
        let mut ids: Vec<&str> = pool.backends.iter().map(|backend| backend.id.as_str()).collect();
        ids.sort_unstable();
        assert_eq!(backends.iter().map(|backend| backend.backend_id.as_str()).collect::<Vec<_>>(), ids);
        assert!(backends.iter().all(|backend| backend.pool_id == pool.pool.as_ref().unwrap().id));
        let bytes = backends.iter().map(|backend| backend.traffic.as_ref().unwrap().bytes_out_total);
        assert_eq!(bytes.sum::<u64>(), first.bytes_out_total);
        let pools = statistics(&site.tenant, &id).await.pools;
        let of_pool = pools[0].traffic.as_ref().unwrap();
        assert_eq!((pools.len(), of_pool.connections_total), (1, REQUESTS));
        for traffic in [&first, of_pool] {
            let ended = traffic.durations.iter().map(|bucket| bucket.connections_total).sum::<u64>();
            assert_eq!(ended, REQUESTS, "{traffic:?}");
            assert!(traffic.duration_seconds_total > 0.0 && traffic.reasons.is_empty(), "{traffic:?}");
        }

        let id_of_proxied =
            tree.listeners.iter().find(|it| it.port == u32::from(OVN_PORT)).unwrap().id.clone();
        let mut listeners = ListenerServiceClient::new(site.tenant.plugin.channel().unwrap());
        let request = v1::GetListenerStatisticsRequest { id: id_of_proxied };
        let alone = listeners.get_listener_statistics(request).await.unwrap().into_inner();
        assert_eq!(alone.traffic.unwrap().connections_total, REQUESTS);

        // What a process has counted outlives it.
        site.nodes[0].kill().unwrap();
        site.nodes[0].start_again().await.unwrap();
        site.nodes_alive().await;
        let target = at(VIPS[0], OVN_PORT).to_string();
        site.until_listed(&target, "both nodes", |list| list.len() == 2).await;
        site.lab.wait_for_sync().await.unwrap();
        assert!(ask(&c1, at(VIPS[0], OVN_PORT), REQUESTS).await.all_answered());
        let both = counted(&site.tenant, &id, 2 * REQUESTS).await;
        assert!(both.bytes_out_total > first.bytes_out_total, "{both:?}");
        site.close();
    })
    .await;
}

/// Asserts that so many connections are left, which are reset at the end of a timeout that began a moment ago.
fn are_left(traffic: &v1::Traffic, connections: usize, timeout: Duration) -> bool {
    let left = traffic
        .drain_deadline
        .and_then(|deadline| SystemTime::try_from(deadline).ok()?.duration_since(SystemTime::now()).ok());
    let is_told = left.is_some_and(|left| left <= timeout);
    traffic.connections_draining == connections as u64 && is_told
}

/// A backend of weight 0, then deleted, and a listener that is disabled: what they have left is told.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_drain_has_left_is_told_with_its_deadline() {
    scenario("what_a_drain_has_left_is_told_with_its_deadline", || async {
        let site = Site::start("drains-told").await;
        let [b1, b2, c1] = site.vms([("b1", 1, "ch1"), ("b2", 2, "ch2"), ("c1", 11, "ch1")]).await;
        let _servers = [serve_v4(&b1), serve_v4(&b2)];
        let mut tree = load_balancer_v4("web", site.network, VIPS[0], &[1, 2]);
        tree.listeners = vec![v1::Listener { datapath: v1::Datapath::Proxy.into(), ..listener(OVN_PORT) }];
        let drain = prost_types::Duration { seconds: DRAIN.as_secs().try_into().unwrap(), nanos: 0 };
        tree.pools[0].pool.as_mut().unwrap().drain_timeout = Some(drain);
        let tree = online(&site.tenant, tree).await;
        let id = id_of(&tree);
        site.lab.wait_for_sync().await.unwrap();
        let open = EchoConnection::open_many(&c1, at(VIPS[0], OVN_PORT), OPEN).await;
        let of_b1 = open.iter().filter(|connection| connection.server == "b1").count();
        assert!(of_b1 > 0 && of_b1 < OPEN, "{of_b1} of b1");

        let first = tree.pools[0].backends.iter().find(|backend| backend.address == "10.0.0.1").unwrap();
        let mut wanted = tree_now(&site.tenant, &id).await;
        wanted.pools[0].backends.iter_mut().filter(|it| it.id == first.id).for_each(|it| it.weight = Some(0));
        apply(&site, wanted.clone()).await;
        until("the connections of a backend that drains", async || {
            let backends = statistics(&site.tenant, &id).await.backends;
            let of_first = backends.iter().find(|backend| backend.backend_id == first.id)?;
            are_left(of_first.traffic.as_ref()?, of_b1, DRAIN).then_some(())
        })
        .await;

        wanted.pools[0].backends.retain(|backend| backend.id != first.id);
        apply(&site, wanted.clone()).await;
        until("those of a backend that is gone", async || {
            let now = statistics(&site.tenant, &id).await;
            let is_gone = now.backends.iter().all(|backend| backend.backend_id != first.id);
            (is_gone && are_left(now.pools[0].traffic.as_ref()?, of_b1, DRAIN)).then_some(())
        })
        .await;

        let mut wanted = tree_now(&site.tenant, &id).await;
        wanted.listeners[0].admin_state_up = Some(false);
        apply(&site, wanted).await;
        until("those of a listener that is disabled", async || {
            let now = statistics(&site.tenant, &id).await;
            are_left(now.listeners[0].traffic.as_ref()?, OPEN, Duration::from_secs(30)).then_some(())
        })
        .await;
        drop(open);
        site.close();
    })
    .await;
}
