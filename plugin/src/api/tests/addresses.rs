//! Addresses of load balancers and backends: one rule, whether an address is given, chosen, or a backend's.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;

fn with_vip(address: Option<&str>, subnet: Option<&str>) -> LoadBalancerDraft {
    let vip = VipDraft {
        address: address.map(|text| text.parse().unwrap()),
        subnet: subnet.map(|text| text.parse().unwrap()),
    };
    LoadBalancerDraft { vips: vec![vip], ..load_balancer() }
}

/// A plugin that knows these subnets of its network, and no more.
async fn knowing(subnets: &[&str], allow_unknown_subnets: bool) -> World {
    let settings = NetworkSettings { allow_unknown_subnets };
    let world = World::on_store(Arc::new(MemoryStore::default()), Limits::default(), settings).await;
    let subnets = subnets.iter().map(|subnet| subnet.parse().unwrap()).collect();
    world.networks.lock().unwrap().networks.insert(NETWORK, ("net", subnets));
    world
}

#[tokio::test]
async fn a_subnet_must_lie_within_a_known_one() {
    let world = knowing(&["10.1.0.0/16"], true).await;
    for subnet in [
        "169.254.169.0/24",
        "8.8.8.0/24",
        "127.0.0.0/29",
        "224.0.0.0/29",
        "0.0.0.0/0",
        "10.2.0.0/24",
        "10.0.0.0/8",
    ] {
        let refused = world.create::<LoadBalancer>(with_vip(None, Some(subnet))).await.unwrap_err();
        assert_eq!(fields(&refused), ["vip_subnet"], "{subnet}");
        assert!(refused.message.ends_with("is not within the network's subnet 10.1.0.0/16"), "{refused}");
    }
    let made = world.create::<LoadBalancer>(with_vip(None, Some("10.1.4.0/24"))).await.unwrap();
    assert_eq!(made.record.spec.vips, ["10.1.4.254".parse::<IpAddr>().unwrap()]);
}

#[tokio::test]
async fn without_a_known_subnet_an_operator_must_allow_addresses() {
    let world = knowing(&["10.1.0.0/16"], false).await;
    for (address, subnet) in [(Some("2001:db8::9"), None), (None, Some("2001:db8::/64"))] {
        let refused = world.create::<LoadBalancer>(with_vip(address, subnet)).await.unwrap_err();
        assert!(refused.message.contains("let an operator set networks.allow_unknown_subnets"), "{refused}");
    }
    let world = knowing(&["10.1.0.0/16"], true).await;
    world.create::<LoadBalancer>(with_vip(Some("2001:db8::9"), None)).await.unwrap();
    for special in ["fe80::/64", "ff02::/64", "::/96"] {
        let refused = world.create::<LoadBalancer>(with_vip(None, Some(special))).await.unwrap_err();
        assert_eq!(refused.reason, ErrorReason::UnmetFields, "{special}");
    }
}

#[test]
fn what_is_chosen_would_be_accepted_if_it_were_given() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let v4 = (any::<u32>(), 8_u8..=32).prop_map(|(address, prefix)| {
        IpNetwork::new(std::net::Ipv4Addr::from(address).into(), prefix).unwrap()
    });
    let v6 = (any::<u128>(), 100_u8..=128).prop_map(|(address, prefix)| {
        IpNetwork::new(std::net::Ipv6Addr::from(address).into(), prefix).unwrap()
    });
    let subnet = || prop_oneof![v4.clone(), v6.clone()];
    let case = (prop::collection::vec(subnet(), 0..3), prop::option::of(subnet()), any::<bool>());
    let config = Config { cases: 300, failure_persistence: None, ..Config::default() };
    let chosen = |(known, given, allowed): (Vec<IpNetwork>, Option<IpNetwork>, bool)| {
        runtime.block_on(async {
            let known: Vec<String> = known.iter().map(ToString::to_string).collect();
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            let given = given.map(|subnet| subnet.to_string());
            let world = knowing(&known, allowed).await;
            let made = world.create::<LoadBalancer>(with_vip(None, given.as_deref())).await;
            let Ok(made) = made else { return Ok(()) };
            let address = made.record.spec.vips[0].to_string();
            let again = knowing(&known, allowed).await;
            let again = again.create::<LoadBalancer>(with_vip(Some(&address), given.as_deref())).await;
            prop_assert!(again.is_ok(), "{address} was chosen, and refused: {}", again.unwrap_err());
            Ok(())
        })
    };
    TestRunner::new(config).run(&case, chosen).unwrap();
}

