//! What the checker is told and what it tells.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use uuid::Uuid;

use super::check::Check;
use crate::sockets::SocketFactory;

/// All that is to be probed, and where.
#[derive(Clone, Default)]
pub struct Targets {
    /// By network. While a namespace stays the same one, its factory must be the same `Arc`: another one means that
    /// sockets of the old are worthless, and probes in flight begin anew. Idle sockets keep a namespace alive: it goes when
    /// the network is no longer here.
    pub networks: HashMap<Uuid, Arc<dyn SocketFactory>>,
    /// Several may have the same key: they are probed once.
    pub targets: Vec<Target>,
}

/// An address to probe, and who wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where and how.
    pub key: Key,
    /// Backends that stand or fall with it.
    pub backends: Vec<Uuid>,
}

/// What makes a probe another probe.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Network that the address belongs to. Without a factory in [`Targets::networks`] its probes are inconclusive.
    pub network: Uuid,
    /// Address and port that are probed.
    pub address: SocketAddr,
    /// Shared by all backends of a pool, to save memory.
    pub check: Arc<Check>,
}

/// A backend address was found up or down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What was probed.
    pub key: Key,
    /// Backends that it is about.
    pub backends: Vec<Uuid>,
    /// Up or down.
    pub up: bool,
    /// In words, for people: `connection refused`, `HTTP 503, expected 200`.
    pub reason: String,
    /// Since when.
    pub at: SystemTime,
    /// Rises with each verdict that is reported. A [`Snapshot`] includes all up to its own number.
    pub sequence: u64,
}

/// All verdicts at one moment. Targets without one are not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Of the latest verdict reported before.
    pub sequence: u64,
    /// In no order.
    pub verdicts: Vec<Verdict>,
}

impl fmt::Debug for Targets {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let networks: Vec<_> = self.networks.keys().collect();
        out.debug_struct("Targets").field("networks", &networks).field("targets", &self.targets).finish()
    }
}
