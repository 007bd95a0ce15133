//! The largest tree that the limits allow, applied and applied again, beside another client.

use std::time::{Duration, Instant};

use fiberlb_proto::v1;

use crate::world::{World, load_balancer};

/// Bounds without optimisation, on a machine that does other things; optimised and alone it is 1 s, 0.5 s and 0.1 s.
const NEW: Duration = Duration::from_secs(20);
const AGAIN: Duration = Duration::from_secs(10);
const OTHERS: Duration = Duration::from_secs(2);

pub(crate) fn listener(port: u32, pool: &str) -> v1::Listener {
    let protocol = v1::ListenerProtocol::Tcp.into();
    v1::Listener { protocol, port, default_pool_id: pool.to_owned(), ..Default::default() }
}

pub(crate) fn pool(index: u32) -> v1::Pool {
    v1::Pool { name: format!("p{index}"), protocol: v1::PoolProtocol::Tcp.into(), ..Default::default() }
}

pub(crate) fn backend(pool: u32, index: u32) -> v1::Backend {
    let address = format!("10.{}.{}.{}", 1 + pool % 200, 1 + index / 250, 1 + index % 250);
    v1::Backend { address, port: 8080, ..Default::default() }
}

/// A tree of so many listeners and pools, each of so many backends.
pub(crate) fn tree(vip: &str, listeners: u32, pools: u32, backends: u32) -> v1::LoadBalancerTree {
    let whole = |index: u32| v1::PoolTree {
        pool: Some(pool(index)),
        backends: (0..backends).map(|backend_index| backend(index, backend_index)).collect(),
        health_check: None,
    };
    v1::LoadBalancerTree {
        load_balancer: Some(load_balancer(vip)),
        listeners: (0..listeners).map(|index| listener(1 + index, &format!("p{}", index % pools))).collect(),
        pools: (0..pools).map(whole).collect(),
        ..Default::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: make test-hostile"]
async fn hostile_trees_of_the_largest_size_keep_nobody_waiting() {
    let world = World::start().await;
    let other = world.create("10.0.0.1").await;
    let mut tree = tree("10.0.0.2", 100, 20, 500);
    tree.load_balancer.as_mut().unwrap().name = "large".to_owned();
    for (bound, created) in [(NEW, 10_121), (AGAIN, 0)] {
        let latency = world.watch_latency(other.clone());
        let began = Instant::now();
        let request = v1::ApplyLoadBalancerRequest { tree: Some(tree.clone()), ..Default::default() };
        let applied = world.client().apply_load_balancer(request).await.unwrap().into_inner();
        let (took, latency) = (began.elapsed(), latency.longest().await);
        println!(
            "{} created, {} unchanged: {took:.1?}; another client waited {latency:.1?}",
            applied.created, applied.unchanged
        );
        assert_eq!((applied.created, applied.created + applied.unchanged), (created, 10_121));
        assert!(took < bound, "{took:?}");
        assert!(latency < OTHERS, "another client waited {latency:?}");
    }
    world.check_memory();
}
