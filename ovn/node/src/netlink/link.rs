//! Links: veth pairs, and the properties of all links.

use std::os::fd::{AsFd as _, AsRawFd as _};

use rtnetlink::packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::{IfName, LinkIndex, Mac, Netlink, NetlinkError};
use crate::netns::Netns;

/// Link, as the kernel reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Index.
    pub index: LinkIndex,
    /// Name.
    pub name: String,
    /// Ethernet address; `None` for other kinds of links.
    pub mac: Option<Mac>,
    /// MTU in bytes.
    pub mtu: u32,
    /// True if it is administratively up.
    pub up: bool,
    /// True if it has a carrier as well; of a veth, if both ends are up.
    pub running: bool,
}

/// One end of a veth pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VethEnd {
    /// Name.
    pub name: IfName,
    /// Ethernet address; by default the kernel chooses one.
    pub mac: Option<Mac>,
    /// MTU in bytes; 1500 by default.
    pub mtu: Option<u32>,
}

impl VethEnd {
    /// End with the kernel's defaults.
    #[must_use]
    pub fn new(name: IfName) -> Self {
        Self { name, mac: None, mtu: None }
    }

    fn message<T>(&self, mut builder: LinkMessageBuilder<T>) -> LinkMessageBuilder<T> {
        builder = builder.name(self.name.as_str());
        if let Some(mac) = self.mac {
            builder = builder.address(mac.0.to_vec());
        }
        match self.mtu {
            Some(mtu) => builder.mtu(mtu),
            None => builder,
        }
    }
}

impl Netlink {
    /// Adds a veth pair: `end` in this namespace, `peer` in `peer_netns`. Both are down. The pair is deleted with either end or
    /// either namespace.
    ///
    /// # Errors
    /// [`NetlinkError::Exists`] if either name is taken; [`NetlinkError::Refused`].
    pub async fn add_veth(
        &self,
        end: &VethEnd,
        peer: &VethEnd,
        peer_netns: &Netns,
    ) -> Result<(), NetlinkError> {
        let peer_message = peer.message(LinkMessageBuilder::<LinkUnspec>::new());
        let peer_message = peer_message.setns_by_fd(peer_netns.as_fd().as_raw_fd()).build();
        let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth);
        let pair = pair.set_info_data(InfoData::Veth(InfoVeth::Peer(peer_message)));
        let message = RouteNetlinkMessage::NewLink(end.message(pair).build());
        let what = format!("add links {} and {}", end.name, peer.name);
        self.command(&what, message, NLM_F_CREATE | NLM_F_EXCL).await
    }

    /// Deletes a link; of a veth, also its peer.
    ///
    /// # Errors
    /// [`NetlinkError::Missing`], [`NetlinkError::Refused`].
    pub async fn delete_link(&self, link: LinkIndex) -> Result<(), NetlinkError> {
        let message = LinkUnspec::new_with_index(link.0).build();
        self.command(&format!("delete link {link}"), RouteNetlinkMessage::DelLink(message), 0).await
    }

    /// Finds a link by its name.
    ///
    /// # Errors
    /// [`NetlinkError::Missing`], [`NetlinkError::Refused`].
    pub async fn link(&self, name: &IfName) -> Result<Link, NetlinkError> {
        let what = format!("link {name}");
        let message = RouteNetlinkMessage::GetLink(LinkUnspec::new_with_name(name.as_str()).build());
        let flags = rtnetlink::packet_core::NLM_F_REQUEST | rtnetlink::packet_core::NLM_F_ACK;
        let found = self.request(&what, message, flags).await?;
        found.messages.iter().find_map(read).ok_or(NetlinkError::Missing { what })
    }

    /// Lists all links, by index.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`].
    pub async fn links(&self) -> Result<Vec<Link>, NetlinkError> {
        let message = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let mut links: Vec<Link> = self.list("list links", message).await?.iter().filter_map(read).collect();
        links.sort_by_key(|link| link.index);
        Ok(links)
    }

    /// Sets a link up. Idempotent.
    ///
    /// # Errors
    /// [`NetlinkError::Missing`], [`NetlinkError::Refused`].
    pub async fn set_up(&self, link: LinkIndex) -> Result<(), NetlinkError> {
        self.set_link(&format!("set link {link} up"), LinkUnspec::new_with_index(link.0).up()).await
    }

    /// Sets the loopback up: it is down in a new namespace.
    ///
    /// # Errors
    /// [`NetlinkError::Refused`].
    pub async fn set_loopback_up(&self) -> Result<(), NetlinkError> {
        self.set_up(LinkIndex::LOOPBACK).await
    }

    /// Sets a link down. Idempotent. The kernel removes its routes and IPv6 addresses.
    ///
    /// # Errors
    /// [`NetlinkError::Missing`], [`NetlinkError::Refused`].
    pub async fn set_down(&self, link: LinkIndex) -> Result<(), NetlinkError> {
        self.set_link(&format!("set link {link} down"), LinkUnspec::new_with_index(link.0).down()).await
    }

    /// Sets a link's Ethernet address.
    ///
    /// # Errors
    /// [`NetlinkError::Missing`], [`NetlinkError::Refused`], for example for a group address.
    pub async fn set_mac(&self, link: LinkIndex, mac: Mac) -> Result<(), NetlinkError> {
        let change = LinkUnspec::new_with_index(link.0).address(mac.0.to_vec());
        self.set_link(&format!("set MAC {mac} on link {link}"), change).await
    }

    /// Sets a link's MTU, in bytes.
    ///
    /// # Errors
    /// [`NetlinkError::Missing`], [`NetlinkError::Refused`], for example beyond the limit of the link.
    pub async fn set_mtu(&self, link: LinkIndex, mtu: u32) -> Result<(), NetlinkError> {
        let change = LinkUnspec::new_with_index(link.0).mtu(mtu);
        self.set_link(&format!("set MTU {mtu} on link {link}"), change).await
    }

    async fn set_link(&self, what: &str, change: LinkMessageBuilder<LinkUnspec>) -> Result<(), NetlinkError> {
        self.command(what, RouteNetlinkMessage::SetLink(change.build()), 0).await
    }
}

fn read(message: &RouteNetlinkMessage) -> Option<Link> {
    let RouteNetlinkMessage::NewLink(message) = message else { return None };
    let flags = message.header.flags;
    let mut link = Link {
        index: LinkIndex(message.header.index),
        name: String::new(),
        mac: None,
        mtu: 0,
        up: flags.contains(LinkFlags::Up),
        running: flags.contains(LinkFlags::Running),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Address(mac) => link.mac = mac.as_slice().try_into().ok().map(Mac),
            LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
            _ => {}
        }
    }
    Some(link)
}
