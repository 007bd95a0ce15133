//! Routes of the main table.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{LinkIndex, Netlink, NetlinkError};

/// A route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Destination network; `0.0.0.0/0` or `::/0` for the default route. Host bits are ignored.
    pub destination: IpNetwork,
    /// Outgoing link.
    pub link: LinkIndex,
    /// Next hop.
    pub next_hop: NextHop,
}

/// Next hop of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NextHop {
    /// None: destinations are on the link.
    Link,
    /// Gateway in a network of one of the link's addresses.
    Gateway(IpAddr),
    /// Gateway that is on the link, in none of its networks (`onlink`).
    GatewayOnLink(IpAddr),
}

impl Netlink {
    /// Lists the unicast routes of the main table, sorted, without those that the kernel adds by itself, for example for the
    /// network of an address.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`].
    pub async fn routes(&self) -> Result<Vec<Route>, NetlinkError> {
        let message = RouteNetlinkMessage::GetRoute(RouteMessage::default());
        let mut routes: Vec<Route> =
            self.list("list routes", message).await?.iter().filter_map(read).collect();
        routes.sort();
        Ok(routes)
    }

    /// Adds a route.
    ///
    /// # Errors
    /// [`NetlinkError::Exists`] if there is a route to this destination; [`NetlinkError::Missing`] if the link does not exist;
    /// [`NetlinkError::Refused`], for example if the link is down or the gateway is in none of its networks.
    pub async fn add_route(&self, route: &Route) -> Result<(), NetlinkError> {
        self.set_route("add", route, NLM_F_CREATE | NLM_F_EXCL).await
    }

    /// Adds a route, replacing the one to this destination if there is one.
    ///
    /// # Errors
    /// [`NetlinkError::Missing`] if the link does not exist; [`NetlinkError::Refused`] as for [`Netlink::add_route`].
    pub async fn replace_route(&self, route: &Route) -> Result<(), NetlinkError> {
        self.set_route("set", route, NLM_F_CREATE | NLM_F_REPLACE).await
    }

    /// Removes a route.
    ///
    /// # Errors
    /// [`NetlinkError::Missing`] if there is no such route; [`NetlinkError::Refused`].
    pub async fn remove_route(&self, route: &Route) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::DelRoute(message(route));
        self.command(&format!("remove route to {}", route.destination), message, 0).await
    }

    async fn set_route(&self, verb: &str, route: &Route, flags: u16) -> Result<(), NetlinkError> {
        let what = format!("{verb} route to {} by link {}", route.destination, route.link);
        self.command(&what, RouteNetlinkMessage::NewRoute(message(route)), flags).await
    }
}

fn message(route: &Route) -> RouteMessage {
    let builder = RouteMessageBuilder::<IpAddr>::new().output_interface(route.link.0);
    let mut message = match route.next_hop {
        NextHop::Link => builder.scope(RouteScope::Link),
        NextHop::Gateway(_) => builder,
        NextHop::GatewayOnLink(_) => builder.onlink(),
    }
    .build();
    message.header.address_family = match route.destination {
        IpNetwork::V4(_) => AddressFamily::Inet,
        IpNetwork::V6(_) => AddressFamily::Inet6,
    };
    message.header.destination_prefix_length = route.destination.prefix();
    if route.destination.prefix() > 0 {
        let network = RouteAddress::from(route.destination.network());
        message.attributes.push(RouteAttribute::Destination(network));
    }
    if let NextHop::Gateway(gateway) | NextHop::GatewayOnLink(gateway) = route.next_hop {
        message.attributes.push(RouteAttribute::Gateway(gateway.into()));
    }
    message
}

fn read(message: &RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    let header = &message.header;
    let is_listed = header.table == RouteHeader::RT_TABLE_MAIN
        && header.kind == RouteType::Unicast
        && header.protocol != RouteProtocol::Kernel;
    if !is_listed {
        return None;
    }
    let (mut destination, mut gateway, mut link) = (default_destination(header.address_family)?, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => destination = ip(address)?,
            RouteAttribute::Gateway(address) => gateway = Some(ip(address)?),
            RouteAttribute::Oif(index) => link = Some(LinkIndex(*index)),
            _ => {}
        }
    }
    let next_hop = match gateway {
        None => NextHop::Link,
        Some(gateway) if header.flags.contains(RouteFlags::Onlink) => NextHop::GatewayOnLink(gateway),
        Some(gateway) => NextHop::Gateway(gateway),
    };
    let destination = IpNetwork::new(destination, header.destination_prefix_length).ok()?;
    Some(Route { destination, link: link?, next_hop })
}

fn default_destination(family: AddressFamily) -> Option<IpAddr> {
    match family {
        AddressFamily::Inet => Some(IpAddr::from([0; 4])),
        AddressFamily::Inet6 => Some(IpAddr::from([0; 16])),
        _ => None,
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_read_as_it_is_written() {
        let gateway = |text: &str| text.parse().unwrap();
        let cases = [
            ("0.0.0.0/0", NextHop::Gateway(gateway("10.0.0.1"))),
            ("10.1.0.0/16", NextHop::GatewayOnLink(gateway("192.0.2.1"))),
            ("192.0.2.7/32", NextHop::Link),
            ("::/0", NextHop::Gateway(gateway("fe80::1"))),
            ("2001:db8::/32", NextHop::GatewayOnLink(gateway("fd00::1"))),
        ];
        for (destination, next_hop) in cases {
            let route = Route { destination: destination.parse().unwrap(), link: LinkIndex(7), next_hop };
            assert_eq!(read(&RouteNetlinkMessage::NewRoute(message(&route))), Some(route));
        }
    }

    #[test]
    fn bits_behind_the_prefix_are_left_out() {
        let route = |text: &str| {
            let destination = text.parse().unwrap();
            Route { destination, link: LinkIndex(7), next_hop: NextHop::Link }
        };
        assert_eq!(message(&route("10.1.2.3/16")), message(&route("10.1.0.0/16")));
    }
}
