//! The table of limits in docs/api.md, each at ten times its value.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fiberlb_daemon::testing::cpu_time;
use fiberlb_proto::v1;
use fiberlb_proto::v1::watch_service_client::WatchServiceClient;
use futures_util::future::join_all;
use prost::Message as _;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tonic::Code;

use crate::trees::tree;
use crate::world::{MESSAGE, SOON, World, check_refusal, load_balancer};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: make test-hostile"]
async fn hostile_counts_at_ten_times_the_limits_are_refused_soon() {
    let world = World::start().await;
    let trees = [
        ("listeners_per_load_balancer", tree("10.0.0.2", 1000, 1, 0)),
        ("pools_per_load_balancer", tree("10.0.0.2", 0, 1000, 0)),
        ("backends_per_pool", tree("10.0.0.2", 0, 1, 5000)),
        ("backends_per_pool", tree("10.0.0.2", 0, 40, 5000)),
    ];
    for (limit, tree) in trees {
        let began = Instant::now();
        let request = v1::ApplyLoadBalancerRequest { tree: Some(tree), ..Default::default() };
        let refused = world.client().apply_load_balancer(request).await.unwrap_err();
        println!("{limit}: {:.1?}", began.elapsed());
        check_refusal(limit, &refused);
        assert_eq!(refused.code(), Code::ResourceExhausted, "{limit}: {refused}");
        assert!(began.elapsed() < SOON, "{limit}: {:?}", began.elapsed());
    }
    let root = v1::LoadBalancer {
        tags: (0..500).map(|tag| format!("{tag:0>255}")).collect(),
        ..load_balancer("10.0.0.2")
    };
    let request = v1::CreateLoadBalancerRequest { load_balancer: Some(root), ..Default::default() };
    let refused = world.client().create_load_balancer(request).await.unwrap_err();
    check_refusal("tags", &refused);
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    world.check_memory();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: make test-hostile"]
async fn hostile_messages_of_ten_times_the_size_are_refused() {
    let world = World::start().await;
    let other = world.create("10.0.0.1").await;
    let latency = world.watch_latency(other);
    let root = v1::LoadBalancer { name: "x".repeat(10 * MESSAGE), ..load_balancer("10.0.0.2") };
    let request = v1::CreateLoadBalancerRequest { load_balancer: Some(root), ..Default::default() };
    for _ in 0..10 {
        let refused = world.client().create_load_balancer(request.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    }
    let latency = latency.longest().await;
    assert!(latency < SOON, "another client waited {latency:?}");
    world.check_memory();
}

/// As many large requests at once as ten times those that are worked on: they take turns.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: make test-hostile"]
async fn hostile_crowds_of_large_requests_take_turns() {
    let world = World::start().await;
    let other = world.create("10.0.0.1").await;
    let latency = world.watch_latency(other);
    // Some 3 MB, with more backends than a pool may have; encoded once, since a client that is slow to send is another test.
    let request =
        v1::ApplyLoadBalancerRequest { tree: Some(tree("10.0.0.2", 0, 20, 4000)), ..Default::default() };
    let message = request.encode_to_vec();
    let began = Instant::now();
    let apply = "/fiberlb.v1.LoadBalancerService/ApplyLoadBalancer";
    let calls = (0..40).map(|_| async { world.send(apply, message.clone()).await.0.unwrap_err() });
    let refusals = join_all(calls).await;
    println!("40 large requests of {} bytes at once took {:.1?}", message.len(), began.elapsed());
    for refused in &refusals {
        check_refusal("a large request among others", refused);
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    }
    let latency = latency.longest().await;
    println!("another client waited {latency:.1?}");
    assert!(latency < 2 * SOON, "another client waited {latency:?}");
    world.check_memory();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: make test-hostile"]
async fn hostile_numbers_of_watches_are_bounded_and_take_no_memory() {
    let world = World::start().await;
    let request =
        v1::ApplyLoadBalancerRequest { tree: Some(tree("10.0.0.1", 100, 20, 500)), ..Default::default() };
    world.client().apply_load_balancer(request).await.unwrap();
    let (mut open, mut refused) = (Vec::new(), 0);
    for _ in 0..640 {
        // It takes nothing from the stream.
        match WatchServiceClient::new(world.channel()).watch(v1::WatchRequest::default()).await {
            Ok(events) => open.push(events),
            Err(status) => {
                check_refusal("a watch", &status);
                assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                refused += 1;
            }
        }
    }
    assert_eq!((open.len(), refused), (64, 576));
    // Each has something to say to all of them.
    let mut client = world.client();
    let id = client.list_load_balancers(v1::ListLoadBalancersRequest::default()).await.unwrap().into_inner();
    let id = id.load_balancers[0].id.clone();
    let began = Instant::now();
    for index in 0..20 {
        let root = v1::LoadBalancer { id: id.clone(), name: format!("name-{index}"), ..Default::default() };
        let request = v1::UpdateLoadBalancerRequest { load_balancer: Some(root), ..Default::default() };
        client.update_load_balancer(request).await.unwrap();
    }
    println!("20 writes with 64 slow watches of 10,000 backends took {:.1?}", began.elapsed());
    world.check_memory();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: make test-hostile"]
async fn hostile_page_sizes_give_pages_that_clients_take() {
    let world = World::start().await;
    let mut whole = tree("10.0.0.1", 0, 20, 500);
    for pool in &mut whole.pools {
        for backend in &mut pool.backends {
            backend.tags = (0..50).map(|tag| format!("{tag:0>100}")).collect();
        }
    }
    // In parts, each within one message.
    let root = world.create("10.0.0.1").await;
    let mut pools = fiberlb_proto::v1::pool_service_client::PoolServiceClient::new(world.channel());
    let mut made = 0;
    for pool in whole.pools.into_iter().take(2) {
        let request = v1::CreatePoolRequest {
            pool: Some(v1::Pool { load_balancer_id: root.clone(), ..pool.pool.unwrap() }),
            ..Default::default()
        };
        let id = pools.create_pool(request).await.unwrap().into_inner().id;
        let calls = pool.backends.into_iter().map(|backend| {
            let mut client = v1::backend_service_client::BackendServiceClient::new(world.channel());
            let backend = v1::Backend { pool_id: id.clone(), ..backend };
            async move {
                let request = v1::CreateBackendRequest { backend: Some(backend), ..Default::default() };
                client.create_backend(request).await.unwrap();
            }
        });
        for call in calls {
            call.await;
            made += 1;
        }
    }
    // With the client's own default of 4 MiB.
    let mut client = v1::backend_service_client::BackendServiceClient::new(world.channel());
    let (mut listed, mut pages, mut page_token) = (0, 0, String::new());
    loop {
        let request = v1::ListBackendsRequest { page_size: 10_000, page_token, ..Default::default() };
        let page = client.list_backends(request).await.unwrap().into_inner();
        assert!(page.backends.len() <= 1000, "{}", page.backends.len());
        (listed, pages) = (listed + page.backends.len(), pages + 1);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(listed, made);
    assert!(pages > 2, "{pages} pages of {made} large backends");
    world.check_memory();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: make test-hostile"]
async fn hostile_lists_of_subnets_give_pages_that_clients_take() {
    let world = World::start().await;
    let cidrs = |first: u32| {
        (0..100).map(|index| format!("fd00:{first:04x}:ffff:ffff:ffff:ffff:ffff:f{index:03x}/128")).collect()
    };
    let trees = 10;
    for number in 1..=trees {
        let mut tree = tree(&format!("10.0.0.{number}"), 100, 1, 0);
        for listener in &mut tree.listeners {
            (listener.allowed_cidrs, listener.trusted_proxies) = (cidrs(1), cidrs(2));
        }
        let request = v1::ApplyLoadBalancerRequest { tree: Some(tree), ..Default::default() };
        world.client().apply_load_balancer(request).await.unwrap();
    }
    // With the client's own default of 4 MiB.
    let mut client = v1::listener_service_client::ListenerServiceClient::new(world.channel());
    let (mut listed, mut largest, mut page_token) = (0, 0, String::new());
    loop {
        let request = v1::ListListenersRequest { page_size: 1000, page_token, ..Default::default() };
        let page = client.list_listeners(request).await.unwrap().into_inner();
        (listed, largest) = (listed + page.listeners.len(), largest.max(page.encoded_len()));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    println!("the largest page has {largest} bytes");
    assert_eq!(listed, 100 * trees);
    assert!(largest < 2 << 20, "{largest}");
    world.check_memory();
}

/// CPU time of the plugin for ten writes to a tree of 3,000 backends, which so many readers follow.
async fn cpu_of_writes(world: &World, id: &str, readers: usize) -> Duration {
    let (seen, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(Barrier::new(readers + 1)));
    let mut tasks = JoinSet::new();
    for _ in 0..readers {
        let request = v1::WatchRequest { load_balancer_id: id.to_owned() };
        let mut events = WatchServiceClient::new(world.channel()).watch(request).await.unwrap().into_inner();
        let (seen, open) = (Arc::clone(&seen), Arc::clone(&open));
        tasks.spawn(async move {
            while events.message().await.unwrap().unwrap().r#type() != v1::watch_event::Type::Synced {}
            open.wait().await;
            while events.message().await.is_ok_and(|event| event.is_some()) {
                seen.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    open.wait().await;
    let began = cpu_time(world.process());
    for index in 1..=10 {
        let root =
            v1::LoadBalancer { id: id.to_owned(), name: format!("{readers}-{index}"), ..Default::default() };
        let request = v1::UpdateLoadBalancerRequest { load_balancer: Some(root), ..Default::default() };
        world.client().update_load_balancer(request).await.unwrap();
        let all_have_seen = async {
            while seen.load(Ordering::Relaxed) < index * readers {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), all_have_seen).await.unwrap();
    }
    tasks.shutdown().await;
    cpu_time(world.process()) - began
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "slow: make test-hostile"]
async fn hostile_numbers_of_watches_cost_little_more_than_a_few() {
    let world = World::start().await;
    let request =
        v1::ApplyLoadBalancerRequest { tree: Some(tree("10.0.0.1", 1, 6, 500)), ..Default::default() };
    let applied = world.client().apply_load_balancer(request).await.unwrap().into_inner();
    let id = applied.tree.unwrap().load_balancer.unwrap().id;
    let (few, many) = (cpu_of_writes(&world, &id, 2).await, cpu_of_writes(&world, &id, 60).await);
    println!("ten writes to 3,000 backends cost {few:.1?} of CPU with 2 watches, {many:.1?} with 60");
    assert!(many < 3 * few, "{many:?} with 60 watches, {few:?} with 2");
}
