//! Transmit checksum offload, by the ioctl that ethtool(8) uses (linux/ethtool.h).

use std::ffi::c_char;
use std::io;
use std::os::fd::AsRawFd as _;

use socket2::{Domain, Socket, Type};

use super::{IfName, Netlink, NetlinkError};

const ETHTOOL_GTXCSUM: u32 = 0x16;
const ETHTOOL_STXCSUM: u32 = 0x17;

/// `struct ethtool_value`.
#[repr(C)]
struct EthtoolValue {
    cmd: u32,
    data: u32,
}

impl Netlink {
    /// Switches transmit checksum offload on or off, as `ethtool -K NAME tx on|off`.
    ///
    /// A veth whose peer is in OVS's userspace datapath must have it off: otherwise no one fills in the checksums of sent packets,
    /// and TCP connections hang.
    ///
    /// # Errors
    /// [`NetlinkError::Missing`] if the link does not exist; [`NetlinkError::Refused`].
    pub fn set_transmit_checksum_offload(&self, name: &IfName, on: bool) -> Result<(), NetlinkError> {
        let what = format!("switch transmit checksum offload of link {name}");
        self.ethtool(name, ETHTOOL_STXCSUM, u32::from(on)).map_err(NetlinkError::of(&what)).map(drop)
    }

    /// Reads whether transmit checksum offload is on.
    ///
    /// # Errors
    /// [`NetlinkError::Missing`] if the link does not exist; [`NetlinkError::Refused`].
    pub fn transmit_checksum_offload(&self, name: &IfName) -> Result<bool, NetlinkError> {
        let what = format!("read transmit checksum offload of link {name}");
        let value = self.ethtool(name, ETHTOOL_GTXCSUM, 0).map_err(NetlinkError::of(&what))?;
        Ok(value != 0)
    }

    fn ethtool(&self, name: &IfName, cmd: u32, data: u32) -> io::Result<u32> {
        let socket = self.netns().run(|| Socket::new(Domain::UNIX, Type::DGRAM, None)).flatten()?;
        let mut value = EthtoolValue { cmd, data };
        let mut request = libc::ifreq {
            ifr_name: [0; libc::IFNAMSIZ],
            ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: (&raw mut value).cast() },
        };
        // The name is shorter than the field, so that a terminating zero remains.
        for (to, from) in request.ifr_name.iter_mut().zip(name.as_str().bytes()) {
            *to = from as c_char;
        }
        siocethtool(&socket, &mut request)?;
        Ok(value.data)
    }
}

/// `request.ifr_ifru.ifru_data` must point to an [`EthtoolValue`] with a command of that type.
#[expect(unsafe_code, reason = "neither rtnetlink nor nix has this ioctl")]
fn siocethtool(socket: &Socket, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: the descriptor is open, the request is a whole ifreq, and its only caller points it to a live EthtoolValue,
    // which is what the kernel reads and writes for these two commands.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut *request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
