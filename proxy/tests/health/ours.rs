//! Troubles of this node, which are no verdicts on backends.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use fiberlb_proxy::health::{CheckKind, Target, Targets};
use fiberlb_proxy::sockets::SocketFactory;
use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use uuid::Uuid;

use crate::backend::{Backend, Behaviour};
use crate::watch::{Watch, check, http, target};
use crate::world::World;

/// A process without descriptors left.
struct Exhausted;

impl SocketFactory for Exhausted {
    fn socket(&self, _: Domain, _: Type, _: Option<Protocol>) -> io::Result<Socket> {
        Err(Errno::EMFILE.into())
    }
}

/// Several probes, none of which says anything about the backend. Returns the reason that is reported, once.
async fn says_nothing(mut watch: Watch) -> String {
    let metrics = watch.until(|metrics| metrics.inconclusive >= 4).await;
    assert_eq!((metrics.ok, metrics.failed, metrics.up, metrics.down), (0, 0, 0, 0));
    assert!(watch.unread().is_empty());
    assert!(watch.checker.snapshot().await.unwrap().verdicts.is_empty());
    let report = watch.inconclusive().await;
    assert_eq!(report.backends, [Uuid::from_u128(1)]);
    report.reason.expect("a reason")
}

#[tokio::test]
async fn to_be_out_of_descriptors_says_nothing() {
    let watch = Watch::start();
    let somewhere: SocketAddr = "127.0.0.1:9".parse().unwrap();
    watch.apply(&Arc::new(Exhausted), vec![target(somewhere, &check(CheckKind::Tcp, 1, 1), &[1])]);
    assert!(says_nothing(watch).await.contains("LimitNOFILE"));
}

#[tokio::test]
async fn a_network_that_is_not_here_says_nothing() {
    let watch = Watch::start();
    let somewhere: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let targets = vec![target(somewhere, &check(CheckKind::Tcp, 1, 1), &[1])];
    watch.checker.apply(Targets { targets, ..Targets::default() }).unwrap();
    assert_eq!(says_nothing(watch).await, "the network is not on this node");
}

#[tokio::test]
async fn to_have_no_route_says_nothing_where_the_node_should_have_one_and_else_that_there_is_none() {
    let Some(world) = World::new(
        "to_have_no_route_says_nothing_where_the_node_should_have_one_and_else_that_there_is_none",
    ) else {
        return;
    };
    for address in ["203.0.113.1:80", "[2001:db8::1]:80"] {
        let there = target(address.parse().unwrap(), &check(CheckKind::Tcp, 1, 2), &[1]);
        let watch = Watch::start();
        watch.apply(&world, vec![there.clone()]);
        assert!(says_nothing(watch).await.contains("lacks the route"));
        let mut watch = Watch::start();
        watch.apply(&world, vec![Target { has_route: false, ..there }]);
        let verdict = watch.verdict().await;
        assert!(!verdict.up && verdict.reason.starts_with("no route to it from the network"), "{verdict:?}");
    }
}

#[tokio::test]
async fn to_be_out_of_ports_says_nothing() {
    let Some(world) = World::new("to_be_out_of_ports_says_nothing") else { return };
    let backend = Backend::start(&world, "127.0.0.1:80", Behaviour::code(200));
    world.inside(|| std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40001").unwrap());
    let hold = || std::net::TcpStream::connect(backend.address).unwrap();
    let held = world.inside(|| [hold(), hold()]);
    let mut watch = Watch::start();
    watch.apply(&world, vec![target(backend.address, &check(http("200"), 1, 1), &[1])]);
    watch.until(|metrics| metrics.inconclusive >= 4).await;
    assert!(watch.unread().is_empty());
    assert!(watch.inconclusive().await.reason.is_some_and(|reason| reason.contains("ip_local_port_range")));
    drop(held);
    assert!(watch.verdict().await.up, "the ports are free again");
    assert_eq!(watch.inconclusive().await.reason, None, "it says something again");
}
