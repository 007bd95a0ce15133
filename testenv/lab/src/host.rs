//! Machines on the management network, where the parts of a control plane find each other: a namespace each, joined by a
//! bridge, so that the link of each one can be cut.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use fiberlb_node::netns::Netns;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::Command;
use tonic::codegen::{Service, http};
use tonic::transport::{Channel, Endpoint};

use crate::error::{LabError, Result};
use crate::lab::Lab;
use crate::names::check_name;
use crate::world::World;

/// A machine that processes run on. Cheap to clone. It stays for as long as the lab.
#[derive(Debug, Clone)]
pub struct Host {
    netns_name: String,
    address: Ipv4Addr,
    netns: Netns,
    link: Link,
}

/// The link of a machine to the management network.
#[derive(Debug, Clone)]
pub struct Link {
    world: World,
    index: u32,
}

impl Lab {
    /// Adds a machine that has nothing but a link to the management network.
    ///
    /// # Errors
    /// [`LabError`] if the name is taken.
    pub async fn add_host(&self, name: &str) -> Result<Host> {
        check_name("host", name)?;
        self.join_management(format!("host.{name}")).await
    }

    /// Gives a chassis a link to the management network, beside that to the underlay.
    ///
    /// # Errors
    /// [`LabError`] if there is no such chassis, or it has one already.
    pub async fn manage_chassis(&self, chassis: &str) -> Result<Host> {
        check_name("chassis", chassis)?;
        self.join_management(format!("chassis.{chassis}")).await
    }

    /// Gives a network namespace, which is made if it is missing, a link to the management network.
    pub async fn join_management(&self, netns_name: String) -> Result<Host> {
        let index = self.take_index();
        let address = address(index).ok_or_else(|| {
            LabError::invalid("host", &netns_name, "the management network has no address left")
        })?;
        let (number, with_prefix) = (index.to_string(), format!("{address}/16"));
        self.world().script("host.sh", &[&netns_name, &number, &with_prefix]).await?;
        let netns = self.world().netns(&netns_name)?;
        Ok(Host { netns_name, address, netns, link: Link { world: self.world().clone(), index } })
    }
}

/// 172.30.0.1 is the bridge's own.
fn address(index: u32) -> Option<Ipv4Addr> {
    let [_, _, high, low] = index.to_be_bytes();
    (1 < index && index < 65_000).then_some(Ipv4Addr::new(172, 30, high, low))
}

impl Host {
    /// Its address on the management network.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address.into()
    }

    /// Its network namespace, by name.
    #[must_use]
    pub fn netns_name(&self) -> &str {
        &self.netns_name
    }

    /// Its link to the management network.
    #[must_use]
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// The world that it is in.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.link.world
    }

    /// A command that runs there.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        self.link.world.command(Some(&self.netns_name), program)
    }

    /// Connects from there.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn connect(&self, target: SocketAddr) -> io::Result<TcpStream> {
        let make = if target.is_ipv4() { TcpSocket::new_v4 } else { TcpSocket::new_v6 };
        let stream = self.netns.run(make)??.connect(target).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// A gRPC channel from there, without TLS, made when it is first used and again whenever it broke. `endpoint` says
    /// where to and within what times.
    #[must_use]
    pub fn channel(&self, endpoint: &Endpoint, target: SocketAddr) -> Channel {
        endpoint.connect_with_connector_lazy(Connector { host: self.clone(), target })
    }
}

impl Link {
    /// Cuts it: what is under way on it is lost, and nobody is told.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn cut(&self) -> Result<()> {
        self.set("cut").await
    }

    /// Undoes [`Link::cut`].
    ///
    /// # Errors
    /// The kernel's.
    pub async fn mend(&self) -> Result<()> {
        self.set("mend").await
    }

    /// Makes packets to the machine wait: by 150 ms each where the kernel has netem, else in the queue of a link of
    /// 96 kbit/s, which a busy machine fills.
    ///
    /// # Errors
    /// The kernel's.
    pub async fn slow(&self) -> Result<()> {
        self.set("slow").await
    }

    /// Undoes [`Link::slow`].
    ///
    /// # Errors
    /// The kernel's.
    pub async fn fast(&self) -> Result<()> {
        self.set("fast").await
    }

    async fn set(&self, what: &str) -> Result<()> {
        self.world.script("link.sh", &[&self.index.to_string(), what]).await.map(drop)
    }
}

/// Makes the sockets of a gRPC channel on a machine.
struct Connector {
    host: Host,
    target: SocketAddr,
}

impl Service<http::Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let (host, target) = (self.host.clone(), self.target);
        Box::pin(async move { Ok(TokioIo::new(host.connect(target).await?)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_machine_has_its_own_address() {
        assert_eq!(address(2), Some(Ipv4Addr::new(172, 30, 0, 2)));
        assert_eq!(address(259), Some(Ipv4Addr::new(172, 30, 1, 3)));
        assert_eq!((address(0), address(1), address(65_000)), (None, None, None));
    }
}
