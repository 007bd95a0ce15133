//! Links, addresses, routes, offloads and announcements, with `ip -j` and `ethtool` as second opinion.

use std::net::IpAddr;

use fiberlb_node::netlink::{
    IfName, Link, LinkIndex, Netlink, NetlinkError, NextHop, Route, SourceSelection, VethEnd,
};
use fiberlb_node::netns::Netns;
use ipnetwork::IpNetwork;
use serde_json::Value;

use crate::world::{dir, ip, mac, name, run, until, world};

/// A namespace `t-a`, with `eth0` in it and `host0` in the test's own, both up.
struct Pair {
    home: Netlink,
    inside: Netlink,
    host0: Link,
    eth0: Link,
}

async fn pair() -> Pair {
    let netns = dir().create("a").unwrap();
    let home = Netlink::open(&Netns::current().unwrap()).unwrap();
    let inside = Netlink::open(&netns).unwrap();
    let host = VethEnd::new(name("host0"));
    let peer = VethEnd { name: name("eth0"), mac: Some(mac(5)), mtu: Some(1400) };
    home.add_veth(&host, &peer, &netns).await.unwrap();
    let host0 = up(&home, "host0").await;
    let eth0 = up(&inside, "eth0").await;
    Pair { home, inside, host0, eth0 }
}

async fn up(netlink: &Netlink, text: &str) -> Link {
    let link = netlink.link(&name(text)).await.unwrap();
    assert!(!link.up);
    netlink.set_up(link.index).await.unwrap();
    netlink.link(&name(text)).await.unwrap()
}

fn only(mut list: Vec<Value>) -> Value {
    assert_eq!(list.len(), 1, "{list:?}");
    list.remove(0)
}

#[test]
fn a_veth_pair_is_as_it_was_asked_for() {
    world("a_veth_pair_is_as_it_was_asked_for", async || {
        let Pair { home, inside, host0, eth0 } = pair().await;
        assert_eq!((eth0.mac, eth0.mtu, eth0.up), (Some(mac(5)), 1400, true));
        assert!(inside.link(&name("eth0")).await.unwrap().running);
        let seen = only(ip(&["-n", "t-a", "link", "show", "eth0"]));
        assert_eq!(seen["address"], "02:00:00:00:00:05");
        assert_eq!(seen["mtu"], 1400);
        assert_eq!(seen["ifindex"], eth0.index.0);
        assert_eq!(seen["operstate"], "UP");
        assert_eq!(only(ip(&["link", "show", "host0"]))["mtu"], 1500);
        let names = |links: Vec<Link>| links.into_iter().map(|link| link.name).collect::<Vec<_>>();
        let listed = names(inside.links().await.unwrap());
        assert_eq!((listed.first().unwrap().as_str(), listed.last().unwrap().as_str()), ("lo", "eth0"));

        let again = VethEnd::new(name("host0"));
        let other = VethEnd::new(name("other"));
        let taken = home.add_veth(&again, &other, inside.netns()).await.unwrap_err();
        assert!(taken.is_exists(), "{taken}");
        let taken = home.add_veth(&other, &VethEnd::new(name("eth0")), inside.netns()).await.unwrap_err();
        assert!(taken.is_exists(), "{taken}");
        assert!(
            home.link(&name("other")).await.unwrap_err().is_missing(),
            "nothing is left of a pair half made"
        );

        home.delete_link(host0.index).await.unwrap();
        assert!(inside.link(&name("eth0")).await.unwrap_err().is_missing());
        for gone in [home.delete_link(host0.index).await, home.set_up(host0.index).await] {
            assert!(gone.unwrap_err().is_missing());
        }
    });
}

