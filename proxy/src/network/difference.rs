//! Differences between the addresses and routes that a link has and should have. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fiberlb_node::netlink::{LinkIndex, NextHop, Route, SourceSelection};
use ipnetwork::IpNetwork;

use crate::configuration::Network;

/// Missing and superfluous elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Difference<T> {
    pub(super) add: Vec<T>,
    pub(super) remove: Vec<T>,
}

impl<T: PartialEq + Copy> Difference<T> {
    pub(super) fn between(actual: &[T], wanted: &[T]) -> Self {
        let missing = |of: &[T], from: &[T]| of.iter().filter(|it| !from.contains(it)).copied().collect();
        Self { add: missing(wanted, actual), remove: missing(actual, wanted) }
    }
}

/// Desired addresses of a network's link: the node's own, the further ones, and the held VIPs with the prefix length of a host.
pub(super) fn addresses(network: &Network) -> Vec<IpNetwork> {
    let vips = network.held().map(|vip| IpNetwork::from(vip.address));
    network.addresses.iter().chain(&network.sources).copied().chain(vips).collect()
}

/// Selection of one of these addresses as a source: only the node's own are chosen where a socket asks for none.
pub(super) fn selection(network: &Network, address: &IpNetwork) -> SourceSelection {
    if network.addresses.contains(address) { SourceSelection::Eligible } else { SourceSelection::Excluded }
}

/// True for addresses that the kernel manages.
pub(super) fn is_link_local(address: &IpNetwork) -> bool {
    matches!(address.ip(), IpAddr::V6(address) if address.is_unicast_link_local())
}

/// Desired routes of a network.
pub(super) fn routes(network: &Network, link: LinkIndex) -> Vec<Route> {
    let route = |gateway: &IpAddr| {
        let any: IpAddr = match gateway {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let destination = IpNetwork::new(any, 0).ok()?;
        Some(Route { destination, link, next_hop: next_hop(network, *gateway) })
    };
    let others = network.routes.iter().map(|route| Route {
        destination: route.destination,
        link,
        next_hop: next_hop(network, route.next_hop),
    });
    network.gateways.iter().filter_map(route).chain(others).collect()
}

fn next_hop(network: &Network, gateway: IpAddr) -> NextHop {
    let is_link_local = matches!(gateway, IpAddr::V6(gateway) if gateway.is_unicast_link_local());
    let is_near = is_link_local || network.addresses.iter().any(|own| own.contains(gateway));
    if is_near { NextHop::Gateway(gateway) } else { NextHop::GatewayOnLink(gateway) }
}

#[cfg(test)]
mod tests {
    use fiberlb_node::netlink::Mac;
    use uuid::Uuid;

    use super::*;
    use crate::configuration::Vip;

    fn network(addresses: &[&str], gateways: &[&str], vips: &[(&str, bool)]) -> Network {
        let vip = |(address, held): &(&str, bool)| Vip {
            id: Uuid::new_v4(),
            address: address.parse().unwrap(),
            held: *held,
        };
        Network {
            id: Uuid::new_v4(),
            port_name: "port".to_owned(),
            mac: Mac([2, 0, 0, 0, 0, 1]),
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            sources: Vec::new(),
            gateways: gateways.iter().map(|text| text.parse().unwrap()).collect(),
            routes: Vec::new(),
            mtu: 1400,
            nodes: Vec::new(),
            vips: vips.iter().map(vip).collect(),
            answered: Vec::new(),
        }
    }

    #[test]
    fn only_vips_that_are_held_are_on_the_link() {
        let network = network(
            &["10.0.0.5/24", "fd00::5/64"],
            &[],
            &[("10.0.0.9", true), ("fd00::9", true), ("10.0.0.8", false)],
        );
        let texts: Vec<String> = addresses(&network).iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["10.0.0.5/24", "fd00::5/64", "10.0.0.9/32", "fd00::9/128"]);
    }

    #[test]
    fn a_gateway_outside_of_the_network_is_on_the_link() {
        let network = network(&["10.0.0.5/24", "fd00::5/64"], &["192.0.2.1", "fe80::1"], &[]);
        let hops: Vec<NextHop> = routes(&network, LinkIndex(3)).iter().map(|route| route.next_hop).collect();
        let [v4, v6] = ["192.0.2.1", "fe80::1"].map(|text| text.parse().unwrap());
        assert_eq!(hops, [NextHop::GatewayOnLink(v4), NextHop::Gateway(v6)]);
    }

    #[test]
    fn what_is_behind_another_router_has_a_route_of_its_own() {
        let mut network = network(&["10.0.0.5/24"], &["10.0.0.1"], &[]);
        let [destination, next_hop] = ["10.9.0.0/24", "10.0.0.9"];
        let next_hop = next_hop.parse().unwrap();
        network.routes =
            vec![crate::configuration::Route { destination: destination.parse().unwrap(), next_hop }];
        assert!(!network.has_route("fd09::1".parse().unwrap()));
        let found: Vec<(String, NextHop)> = routes(&network, LinkIndex(3))
            .iter()
            .map(|route| (route.destination.to_string(), route.next_hop))
            .collect();
        let default = NextHop::Gateway("10.0.0.1".parse().unwrap());
        assert_eq!(
            found,
            [("0.0.0.0/0".to_owned(), default), (destination.to_owned(), NextHop::Gateway(next_hop))]
        );
    }

    #[test]
    fn a_difference_leads_from_one_to_the_other_and_no_further() {
        let difference = Difference::between(&[1, 2, 3], &[2, 4]);
        assert_eq!(difference, Difference { add: vec![4], remove: vec![1, 3] });
        assert_eq!(Difference::between(&[1, 2], &[2, 1]), Difference { add: vec![], remove: vec![] });
    }
}
