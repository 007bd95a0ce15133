//! A network's namespace on this machine, with its link, addresses and routes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use fiberlb_node::netlink::{Link, Mac, Netlink, NetlinkError};
use fiberlb_node::netns::{Netns, NetnsError};
use ipnetwork::IpNetwork;
use uuid::Uuid;

use super::announcements::AddressKind;
use super::difference::{self, Difference, is_link_local};
use super::error::NetworkError;
use super::names::INSIDE;
use super::sockets::NetnsSockets;
use crate::configuration::Network;

/// Most connections of a namespace that the kernel keeps in TIME_WAIT; others above are closed at once. A client that closes
/// first makes the node close first towards the backend, and leaves one local port there for a minute: the kernel enters
/// TIME_WAIT with the backend's FIN, before the process learns of it, so that no option of the socket avoids it. A tenth of the
/// ports towards one backend: enough to answer for a lost segment, too few to keep new connections from their ports.
const TIME_WAITS: &str = "4096";

/// Settings (sysctl) of a namespace. Those that a kernel does not have are left out.
const SETTINGS: [(&str, &str); 12] = [
    // A chassis usually forwards, and a new namespace inherits that. Comes first: it sets others back.
    ("net.ipv4.ip_forward", "0"),
    ("net.ipv6.conf.all.forwarding", "0"),
    // Connections in the queue of a socket that is closed move to another worker's.
    ("net.ipv4.tcp_migrate_req", "1"),
    // All ports that connections to backends may have.
    ("net.ipv4.ip_local_port_range", "1024 65535"),
    ("net.ipv4.tcp_max_tw_buckets", TIME_WAITS),
    // Listeners' proxy ports must not be taken by connections to backends.
    ("net.ipv4.ip_local_reserved_ports", "10000-29999"),
    // An address that goes must not take others of its network with it.
    ("net.ipv4.conf.all.promote_secondaries", "1"),
    // Addresses and routes come from the plugin alone, never from the tenant's network.
    ("net.ipv6.conf.all.accept_ra", "0"),
    ("net.ipv6.conf.default.accept_ra", "0"),
    ("net.ipv4.conf.all.accept_redirects", "0"),
    // Addresses are allocated in OVN's databases: duplicate address detection is needless.
    ("net.ipv6.conf.all.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
];

/// A network's namespace.
#[derive(Clone, Debug)]
pub(super) struct Tenant {
    pub(super) netns: Netns,
    /// Socket factory, the same one for as long as the namespace is the same.
    pub(super) sockets: Arc<NetnsSockets>,
    /// The inner link, once it is configured.
    pub(super) link: Option<Link>,
    /// VIPs that are on it.
    pub(super) held: Vec<Uuid>,
}

impl Tenant {
    pub(super) fn new(netns: Netns) -> Self {
        let sockets = Arc::new(NetnsSockets::new(netns.clone()));
        Self { netns, sockets, link: None, held: Vec::new() }
    }

    /// Applies the settings, and sets the loopback up.
    pub(super) async fn prepare(&self, netlink: &Netlink) -> Result<(), NetworkError> {
        for (name, value) in SETTINGS {
            match self.netns.set_sysctl(name, value) {
                Err(NetnsError::NoSetting { .. }) => tracing::debug!(name, "this kernel lacks the setting"),
                other => other?,
            }
        }
        Ok(netlink.set_loopback_up().await?)
    }

    /// Configures the inner link. `userspace`: the bridge is of OVS's userspace datapath.
    pub(super) async fn configure(
        &mut self,
        netlink: &Netlink,
        network: &Network,
        userspace: bool,
    ) -> Result<(), NetworkError> {
        let name = INSIDE.parse().map_err(NetworkError::name)?;
        let link = netlink.link(&name).await?;
        if link.mac != Some(network.mac) {
            netlink.set_mac(link.index, network.mac).await?;
        }
        if link.mtu != network.mtu {
            netlink.set_mtu(link.index, network.mtu).await?;
        }
        if userspace && netlink.transmit_checksum_offload(&name)? {
            netlink.set_transmit_checksum_offload(&name, false)?;
        }
        netlink.set_up(link.index).await?;
        addresses(netlink, &link, network).await?;
        self.sockets.set_sources(network);
        routes(netlink, &link, network).await?;
        self.link = Some(Link { mac: Some(network.mac), mtu: network.mtu, ..link });
        self.held = network.held().map(|vip| vip.id).collect();
        Ok(())
    }

    /// Announces on the network that an address is at a MAC; `None`: that of this node.
    pub(super) fn announce(&self, address: IpAddr, mac: Option<Mac>) -> Result<(), NetlinkError> {
        let Some(link) = &self.link else { return Ok(()) };
        Netlink::open(&self.netns)?.announce(link, address, mac)
    }
}

/// Addresses to announce on a network: those that this node has, its own and the VIPs that it holds, and VIPs that it held.
pub(super) fn announced(network: &Network) -> BTreeMap<IpAddr, AddressKind> {
    let answered = network.answered.iter().map(|vip| (vip.address, AddressKind::Answered(vip.mac)));
    let vips = network.held().map(|vip| (vip.address, AddressKind::Vip));
    let own = network.hosts().map(|host| (host, AddressKind::Own));
    answered.chain(own).chain(vips).collect()
}

async fn addresses(netlink: &Netlink, link: &Link, network: &Network) -> Result<(), NetlinkError> {
    let listed = netlink.addresses(link.index).await?;
    let actual: Vec<IpNetwork> = listed.into_iter().filter(|address| !is_link_local(address)).collect();
    let Difference { add, remove } = Difference::between(&actual, &difference::addresses(network));
    for address in remove {
        gone(netlink.remove_address(link.index, address).await)?;
    }
    for address in add {
        let selection = difference::selection(network, &address);
        there(netlink.add_address(link.index, address, selection).await)?;
    }
    Ok(())
}

async fn routes(netlink: &Netlink, link: &Link, network: &Network) -> Result<(), NetlinkError> {
    let listed = netlink.routes().await?;
    let actual: Vec<_> = listed.into_iter().filter(|route| route.link == link.index).collect();
    let Difference { add, remove } = Difference::between(&actual, &difference::routes(network, link.index));
    for route in remove {
        gone(netlink.remove_route(&route).await)?;
    }
    for route in add {
        netlink.replace_route(&route).await?;
    }
    Ok(())
}

/// Ignores that an object to be removed does not exist.
pub(super) fn gone(result: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    result.or_else(|error| if error.is_missing() { Ok(()) } else { Err(error) })
}

/// Ignores that an object to be added exists.
fn there(result: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    result.or_else(|error| if error.is_exists() { Ok(()) } else { Err(error) })
}
