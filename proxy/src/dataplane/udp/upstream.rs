//! The backend of a session, and the socket that is connected to it.

use std::{
    cell::Cell,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use nix::sys::socket::{
    setsockopt,
    sockopt::{Ipv4RecvErr, Ipv4Ttl, Ipv6RecvErr, Ipv6Ttl},
};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Type};
use tokio::task::AbortHandle;
use uuid::Uuid;

use super::{DatagramSocket, batch, failed::FailedBackends};
use crate::{
    dataplane::{
        account::Assignment,
        balance::{BackendState, EjectedUse, WorkerPool},
        listen::{PortOffset, WorkerListener},
        record::SelectedBy,
    },
    shortage::NodeResource,
    sockets::SocketFactory,
};

/// Most backends that are tried for one session at a time. Only a backend to which there is no route fails at once.
const MAX_TRIES: usize = 16;

/// Most attempts at another source address: it is chosen by chance.
const MAX_SOURCES: usize = 8;

/// A connected socket, counted as its backend's.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) socket: Rc<DatagramSocket>,
    pub(super) backend: Uuid,
    /// Address of the backend in the pool.
    pub(super) address: SocketAddr,
    /// The port of it that belongs to that of the listener.
    offset: PortOffset,
    pub(super) selected: SelectedBy,
    /// Backends that were tried, this one included.
    pub(super) tries: u8,
    pub(super) state: Arc<BackendState>,
    pub(super) assignment: Assignment,
    /// Datagrams that were sent to it, less those that it has answered with.
    awaited: Cell<u32>,
    /// Task that takes the answers back.
    pub(super) task: Option<AbortHandle>,
}

impl Upstream {
    /// Address that it is connected to.
    pub(super) fn reached(&self) -> SocketAddr {
        self.offset.above(self.address)
    }

    /// True while the backend is in rotation.
    pub(super) fn is_up(&self) -> bool {
        self.state.is_up()
    }

    /// Notes that so many datagrams were sent to it.
    pub(super) fn ask(&self, datagrams: usize) {
        let more = u32::try_from(datagrams).unwrap_or(u32::MAX);
        self.awaited.set(self.awaited.get().saturating_add(more));
    }

    /// Notes that it has sent so many.
    pub(super) fn answer(&self, datagrams: usize) {
        let fewer = u32::try_from(datagrams).unwrap_or(u32::MAX);
        self.awaited.set(self.awaited.get().saturating_sub(fewer));
    }

    /// True if an answer may be under way.
    pub(super) fn is_awaited(&self) -> bool {
        self.awaited.get() > 0
    }

    /// True if this is its socket.
    pub(super) fn has(&self, socket: &Rc<DatagramSocket>) -> bool {
        Rc::ptr_eq(&self.socket, socket)
    }

