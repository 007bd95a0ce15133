//! Sending of address announcements.

use std::io;
use std::mem::size_of;
use std::net::IpAddr;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::{Link, LinkIndex, Mac, Netlink, NetlinkError, arp_announcement, neighbor_advertisement};

impl Netlink {
    /// Announces to the network behind a link that `address` is at a MAC, the link's own or another one: by a gratuitous ARP or an
    /// unsolicited neighbour advertisement. Sends one frame from the link's own MAC; frames get lost, so repeat it after a second.
    ///
    /// `mac`: `None` for the link's own.
    ///
    /// # Errors
    /// [`NetlinkError::Missing`] if the link does not exist; [`NetlinkError::Refused`], for example if it is down or not Ethernet.
    pub fn announce(&self, link: &Link, address: IpAddr, mac: Option<Mac>) -> Result<(), NetlinkError> {
        let what = format!("announce {address} on link {}", link.name);
        let sent = match link.mac {
            Some(own) => self.send(link.index, &frame(own, mac.unwrap_or(own), address)),
            None => Err(io::Error::other("the link has no Ethernet address")),
        };
        sent.map_err(NetlinkError::of(&what))
    }

    fn send(&self, link: LinkIndex, frame: &[u8]) -> io::Result<()> {
        // Protocol 0: the socket only sends, and nothing is queued on it.
        let kind = Type::RAW.nonblocking().cloexec();
        let make = || Socket::new_raw(Domain::PACKET, kind, Some(Protocol::from(0)));
        let socket = self.netns().run(make).flatten()?;
        let sent = socket.send_to(frame, &packet_address(link)?)?;
        if sent == frame.len() { Ok(()) } else { Err(io::Error::other("the frame was cut short")) }
    }
}

fn frame(source: Mac, mac: Mac, address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => arp_announcement(source, mac, address),
        IpAddr::V6(address) => neighbor_advertisement(source, mac, address),
    }
}

/// Address that selects the outgoing link of a frame (packet(7), `sockaddr_ll`).
#[expect(unsafe_code, reason = "neither socket2 nor nix makes such an address")]
fn packet_address(link: LinkIndex) -> io::Result<SockAddr> {
    let index = i32::try_from(link.0).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: the storage, zeroed before, is large enough for any address, and family, index and length are those of a
    // sockaddr_ll.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let address = storage.cast::<libc::sockaddr_ll>();
            (*address).sll_family = libc::AF_PACKET as u16;
            (*address).sll_ifindex = index;
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }?;
    Ok(address)
}