#[test]
fn a_link_is_changed_in_place() {
    world("a_link_is_changed_in_place", async || {
        let Pair { inside, eth0, .. } = pair().await;
        inside.set_mac(eth0.index, mac(9)).await.unwrap();
        inside.set_mtu(eth0.index, 1300).await.unwrap();
        inside.set_down(eth0.index).await.unwrap();
        let seen = only(ip(&["-n", "t-a", "link", "show", "eth0"]));
        assert_eq!((seen["address"].as_str(), seen["mtu"].as_u64()), (Some("02:00:00:00:00:09"), Some(1300)));
        let link = inside.link(&name("eth0")).await.unwrap();
        assert_eq!((link.mac, link.mtu, link.up), (Some(mac(9)), 1300, false));
        let group = inside.set_mac(eth0.index, "01:00:5e:00:00:01".parse().unwrap()).await;
        assert!(matches!(group, Err(NetlinkError::Refused { .. })), "{group:?}");
        let huge = inside.set_mtu(eth0.index, u32::MAX).await;
        assert!(matches!(huge, Err(NetlinkError::Refused { .. })), "{huge:?}");
    });
}

#[test]
fn the_loopback_is_set_up() {
    world("the_loopback_is_set_up", async || {
        let netlink = Netlink::open(&dir().create("a").unwrap()).unwrap();
        let lo: IfName = name("lo");
        assert!(!netlink.link(&lo).await.unwrap().up);
        netlink.set_loopback_up().await.unwrap();
        netlink.set_loopback_up().await.unwrap();
        let link = netlink.link(&lo).await.unwrap();
        assert_eq!((link.index, link.up), (LinkIndex::LOOPBACK, true));
        assert!(only(ip(&["-n", "t-a", "link", "show", "lo"]))["flags"].to_string().contains("\"UP\""));
    });
}

#[test]
fn addresses_come_and_go() {
    world("addresses_come_and_go", async || {
        let Pair { inside, eth0, .. } = pair().await;
        let global = async || {
            let all = inside.addresses(eth0.index).await.unwrap().into_iter();
            all.map(|it| it.to_string()).filter(|it| !it.starts_with("fe80")).collect::<Vec<_>>()
        };
        for text in ["10.0.0.9/24", "192.0.2.1/32", "fd00::9/64"] {
            let address = text.parse().unwrap();
            inside.add_address(eth0.index, address, SourceSelection::Eligible).await.unwrap();
            let again = inside.add_address(eth0.index, address, SourceSelection::Eligible).await.unwrap_err();
            assert!(again.is_exists(), "{again}");
        }
        assert_eq!(global().await, ["10.0.0.9/24", "192.0.2.1/32", "fd00::9/64"]);
        let seen = only(ip(&["-n", "t-a", "address", "show", "eth0"]));
        let info = seen["addr_info"].as_array().unwrap();
        let find = |local: &str| info.iter().find(|it| it["local"] == local).unwrap();
        assert_eq!(find("10.0.0.9")["broadcast"], "10.0.0.255");
        assert_eq!(find("192.0.2.1")["prefixlen"], 32);
        assert_eq!(
            (&find("fd00::9")["nodad"], &find("fd00::9")["tentative"]),
            (&Value::Bool(true), &Value::Null)
        );

        for text in ["10.0.0.9/24", "fd00::9/64"] {
            inside.remove_address(eth0.index, text.parse().unwrap()).await.unwrap();
            let again = inside.remove_address(eth0.index, text.parse().unwrap()).await.unwrap_err();
            assert!(again.is_missing(), "{again}");
        }
        assert_eq!(global().await, ["192.0.2.1/32"]);
        let nowhere = inside
            .add_address(LinkIndex(4711), "10.0.0.1/24".parse().unwrap(), SourceSelection::Eligible)
            .await
            .unwrap_err();
        assert!(nowhere.is_missing(), "{nowhere}");
        assert_eq!(inside.addresses(LinkIndex(4711)).await.unwrap(), []);
    });
}

