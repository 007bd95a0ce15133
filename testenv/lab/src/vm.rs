//! Virtual machines: network namespaces plugged into a chassis, with an LSP each.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use fiberlb_node::netns::Netns;
use ipnetwork::IpNetwork;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::process::Command;

use crate::error::{LabError, Result};
use crate::names::Mac;
use crate::run::{COMMAND_LIMIT, run};
use crate::world::World;

/// Content of the LSP's `addresses` column for a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LspAddresses {
    /// The VM's MAC and addresses.
    #[default]
    Static,
    /// `unknown`: whatever the VM uses.
    Unknown,
    /// `dynamic`: OVN's own IPAM chooses, from the switch's `other_config`. The VM takes what it is given; its
    /// specification has no addresses of its own.
    Dynamic,
}

/// A VM to be made: by default with a MAC of the lab's choosing, no address and no gateway.
#[derive(Debug, Clone)]
pub struct VmSpec {
    pub(crate) name: String,
    pub(crate) chassis: String,
    pub(crate) switch: String,
    pub(crate) mac: Option<Mac>,
    pub(crate) addresses: Vec<String>,
    pub(crate) gateways: Vec<IpAddr>,
    pub(crate) lsp_addresses: LspAddresses,
}

impl VmSpec {
    /// A VM on a chassis, in a logical switch. Its LSP has the VM's name.
    #[must_use]
    pub fn new(name: &str, chassis: &str, switch: &str) -> VmSpec {
        VmSpec {
            name: name.to_owned(),
            chassis: chassis.to_owned(),
            switch: switch.to_owned(),
            mac: None,
            addresses: Vec::new(),
            gateways: Vec::new(),
            lsp_addresses: LspAddresses::default(),
        }
    }

    /// One more address with its prefix length, such as `10.0.0.5/24` or `fd00::5/64`. Checked when the VM is made.
    #[must_use]
    pub fn address(mut self, address: &str) -> VmSpec {
        self.addresses.push(address.to_owned());
        self
    }

    /// A default gateway: one for each address family.
    #[must_use]
    pub fn gateway(mut self, gateway: IpAddr) -> VmSpec {
        self.gateways.push(gateway);
        self
    }

    /// This MAC instead of one of the lab's choosing.
    #[must_use]
    pub fn mac(mut self, mac: Mac) -> VmSpec {
        self.mac = Some(mac);
        self
    }

    /// Sets the content of the LSP's `addresses` column.
    #[must_use]
    pub fn lsp_addresses(mut self, addresses: LspAddresses) -> VmSpec {
        self.lsp_addresses = addresses;
        self
    }
}

/// A VM that runs. Cheap to clone. It is the test process that owns the sockets: they live on when the VM is removed,
/// but no packet reaches them.
#[derive(Debug, Clone)]
pub struct Vm {
    pub(crate) name: String,
    pub(crate) chassis: String,
    pub(crate) index: u32,
    pub(crate) mac: Mac,
    pub(crate) addresses: Vec<IpNetwork>,
    pub(crate) netns: Netns,
    pub(crate) world: World,
}

impl Vm {
    /// Its name, which is its LSP's too.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The chassis that it runs on.
    #[must_use]
    pub fn chassis(&self) -> &str {
        &self.chassis
    }

    /// Its MAC address.
    #[must_use]
    pub fn mac(&self) -> Mac {
        self.mac
    }

    /// Its addresses with their prefix lengths.
    #[must_use]
    pub fn addresses(&self) -> &[IpNetwork] {
        &self.addresses
    }

    /// Its first IPv4 address.
    ///
    /// # Errors
    /// [`LabError::Invalid`] if it has none.
    pub fn ipv4(&self) -> Result<IpAddr> {
        self.first_address("an IPv4 address", IpNetwork::is_ipv4)
    }

    /// Its first IPv6 address.
    ///
    /// # Errors
    /// [`LabError::Invalid`] if it has none.
    pub fn ipv6(&self) -> Result<IpAddr> {
        self.first_address("an IPv6 address", IpNetwork::is_ipv6)
    }

    /// A command in the VM's network namespace.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        self.world.command(Some(&format!("vm.{}", self.name)), program)
    }

    /// Runs a program with its arguments in the VM and gives its output.
    ///
    /// # Errors
    /// [`LabError::Command`] with what it said; [`LabError::Timeout`] after 30 s.
    pub async fn exec(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = self.command(program);
        command.args(arguments);
        run(command, COMMAND_LIMIT).await
    }

    /// Makes a socket, or several, in the VM's network namespace. The closure runs at once, on the calling thread.
    ///
    /// # Errors
    /// The kernel's, when the namespace cannot be entered, or the closure's own.
    pub fn with_netns<T>(&self, make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.netns.run(make)?
    }

    /// A blocking TCP listener in the VM. Port 0 takes a free one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn tcp_listener(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let socket = self.tcp_socket(address)?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        socket.listen(1024)?;
        Ok(socket.into())
    }

    /// A blocking TCP connection from the VM.
    ///
    /// # Errors
    /// The kernel's; `TimedOut` when nobody answers in time.
    pub fn tcp_connect(&self, address: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        let socket = self.tcp_socket(address)?;
        socket.connect_timeout(&address.into(), timeout)?;
        Ok(socket.into())
    }

    /// A blocking UDP socket in the VM. Port 0 takes a free one.
    ///
    /// # Errors
    /// The kernel's.
    pub fn udp_socket(&self, address: SocketAddr) -> io::Result<UdpSocket> {
        self.with_netns(|| UdpSocket::bind(address))
    }

    fn tcp_socket(&self, address: SocketAddr) -> io::Result<Socket> {
        let domain = Domain::for_address(address);
        self.with_netns(|| Socket::new(domain, Type::STREAM, Some(Protocol::TCP)))
    }

    fn first_address(&self, what: &str, wanted: impl Fn(&IpNetwork) -> bool) -> Result<IpAddr> {
        let found = self.addresses.iter().find(|address| wanted(address));
        found
            .map(IpNetwork::ip)
            .ok_or_else(|| LabError::invalid("VM", &self.name, format!("it lacks {what}")))
    }
}
