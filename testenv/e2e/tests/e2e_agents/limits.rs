//! Limits of listeners, clients and backends, as clients meet them on real OVN: exact over two nodes.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use fiberlb_lab::Vm;
use fiberlb_proto::v1;

use crate::api::online;
use crate::common::until;
use crate::echo::{EchoConnection, alive};
use crate::resources::{DIRECT_VIPS, OVN_PORT, VIPS, at, listener, load_balancer_v4};
use crate::scenario::scenario;
use crate::site::{Site, serve_v4};

/// VIP of the load balancer whose backend is bounded.
const QUEUED_VIP: &str = "10.0.0.102";
/// Limits over both nodes.
const LIMIT: usize = 6;
const BACKEND_LIMIT: u32 = 4;
/// Connections in vain after which no more will be served: each node was met, for all that chance allows.
const IN_VAIN: usize = 30;
/// Time between two of them, in which shares may change, and for a limit to be reached.
const PAUSE: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(60);

/// Connects until nobody is served any more, to at most so many.
async fn open_all(client: &Vm, target: SocketAddr, most: usize) -> Vec<EchoConnection> {
    let (mut open, mut in_vain) = (Vec::new(), 0);
    while in_vain < IN_VAIN {
        match EchoConnection::try_open(client, target).await {
            Ok(connection) => open.push(connection),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
                in_vain += 1;
            }
        }
        assert!(open.len() <= most, "{} at a time", open.len());
    }
    open
}

/// Connects until there are so many, by shares that follow who is turned away; never are there more.
async fn fill(client: &Vm, targets: &[SocketAddr], open: &mut Vec<EchoConnection>) {
    let (mut in_vain, began) = (0, Instant::now());
    for target in targets.iter().cycle() {
        match EchoConnection::try_open(client, *target).await {
            Ok(connection) => open.push(connection),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
                in_vain += usize::from(open.len() == LIMIT);
                tokio::time::sleep(PAUSE).await;
            }
        }
        assert!(open.len() <= LIMIT, "{} at a time", open.len());
        if in_vain == IN_VAIN {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{} of {LIMIT} after {PATIENCE:?}", open.len());
    }
}

/// Waits until clients are served by all nodes: each finds out by itself that the backend is up.
async fn until_served(client: &Vm, target: SocketAddr) {
    until(&format!("{target} served"), async || {
        for _ in 0..10 {
            EchoConnection::try_open(client, target).await.ok()?;
        }
        Some(())
    })
    .await;
}

/// Sum over all nodes of a listener's connections that waited, or that ended for a reason.
async fn total(site: &Site, what: &str, listener: &str) -> f64 {
    let line = match what {
        "queued" => format!("fiberlb_proxy_listener_queued_total{{listener=\"{listener}\"}}"),
        reason => format!("fiberlb_proxy_listener_ends_total{{listener=\"{listener}\",reason=\"{reason}\"}}"),
    };
    let mut total = 0.0;
    for node in &site.nodes {
        total += node.metric(&line).await.unwrap_or(0.0);
    }
    total
}

/// Waits until nodes have counted so many, which they show after a second or so.
async fn until_counted(site: &Site, what: &str, listener: &str, least: f64) {
    let waited_for = format!("{what} of {least}");
    until(&waited_for, async || (total(site, what, listener).await >= least).then_some(())).await;
}