    /// Sets the hops of what is sent to it.
    pub(super) fn set_hops(&self, hops: u8) -> nix::Result<()> {
        set_hops(&*self.socket, self.address, hops)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Reason why a session has no backend.
#[derive(Debug)]
pub(super) enum UpstreamError {
    /// None is eligible.
    NoBackend,
    /// All are at their limits.
    Full,
    /// None of those that are has a route, now or a moment ago.
    Unreachable,
    /// The node has no port, descriptor or memory left.
    Exhausted(io::Error),
    /// The node had none left a moment ago.
    Paused,
}

/// Connects to a backend of a pool for a client of the port at `offset`, whose datagrams have so many `hops` from here. `failed`: those that
/// have failed it, taken only where no other is left: all of them are cleared then.
pub(super) fn connect(
    listener: &WorkerListener,
    pool: &WorkerPool,
    (client, offset): (SocketAddr, PortOffset),
    hops: u8,
    failed: &mut FailedBackends,
    now: Instant,
) -> Result<Upstream, UpstreamError> {
    let keys = pool.keys_of_peer(client);
    let mut tried: Vec<usize> = Vec::new();
    while tried.len() < MAX_TRIES {
        let avoided = failed.ids().filter_map(|failed| pool.place(failed));
        let excluded: Vec<usize> = tried.iter().copied().chain(avoided).collect();
        let Some((place, member, selected)) = pool.next(&keys, &excluded, EjectedUse::WithoutPlaces, now)
        else {
            if failed.clear() {
                continue;
            }
            break;
        };
        // Another worker may have taken the last place since: then it is not selected again.
        let Some(assignment) = Assignment::reserve(member.load()) else { continue };
        match open(&*listener.shared.factory, offset.above(member.address()), hops) {
            Ok(socket) => {
                pool.remember(&keys, member.id(), now);
                assignment.accept();
                return Ok(Upstream {
                    socket: Rc::new(socket),
                    backend: member.id(),
                    address: member.address(),
                    offset,
                    selected,
                    tries: u8::try_from(tried.len() + 1).unwrap_or(u8::MAX),
                    state: Arc::clone(member.state()),
                    assignment,
                    awaited: Cell::new(0),
                    task: None,
                });
            }
            Err(error) => match resource(&error) {
                Some(resource) => {
                    listener.shared.shortages.record(resource);
                    return Err(UpstreamError::Exhausted(error));
                }
                None => {
                    member.load().count_failure(&error);
                    super::refusal::record_failure(listener, member.id(), member.address(), &error);
                }
            },
        }
        tried.push(place);
    }
    Err(match tried.as_slice() {
        [] if pool.has_backends(&[]) => UpstreamError::Full,
        [] => UpstreamError::NoBackend,
        _ => UpstreamError::Unreachable,
    })
}

/// Makes a socket that is connected to a backend, from another one of the node's addresses if the first one has no port
/// left.
fn open(factory: &dyn SocketFactory, backend: SocketAddr, hops: u8) -> io::Result<DatagramSocket> {
    // An IPv4 address in IPv6 notation is reached by IPv4, to which no option of IPv6 applies.
    let backend = SocketAddr::new(backend.ip().to_canonical(), backend.port());
    let source = factory.source(backend.ip());
    let opened = open_from(factory, source, backend, hops);
    let Some(first) = source else { return opened };
    if opened.as_ref().err().and_then(resource) != Some(NodeResource::Ports) {
        return opened;
    }
    let other = (0..MAX_SOURCES).find_map(|_| factory.source(backend.ip()).filter(|it| *it != first));
    if other.is_some() { open_from(factory, other, backend, hops) } else { opened }
}

fn open_from(
    factory: &dyn SocketFactory,
    source: Option<IpAddr>,
    backend: SocketAddr,
    hops: u8,
) -> io::Result<DatagramSocket> {
    let socket = factory.socket(Domain::for_address(backend), Type::DGRAM, Some(Protocol::UDP))?;
    set_hops(&socket, backend, hops)?;
    // Without it the kernel keeps a host that cannot be reached to itself.
    if backend.is_ipv4() {
        setsockopt(&socket, Ipv4RecvErr, &true)?;
    } else {
        setsockopt(&socket, Ipv6RecvErr, &true)?;
        // Else a port that IPv4 has taken would not be there for IPv6.
        socket.set_only_v6(true)?;
    }
    if let Some(source) = source {
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    socket.connect(&backend.into())?;
    // Until then anybody could send to its port.
    batch::drain(&socket);
    super::register(socket.into())
}

fn set_hops(socket: &impl AsFd, backend: SocketAddr, hops: u8) -> nix::Result<()> {
    if backend.ip().to_canonical().is_ipv4() {
        setsockopt(socket, Ipv4Ttl, &hops.into())
    } else {
        setsockopt(socket, Ipv6Ttl, &hops.into())
    }
}

/// Resource of the node for want of which a socket could not be made. That all ports of an address are taken the kernel
/// states by other errors for UDP than for TCP.
fn resource(error: &io::Error) -> Option<NodeResource> {
    match Errno::from_io_error(error)? {
        Errno::ADDRINUSE | Errno::AGAIN => Some(NodeResource::Ports),
        errno => NodeResource::of_errno(errno),
    }
}

/// Meaning of an error of a connected socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The backend, its host or its network does not take datagrams, as an ICMP error or the kernel's routes say.
    Backend,
    /// The datagram, or one before it, is larger than the path allows.
    Size,
    /// The kernel has no room for it at this moment.
    Full,
    /// It concerns one datagram.
    Datagram,
}

impl Fault {
    /// Meaning of an error.
    pub(super) fn of(error: Errno) -> Self {
        match error {
            Errno::CONNREFUSED
            | Errno::HOSTUNREACH
            | Errno::NETUNREACH
            | Errno::HOSTDOWN
            | Errno::NETDOWN
            // ICMP: prohibited by an administrator, also by a route; a host that is isolated, lacks the protocol or
            // takes no source route; and a header that somebody on the path does not take.
            | Errno::ACCESS
            | Errno::NONET
            | Errno::NOPROTOOPT
            | Errno::OPNOTSUPP
            | Errno::PROTO => Self::Backend,
            Errno::MSGSIZE => Self::Size,
            Errno::AGAIN | Errno::NOBUFS | Errno::NOMEM => Self::Full,
            _ => Self::Datagram,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_that_are_taken_are_the_nodes_want_and_refusals_the_backends() {
        for errno in [Errno::ADDRINUSE, Errno::AGAIN, Errno::ADDRNOTAVAIL] {
            assert_eq!(resource(&errno.into()), Some(NodeResource::Ports), "{errno}");
        }
        assert_eq!(resource(&Errno::MFILE.into()), Some(NodeResource::Descriptors));
        assert_eq!(resource(&Errno::NETUNREACH.into()), None);
        let unreachable = [Errno::CONNREFUSED, Errno::HOSTUNREACH, Errno::NETUNREACH, Errno::HOSTDOWN];
        let prohibited = [Errno::ACCESS, Errno::NONET, Errno::NOPROTOOPT, Errno::OPNOTSUPP, Errno::PROTO];
        for errno in unreachable.into_iter().chain(prohibited) {
            assert_eq!(Fault::of(errno), Fault::Backend, "{errno}");
        }
        assert_eq!(Fault::of(Errno::AGAIN), Fault::Full);
        assert_eq!(Fault::of(Errno::PERM), Fault::Datagram);
    }
}