#[tokio::test]
async fn a_backend_is_a_host_and_none_of_ours() {
    let world = World::new().await;
    let site = world.site().await;
    let vip = world.cases.tree(&tenant(), site.root).unwrap().tree.load_balancer.spec.vips[0];
    let node: IpAddr = "10.0.0.66".parse().unwrap();
    world.networks.lock().unwrap().nodes.insert(node);
    let (vip, node) = (vip.to_string(), node.to_string());
    let wrong = ["0.1.2.3", "127.0.0.1", "169.254.169.254", "224.0.0.1", "240.0.0.1", "255.255.255.255"];
    let unmet = ["10.0.0.0", "10.0.0.255", &vip, &node];
    let all = wrong.iter().map(|it| (it, ErrorReason::InvalidFields));
    for (address, reason) in all.chain(unmet.iter().map(|it| (it, ErrorReason::UnmetFields))) {
        let address: IpAddr = address.parse().unwrap();
        let it = Backend { address: SocketAddr::new(address, 80), ..backend(site.pool, 12) };
        let refused = world.create::<Backend>(it).await.unwrap_err();
        assert_eq!((refused.reason, fields(&refused)), (reason, vec!["address"]), "{address}");
        let it = Backend { monitor_address: Some(address), ..backend(site.pool, 12) };
        let refused = world.create::<Backend>(it).await.unwrap_err();
        assert_eq!(fields(&refused), ["monitor_address"], "{address}");
        let moved = world.update::<Backend>(site.backend, |it| it.monitor_address = Some(address)).await;
        assert_eq!(fields(&moved.unwrap_err()), ["monitor_address"], "{address}");
    }
    // Of another network behind the tenant's router.
    let it = Backend { address: "192.168.7.0:80".parse().unwrap(), ..backend(site.pool, 12) };
    world.create::<Backend>(it).await.unwrap();
}

#[tokio::test]
async fn a_backend_of_another_family_needs_proxies_and_a_subnet_of_it() {
    let v6 = |pool| Backend { address: "[fd00::11]:80".parse().unwrap(), ..backend(pool, 11) };
    let world = knowing(&["10.0.0.0/24"], true).await;
    let site = world.site().await;
    let refused = world.create::<Backend>(v6(site.pool)).await.unwrap_err();
    let why = "proxy nodes cannot reach fd00::11: no IPv6 subnet of the network is known, neither from the logical switch \
               nor from a router port of it: name it there";
    assert_eq!((fields(&refused), refused.violations[0].description.as_str()), (vec!["address"], why));
    let monitored =
        world.update::<Backend>(site.backend, |it| it.monitor_address = Some(v6(site.pool).address.ip()));
    assert_eq!(fields(&monitored.await.unwrap_err()), ["monitor_address"]);
    // It is looked at when the nodes get their addresses.
    world.networks.lock().unwrap().unseen = Some("refused".to_owned());
    world.create::<Backend>(v6(site.pool)).await.unwrap();

    let world = World::new().await;
    let site = world.site().await;
    world.update::<Listener>(site.listener, |it| it.datapath = Datapath::Ovn).await.unwrap();
    let refused = world.create::<Backend>(v6(site.pool)).await.unwrap_err();
    let why = format!(
        "an IPv6 backend behind an IPv4 VIP needs the proxy, and the datapath of listener {} is OVN",
        site.listener
    );
    assert_eq!(
        (fields(&refused), refused.violations[0].description.as_str()),
        (vec!["address"], why.as_str())
    );
    let sctp = Pool { protocol: PoolProtocol::Sctp, ..pool(site.root) };
    let sctp = world.create::<Pool>(sctp).await.unwrap().record.id;
    let refused = world.create::<Backend>(v6(sctp)).await.unwrap_err();
    assert!(
        refused.violations[0].description.ends_with("needs the proxy, which does not carry SCTP"),
        "{refused}"
    );
    world.update::<Listener>(site.listener, |it| it.datapath = Datapath::Auto).await.unwrap();
    world.create::<Backend>(v6(site.pool)).await.unwrap();
    let refused =
        world.update::<Listener>(site.listener, |it| it.datapath = Datapath::Ovn).await.unwrap_err();
    assert_eq!(fields(&refused), ["default_pool_id"]);
}
