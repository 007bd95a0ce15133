//! Addresses of links.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use rtnetlink::AddressMessageBuilder;
use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};

use super::{LinkIndex, Netlink, NetlinkError};

impl Netlink {
    /// The addresses of a link, sorted, among them the link-local one that the kernel gives it itself. A link that is not
    /// there has none.
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

    /// Puts an address, with the prefix length of its network, on a link. An IPv6 address can be used at once: nobody is
    /// asked whether it is a duplicate, for addresses come from OVN's databases.
    ///
    /// # Errors
    /// [`NetlinkError::Exists`] if the link has it, with this or (IPv6) any prefix length; [`NetlinkError::Missing`] if
    /// there is no such link; [`NetlinkError::Refused`].
    pub async fn add_address(&self, link: LinkIndex, address: IpNetwork) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::NewAddress(message(link, address));
        let what = format!("add address {address} to link {link}");
        self.order(&what, message, NLM_F_CREATE | NLM_F_EXCL).await
    }

    /// Takes an address off a link.
    ///
    /// # Errors
    /// [`NetlinkError::Missing`] if it does not have it, with this prefix length, or there is no such link;
    /// [`NetlinkError::Refused`].
    pub async fn remove_address(&self, link: LinkIndex, address: IpNetwork) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::DelAddress(message(link, address));
        let removed = self.order(&format!("remove address {address} from link {link}"), message, 0).await;
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
    // On a point-to-point link these two differ; IPv6 has the second alone.
    let address: IpAddr = local.or(remote)?;
    let network = IpNetwork::new(address, message.header.prefix_len).ok()?;
    Some((LinkIndex(message.header.index), network))
}