#[test]
fn an_excluded_address_is_the_source_of_nothing_that_does_not_ask_for_it() {
    world("an_excluded_address_is_the_source_of_nothing_that_does_not_ask_for_it", async || {
        let Pair { inside, eth0, .. } = pair().await;
        // Nearer to the destination than the eligible one, so that RFC 6724 (rule 8) would prefer it.
        for (eligible, excluded, to) in
            [("10.0.0.5/24", "10.0.0.6/24", "10.0.0.7"), ("fd00::5/64", "fd00::1006/64", "fd00::1007")]
        {
            let [own, other] = [eligible, excluded].map(|text| text.parse::<IpNetwork>().unwrap());
            inside.add_address(eth0.index, own, SourceSelection::Eligible).await.unwrap();
            inside.add_address(eth0.index, other, SourceSelection::Excluded).await.unwrap();
            let chosen = only(ip(&["-n", "t-a", "route", "get", to]));
            assert_eq!(chosen["prefsrc"], own.ip().to_string(), "{chosen}");
            let chosen = only(ip(&["-n", "t-a", "route", "get", to, "from", &other.ip().to_string()]));
            assert_eq!(chosen["from"], other.ip().to_string(), "{chosen}");
        }
    });
}

fn route(destination: &str, link: LinkIndex, next_hop: NextHop) -> Route {
    Route { destination: destination.parse().unwrap(), link, next_hop }
}

fn gateway(address: &str) -> IpAddr {
    address.parse().unwrap()
}

#[test]
fn routes_come_change_and_go() {
    world("routes_come_change_and_go", async || {
        let Pair { inside, eth0, .. } = pair().await;
        for address in ["10.0.0.9/24", "fd00::9/64"] {
            inside
                .add_address(eth0.index, address.parse().unwrap(), SourceSelection::Eligible)
                .await
                .unwrap();
        }
        assert_eq!(inside.routes().await.unwrap(), [], "the kernel's own are not listed");
        let mut routes = [
            route("0.0.0.0/0", eth0.index, NextHop::Gateway(gateway("10.0.0.1"))),
            route("172.16.0.0/12", eth0.index, NextHop::GatewayOnLink(gateway("192.0.2.1"))),
            route("198.51.100.0/24", eth0.index, NextHop::Link),
            route("::/0", eth0.index, NextHop::Gateway(gateway("fd00::1"))),
            route("2001:db8::/32", eth0.index, NextHop::Link),
            route("2001:db9::/32", eth0.index, NextHop::GatewayOnLink(gateway("fd01::1"))),
        ];
        for route in &routes {
            inside.add_route(route).await.unwrap();
            assert!(inside.add_route(route).await.unwrap_err().is_exists());
        }
        assert_eq!(inside.routes().await.unwrap(), routes);
        let seen = ip(&["-n", "t-a", "route"]);
        let find = |to: &str| seen.iter().find(|it| it["dst"] == to).unwrap();
        assert_eq!(find("default")["gateway"], "10.0.0.1");
        assert_eq!(find("172.16.0.0/12")["flags"], serde_json::json!(["onlink"]));
        assert_eq!(find("198.51.100.0/24")["scope"], "link");
        let seen = ip(&["-n", "t-a", "-6", "route", "show", "default"]);
        assert_eq!(only(seen)["gateway"], "fd00::1");

        routes[0].next_hop = NextHop::Gateway(gateway("10.0.0.2"));
        routes[3].next_hop = NextHop::Gateway(gateway("fe80::1"));
        for route in [&routes[0], &routes[3], &routes[3]] {
            inside.replace_route(route).await.unwrap();
        }
        assert_eq!(inside.routes().await.unwrap(), routes);
        for route in &routes {
            inside.remove_route(route).await.unwrap();
            assert!(inside.remove_route(route).await.unwrap_err().is_missing());
        }
        assert_eq!(inside.routes().await.unwrap(), []);
    });
}

