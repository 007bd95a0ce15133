//! In a network namespace of its own: addresses that come later, and IPv6.

use std::{net::SocketAddr, process::Command};

use nix::sched::{CloneFlags, unshare};

use crate::{
    peers::{Server, echo, says_and_hears},
    world::{World, backend, listener, patiently, pool},
};

/// Runs a test on a thread in a new network namespace, which is gone with it, in whatever way it ends.
pub(crate) fn in_namespace(name: &str, test: impl AsyncFnOnce() + Send + 'static) {
    let name = name.to_owned();
    let thread = std::thread::spawn(move || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            println!("SKIPPED {name}: no network namespace can be made: {error}");
            return;
        }
        ip(&["link", "set", "lo", "up"]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
    });
    thread.join().unwrap();
}

pub(crate) fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().unwrap();
    assert!(status.success(), "ip {arguments:?}");
}

async fn serves(address: SocketAddr, server: &str, address_arguments: &[&str]) {
    let server = Server::on(server.parse().unwrap(), echo).await;
    let mut world = World::empty(2, address);
    world.configuration.listeners = vec![listener(address)];
    world.configuration.pools = vec![pool(vec![backend(1, server.address)])];
    world.apply_all().await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
    ip(address_arguments);
    // The kernel makes the route of an IPv6 address a little later.
    patiently(async { while tokio::net::TcpStream::connect(address).await.is_err() {} }).await;
    says_and_hears(&mut world.connect().await).await;
    world.plane.shutdown(std::time::Duration::ZERO).await;
}

#[test]
fn an_address_may_come_after_its_listener() {
    in_namespace("an_address_may_come_after_its_listener", async || {
        let vip = "192.0.2.10:443".parse().unwrap();
        serves(vip, "127.0.0.1:80", &["address", "add", "192.0.2.10/32", "dev", "lo"]).await;
    });
}

#[test]
fn ipv6_is_served_by_ipv6_and_by_ipv4_backends() {
    in_namespace("ipv6_is_served_by_ipv6_and_by_ipv4_backends", async || {
        let vip = "[2001:db8::10]:443".parse().unwrap();
        serves(vip, "[::1]:80", &["address", "add", "2001:db8::10/128", "dev", "lo", "nodad"]).await;
        let vip = "[2001:db8::11]:443".parse().unwrap();
        serves(vip, "127.0.0.1:81", &["address", "add", "2001:db8::11/128", "dev", "lo", "nodad"]).await;
    });
}
