//! Addresses of links.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use rtnetlink::AddressMessageBuilder;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage, CacheInfo};

use super::{LinkIndex, Netlink, NetlinkError};

/// Selection of an address as the source of what is sent from sockets that are bound to none (RFC 6724).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceSelection {
    /// The kernel may choose it.
    Eligible,
    /// The kernel does not choose it while there is another one: of IPv6 it is deprecated, and of IPv4 it is a host's alone, or comes
    /// after another one of its network.
    Excluded,
}

impl Netlink {
    /// Lists the addresses of a link, sorted, including the link-local one that the kernel assigns. A link that does not exist has
    /// none.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`].
    pub async fn addresses(&self, link: LinkIndex) -> Result<Vec<IpNetwork>, NetlinkError> {
        let message = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let listed = self.list("list addresses", message).await?;
        let mut addresses: Vec<IpNetwork> = listed
            .iter()
            .filter_map(read)
            .filter(|(on, _)| *on == link)
            .map(|(_, address)| address)
            .collect();
        addresses.sort();
        Ok(addresses)
    }

    /// Adds an address, with the prefix length of its network, to a link. An IPv6 address can be used at once: duplicate address
    /// detection is off, since OVN's databases allocate addresses.
    ///
    /// # Errors
    /// [`NetlinkError::Exists`] if the link has it, with this or (IPv6) any prefix length; [`NetlinkError::Missing`] if the link
    /// does not exist; [`NetlinkError::Refused`].
    pub async fn add_address(
        &self,
        link: LinkIndex,
        address: IpNetwork,
        selection: SourceSelection,
    ) -> Result<(), NetlinkError> {
        let mut message = message(link, address);
        if selection == SourceSelection::Excluded && address.is_ipv6() {
            // Valid for ever, and preferred for no time.
            let mut lifetimes = CacheInfo::default();
            (lifetimes.ifa_preferred, lifetimes.ifa_valid) = (0, u32::MAX);
            message.attributes.push(AddressAttribute::CacheInfo(lifetimes));
        }
        let message = RouteNetlinkMessage::NewAddress(message);
        let what = format!("add address {address} to link {link}");
        self.command(&what, message, NLM_F_CREATE | NLM_F_EXCL).await
    }

    /// Removes an address from a link.
    ///
    /// # Errors
    /// [`NetlinkError::Missing`] if the link does not have it with this prefix length, or does not exist;
    /// [`NetlinkError::Refused`].
    pub async fn remove_address(&self, link: LinkIndex, address: IpNetwork) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::DelAddress(message(link, address));
        let removed = self.command(&format!("remove address {address} from link {link}"), message, 0).await;
        removed.map_err(NetlinkError::of_removed_address)
    }
}

fn message(link: LinkIndex, address: IpNetwork) -> AddressMessage {
    match address {
        IpNetwork::V4(address) => AddressMessageBuilder::<Ipv4Addr>::new()
            .index(link.0)
            .address(address.ip(), address.prefix())
            .build(),
        IpNetwork::V6(address) => {
            let builder = AddressMessageBuilder::<Ipv6Addr>::new().index(link.0);
            let mut message = builder.address(address.ip(), address.prefix()).build();
            message.header.flags |= AddressHeaderFlags::Nodad;
            message
        }
    }
}

fn read(message: &RouteNetlinkMessage) -> Option<(LinkIndex, IpNetwork)> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    let (mut local, mut remote) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Address(address) => remote = Some(*address),
            _ => {}
        }
    }
    // On a point-to-point link these two differ; IPv6 has the second only.
    let address: IpAddr = local.or(remote)?;
    let network = IpNetwork::new(address, message.header.prefix_len).ok()?;
    Some((LinkIndex(message.header.index), network))
}
