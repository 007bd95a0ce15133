//! Several pools behind one listener: on OVN's path and through proxies.

use std::time::Duration;

use fiberlb_lab::workload::{Requests, Server, Trace};
use fiberlb_proto::v1;

use crate::api::{id_of, online, tree_now, until_tree};
use crate::command::fiberlb;
use crate::resources::{OVN_PORT, PROXY_PORT, VIPS, at, backend, check, listener, load_balancer_v4};
use crate::scenario::scenario;
use crate::site::{Site, ask, serve_v4};

/// Requests that show a share: of a tenth of them no draw is off by a tenth.
const REQUESTS: u64 = 300;

/// Port of the listener over UDP.
const UDP_PORT: u16 = 82;

fn pools(weights: [u32; 2]) -> Vec<v1::WeightedPool> {
    let pools = ["blue", "green"].into_iter().zip(weights);
    pools.map(|(name, weight)| v1::WeightedPool { pool_id: name.to_owned(), weight: Some(weight) }).collect()
}

/// A pool of one backend.
fn pool(name: &str, number: u8, protocol: v1::PoolProtocol) -> v1::PoolTree {
    let pool = v1::Pool { name: name.to_owned(), protocol: protocol.into(), ..Default::default() };
    v1::PoolTree {
        pool: Some(pool),
        backends: vec![backend(&format!("10.0.0.{number}"))],
        health_check: Some(check()),
    }
}

/// A load balancer with listeners that OVN and proxies carry, both over the pools blue and green.
fn blue_and_green(site: &Site, weights: [u32; 2]) -> v1::LoadBalancerTree {
    let own = |port| {
        let own = listener(port);
        v1::Listener { default_pool_id: String::new(), weighted_pools: pools(weights), ..own }
    };
    let proxied = v1::Listener { datapath: v1::Datapath::Proxy.into(), ..own(PROXY_PORT) };
    v1::LoadBalancerTree {
        listeners: vec![own(OVN_PORT), proxied],
        pools: vec![pool("blue", 1, v1::PoolProtocol::Tcp), pool("green", 2, v1::PoolProtocol::Tcp)],
        ..load_balancer_v4("shop", site.network, VIPS[0], &[])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_divide_among_pools_and_follow_the_weights_without_a_failure() {
    scenario("connections_divide_among_pools_and_follow_the_weights_without_a_failure", || async {
        let site = Site::start("division").await;
        let [b1, b2, client] = site.vms([("b1", 1, "ch1"), ("b2", 2, "ch2"), ("c1", 11, "ch1")]).await;
        let (_blue, green) = (serve_v4(&b1), serve_v4(&b2));
        let tree = online(&site.tenant, blue_and_green(&site, [90, 10])).await;
        site.lab.wait_for_sync().await.unwrap();
        let carriers: Vec<_> = tree.listeners.iter().map(v1::Listener::datapath_in_force).collect();
        assert_eq!(carriers, [v1::Datapath::Ovn, v1::Datapath::Proxy], "{:?}", tree.listeners);
        let list = site.listed("10.0.0.100:80").await;
        let blues = list.iter().filter(|entry| entry.starts_with("10.0.0.1:")).count();
        assert_eq!((list.len(), blues), (10, 9), "{list:?}");
        let targets = [at(VIPS[0], OVN_PORT), at(VIPS[0], PROXY_PORT)];
        for target in targets {
            let report = ask(&client, target, REQUESTS).await;
            assert!(report.all_answered() && (5..=75).contains(&report.share("b2")), "{target}: {report}");
        }

        // All to green, by the command, while clients come and go.
        let every = Duration::from_millis(10);
        let traces = targets.map(|target| Trace::start(&client, target, every).unwrap());
        for listener in ["80", "81"] {
            let words = format!("listener update shop/{listener} --pool blue=0 --pool green=100 --wait");
            fiberlb(&site, &words).await.ok();
        }
        site.lab.wait_for_sync().await.unwrap();
        for target in targets {
            let report = ask(&client, target, 40).await;
            assert!(report.all_answered() && report.share("b2") == 40, "{target}: {report}");
        }
        for trace in traces {
            let samples = trace.stop().await;
            let failed: Vec<_> = samples.iter().filter(|sample| sample.outcome.is_err()).collect();
            assert!(!samples.is_empty() && failed.is_empty(), "{failed:?} of {}", samples.len());
        }

        // Nobody serves green: its share is blue's, and the status says so.
        let id = id_of(&tree);
        let mut shared = tree_now(&site.tenant, &id).await;
        for listener in &mut shared.listeners {
            listener.weighted_pools.iter_mut().for_each(|pool| pool.weight = Some(50));
        }
        site.tenant.apply(shared).await;
        drop(green);
        until_tree(&site.tenant, &id, "green down", |tree| {
            let codes = tree.listeners.iter().map(|it| it.state.as_ref().unwrap().reason_code.as_str());
            codes.eq(["SOME_POOLS_FAILED"; 2])
        })
        .await;
        site.until_listed("10.0.0.100:80", "blue alone", |list| list == ["10.0.0.1:8080"]).await;
        site.lab.wait_for_sync().await.unwrap();
        for target in targets {
            let report = ask(&client, target, 40).await;
            assert!(report.all_answered() && report.share("b1") == 40, "{target}: {report}");
        }
        site.close();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_of_udp_and_clients_that_stay_divide_among_pools() {
    scenario("sessions_of_udp_and_clients_that_stay_divide_among_pools", || async {
        let site = Site::start("division-udp").await;
        let vms = [("b1", 1, "ch1"), ("b2", 2, "ch2"), ("c1", 11, "ch1"), ("c2", 12, "ch2")];
        let [b1, b2, c1, c2] = site.vms(vms).await;
        let servers = [&b1, &b2].map(|vm| {
            let address = std::net::SocketAddr::new(vm.ipv4().unwrap(), crate::site::BACKEND_PORT);
            (serve_v4(vm), Server::udp(vm, address, vm.name()).unwrap())
        });
        let mut tree = blue_and_green(&site, [50, 50]);
        for pool in tree.pools.iter_mut().filter_map(|it| it.pool.as_mut()) {
            let kind = v1::SessionPersistenceType::SourceIp.into();
            pool.session_persistence = Some(v1::SessionPersistence { r#type: kind, ..Default::default() });
        }
        tree.pools.extend([
            pool("blue-udp", 1, v1::PoolProtocol::Udp),
            pool("green-udp", 2, v1::PoolProtocol::Udp),
        ]);
        for datapath in [v1::Datapath::Auto, v1::Datapath::Proxy] {
            let mut weighted = pools([50, 50]);
            weighted.iter_mut().for_each(|pool| pool.pool_id += "-udp");
            tree.listeners.push(v1::Listener {
                protocol: v1::ListenerProtocol::Udp.into(),
                default_pool_id: String::new(),
                weighted_pools: weighted,
                datapath: datapath.into(),
                ..listener(UDP_PORT + u16::from(datapath == v1::Datapath::Proxy))
            });
        }
        online(&site.tenant, tree).await;
        site.lab.wait_for_sync().await.unwrap();
        for port in [UDP_PORT, UDP_PORT + 1] {
            let report = Requests::udp(&c1, at(VIPS[0], port)).run(100).await.unwrap();
            assert!(report.all_answered() && (10..=90).contains(&report.share("b1")), "{port}: {report}");
        }
        for client in [&c1, &c2] {
            let report = ask(client, at(VIPS[0], PROXY_PORT), 30).await;
            assert!(report.all_answered() && report.shares.len() == 1, "{}: {report}", client.name());
        }
        drop(servers);
        site.close();
    })
    .await;
}
