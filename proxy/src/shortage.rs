//! Resources of the node's own that may run short. What fails for want of them says nothing about a backend.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use rustix::io::Errno;

/// A resource of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeResource {
    /// Proxied connections: as many as settings or descriptors allow are open.
    Connections,
    /// Local ports for connections to one backend, or for all UDP sessions of an address; or a source address.
    Ports,
    /// Descriptors of the process or of the machine.
    Descriptors,
    /// Memory of the kernel for sockets.
    Memory,
    /// Entries of the kernel's neighbour tables.
    Neighbours,
}

impl NodeResource {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Connections, Self::Ports, Self::Descriptors, Self::Memory, Self::Neighbours];

    /// Resource whose want an error of the kernel states.
    #[must_use]
    pub const fn of_errno(error: Errno) -> Option<Self> {
        match error {
            Errno::ADDRNOTAVAIL => Some(Self::Ports),
            Errno::MFILE | Errno::NFILE => Some(Self::Descriptors),
            Errno::NOBUFS | Errno::NOMEM => Some(Self::Memory),
            _ => None,
        }
    }

    /// Resource whose want an error states.
    #[must_use]
    pub fn of_error(error: &io::Error) -> Option<Self> {
        Self::of_errno(Errno::from_io_error(error)?)
    }

    /// Label in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Ports => "ports",
            Self::Descriptors => "descriptors",
            Self::Memory => "memory",
            Self::Neighbours => "neighbours",
        }
    }

    /// The shortage in words, and the remedy.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Connections => {
                "it has as many proxied connections as it may, and clients wait: raise dataplane.max_connections or LimitNOFILE"
            }
            Self::Ports => {
                "it has no local port left towards some backends: give the nodes more addresses (fleet.source_addresses), or the network more nodes"
            }
            Self::Descriptors => "it has no descriptors left: raise LimitNOFILE of fiberlb-proxy",
            Self::Memory => {
                "its kernel has no memory left for sockets: look for what fills it (net.ipv4.tcp_mem)"
            }
            Self::Neighbours => {
                "its kernel's neighbour tables are too small: raise net.ipv4.neigh.default.gc_thresh3 and the one of IPv6"
            }
        }
    }
}

/// Numbers of times that something failed for want of each resource.
#[derive(Debug, Default)]
pub struct Shortages {
    failures: [AtomicU64; NodeResource::ALL.len()],
    neighbours_full: AtomicBool,
}

impl Shortages {
    /// Records a failure.
    pub fn record(&self, resource: NodeResource) {
        self.add(resource, 1);
    }

    /// Records failures.
    pub fn add(&self, resource: NodeResource, failures: u64) {
        if let Some(counter) = self.failures.get(resource as usize) {
            counter.fetch_add(failures, Relaxed);
        }
    }

    /// Sets whether neighbour tables overflow at this moment.
    pub fn set_neighbours_full(&self, are_full: bool) {
        self.neighbours_full.store(are_full, Relaxed);
    }

    /// True while neighbour tables overflow: that a backend does not answer says nothing then.
    pub fn are_neighbours_full(&self) -> bool {
        self.neighbours_full.load(Relaxed)
    }

    /// All numbers since the process started.
    pub fn totals(&self) -> impl Iterator<Item = (NodeResource, u64)> + '_ {
        NodeResource::ALL.into_iter().zip(self.failures.iter().map(|counter| counter.load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_resource_has_a_counter_of_its_own() {
        let shortages = Shortages::default();
        for resource in NodeResource::ALL {
            shortages.add(resource, 1 + resource as u64);
        }
        for (resource, total) in shortages.totals() {
            assert_eq!(total, 1 + resource as u64, "{resource:?}");
        }
    }

    #[test]
    fn errors_of_backends_are_no_shortage() {
        for error in [Errno::CONNREFUSED, Errno::TIMEDOUT, Errno::HOSTUNREACH, Errno::CONNRESET] {
            assert_eq!(NodeResource::of_error(&error.into()), None, "{error}");
        }
        assert_eq!(NodeResource::of_error(&io::Error::other("no errno")), None);
        assert_eq!(NodeResource::of_error(&Errno::ADDRNOTAVAIL.into()), Some(NodeResource::Ports));
    }
}