/// A load balancer whose listener is as wanted.
fn with(mut tree: v1::LoadBalancerTree, change: impl FnOnce(&mut v1::Listener)) -> v1::LoadBalancerTree {
    let mut listener = listener(OVN_PORT);
    change(&mut listener);
    tree.listeners = vec![listener];
    tree
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_exactly_over_both_nodes_and_who_waits_is_served() {
    scenario("limits_hold_exactly_over_both_nodes_and_who_waits_is_served", || async {
        let site = Site::start("limits").await;
        let [b1, c1, c2] = site.vms([("b1", 1, "ch1"), ("c1", 11, "ch1"), ("c2", 12, "ch2")]).await;
        let _server = serve_v4(&b1);
        let bounded = with(load_balancer_v4("bounded", site.network, VIPS[0], &[1]), |listener| {
            listener.connection_limit = Some(LIMIT as i32);
        });
        let bounded = online(&site.tenant, bounded).await;
        let of_clients =
            with(load_balancer_v4("of-clients", site.network, DIRECT_VIPS[0], &[1]), |listener| {
                listener.exposure = v1::Exposure::Direct.into();
                listener.client_connection_limit = 2;
            });
        let of_clients = online(&site.tenant, of_clients).await;
        let mut queued = with(load_balancer_v4("queued", site.network, QUEUED_VIP, &[1]), |_| {});
        queued.pools[0].backends[0].connection_limit = BACKEND_LIMIT;
        queued.pools[0].pool.as_mut().unwrap().queue_limit = 20;
        queued.pools[0].pool.as_mut().unwrap().queue_timeout =
            Some(prost_types::Duration { seconds: 30, nanos: 0 });
        let queued = online(&site.tenant, queued).await;
        site.lab.wait_for_sync().await.unwrap();
        for (tree, reason) in [
            (&bounded, "a connection limit needs it"),
            (&of_clients, "DIRECT exposure needs it"),
            (&queued, "a connection limit of the pool's backends needs it"),
        ] {
            assert_eq!(tree.listeners[0].datapath_in_force(), v1::Datapath::Proxy);
            assert_eq!(tree.listeners[0].datapath_reason, reason);
        }

        // The sum over both nodes is the limit, and a place that is free is taken again.
        let (target, id) = (at(VIPS[0], OVN_PORT), &bounded.listeners[0].id);
        until_served(&c1, target).await;
        let mut open = Vec::new();
        fill(&c1, &[target], &mut open).await;
        until_counted(&site, "connection_limit", id, IN_VAIN as f64).await;
        assert_eq!(alive(&mut open).await, LIMIT);
        drop(open.pop());
        fill(&c1, &[target], &mut open).await;
        drop(open);

        // The shares follow the clients: all of the limit by one node, then by the other one, then by both.
        let row = target.to_string();
        site.until_listed(&row, "both nodes", |list| list.len() == 2).await;
        let nodes: Vec<SocketAddr> =
            site.listed(&row).await.iter().map(|entry| entry.parse().unwrap()).collect();
        for node in &nodes {
            let mut open = Vec::new();
            fill(&c1, &[*node], &mut open).await;
            // One that is closed there may be had again on either node, and none beside it.
            drop(open.pop());
            fill(&c1, &nodes, &mut open).await;
            assert_eq!(alive(&mut open).await, LIMIT);
        }

        // Each client has its own connections.
        let target = at(DIRECT_VIPS[0], OVN_PORT);
        until_served(&c1, target).await;
        let mut of_both = Vec::new();
        for client in [&c1, &c2] {
            let open = open_all(client, target, 2).await;
            assert_eq!(open.len(), 2, "{}", client.name());
            of_both.extend(open);
        }
        assert_eq!(alive(&mut of_both).await, 4);
        let id = &of_clients.listeners[0].id;
        until_counted(&site, "client_limit", id, 2.0 * IN_VAIN as f64).await;

        // A backend never has more than its limit, and nobody is turned away.
        let (target, now, most) =
            (at(QUEUED_VIP, OVN_PORT), Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let clients: Vec<_> = (0..24)
            .map(|_| {
                let (client, now, most) = (c1.clone(), Arc::clone(&now), Arc::clone(&most));
                tokio::spawn(async move {
                    let mut connection = EchoConnection::open(&client, target).await;
                    most.fetch_max(now.fetch_add(1, Relaxed) + 1, Relaxed);
                    assert!(connection.echoes().await);
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    now.fetch_sub(1, Relaxed);
                })
            })
            .collect();
        for client in clients {
            client.await.unwrap();
        }
        let most = most.load(Relaxed);
        assert!((2..=BACKEND_LIMIT as usize).contains(&most), "{most} at a time");
        let id = &queued.listeners[0].id;
        until_counted(&site, "queued", id, 24.0 - f64::from(BACKEND_LIMIT)).await;
        for reason in ["queue_timeout", "backends_full", "no_backend"] {
            assert_eq!(total(&site, reason, id).await, 0.0, "{reason}");
        }
        site.close();
    })
    .await;
}