#[test]
fn a_route_that_cannot_be_is_refused_with_a_hint() {
    world("a_route_that_cannot_be_is_refused_with_a_hint", async || {
        let Pair { inside, eth0, .. } = pair().await;
        let far = route("0.0.0.0/0", eth0.index, NextHop::Gateway(gateway("10.0.0.1")));
        let refused = inside.add_route(&far).await.unwrap_err().to_string();
        assert!(refused.contains("on-link"), "{refused}");
        let nowhere = route("0.0.0.0/0", LinkIndex(4711), NextHop::Link);
        assert!(inside.add_route(&nowhere).await.unwrap_err().is_missing());
        let mixed = route("10.0.0.0/8", eth0.index, NextHop::GatewayOnLink(gateway("fd00::1")));
        assert!(inside.add_route(&mixed).await.is_err());
        assert_eq!(inside.routes().await.unwrap(), []);
    });
}

#[test]
fn transmit_checksum_offload_is_switched() {
    world("transmit_checksum_offload_is_switched", async || {
        let Pair { inside, .. } = pair().await;
        let eth0 = name("eth0");
        let seen = || {
            let features = run("ip", &["netns", "exec", "t-a", "ethtool", "-k", "eth0"]);
            features.lines().any(|line| line == "tx-checksumming: on")
        };
        assert!(inside.transmit_checksum_offload(&eth0).unwrap() && seen());
        for on in [false, false, true, false] {
            inside.set_transmit_checksum_offload(&eth0, on).unwrap();
            assert_eq!((inside.transmit_checksum_offload(&eth0).unwrap(), seen()), (on, on));
        }
        let none = inside.set_transmit_checksum_offload(&name("none"), false).unwrap_err();
        assert!(none.is_missing(), "{none}");
    });
}

/// Neighbours have the address at another MAC; after the announcement they have it at the right one. So the kernel takes
/// the frames for what they are, checksums included.
#[test]
fn an_announcement_moves_an_address() {
    world("an_announcement_moves_an_address", async || {
        let Pair { home, inside, host0, eth0 } = pair().await;
        for (own, announced) in [("10.0.0.1/24", "10.0.0.9"), ("fd00::1/64", "fd00::9")] {
            home.add_address(host0.index, own.parse().unwrap(), SourceSelection::Eligible).await.unwrap();
            let wrong = ["lladdr", "02:00:00:00:00:77", "nud", "stale", "dev", "host0"];
            run("ip", &[&["neighbour", "replace", announced], &wrong[..]].concat());
            let at = || only(ip(&["neighbour", "show", announced]))["lladdr"].as_str().map(str::to_owned);
            assert_eq!(at().as_deref(), Some("02:00:00:00:00:77"));
            inside.announce(&eth0, announced.parse().unwrap(), None).unwrap();
            until("the neighbour's new MAC", || at().as_deref() == Some("02:00:00:00:00:05")).await;
        }
    });
}

#[test]
fn an_announcement_needs_a_link_that_is_up() {
    world("an_announcement_needs_a_link_that_is_up", async || {
        let Pair { home, inside, host0, eth0 } = pair().await;
        let announce = || inside.announce(&eth0, gateway("10.0.0.9"), None);
        inside.set_down(eth0.index).await.unwrap();
        let down = announce().unwrap_err().to_string();
        assert!(down.contains("the link is down"), "{down}");
        home.delete_link(host0.index).await.unwrap();
        assert!(announce().unwrap_err().is_missing());
    });
}

/// The namespace goes with the last thing that has it open, and takes its end of the pair with it.
#[test]
fn a_dropped_netlink_lets_its_namespace_go() {
    world("a_dropped_netlink_lets_its_namespace_go", async || {
        let Pair { home, inside, host0, .. } = pair().await;
        dir().delete("a").unwrap();
        let kept = inside.clone();
        drop(inside);
        assert!(kept.link(&name("eth0")).await.is_ok());
        drop(kept);
        let gone = async {
            while home.links().await.unwrap().iter().any(|link| link.index == host0.index) {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(crate::world::LONG, gone).await.expect("the pair stays");
    });
}
