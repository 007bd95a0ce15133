//! Targets and verdicts of the checker.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use uuid::Uuid;

use super::check::Check;
use crate::sockets::SocketFactory;

/// All targets, and the networks to probe them in.
#[derive(Clone, Default)]
pub struct Targets {
    /// Socket factories by network. While a namespace stays the same one, its factory must be the same `Arc`:
    /// another one means that sockets of the old one are useless, and probes in flight start over. Idle
    /// sockets keep a namespace alive: it ends when the network is removed here.
    pub networks: HashMap<Uuid, Arc<dyn SocketFactory>>,
    /// Targets. Those with the same key are probed once.
    pub targets: Vec<Target>,
}

/// An address to probe, and the backends that it concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Address and check.
    pub key: TargetKey,
    /// Backends that share its health.
    pub backends: Vec<Uuid>,
    /// True if the network, as it is configured, leads to the address: where the namespace has no route, it is
    /// the node's fault then, and the backend's otherwise.
    pub has_route: bool,
}

/// Identity of a target: one with another key is probed apart.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TargetKey {
    /// Network that the address belongs to. Without a factory in [`Targets::networks`] its probes are
    /// inconclusive.
    pub network: Uuid,
    /// Address and port to probe.
    pub address: SocketAddr,
    /// The check, shared by all backends of a pool, to save memory.
    pub check: Arc<Check>,
}

/// News of the checker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// A verdict.
    Verdict(Verdict),
    /// Probes that say nothing, or no longer.
    Inconclusive(InconclusiveCheck),
}

/// The probes of a target fail for a reason of the node's own, or no longer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InconclusiveCheck {
    /// The target.
    pub key: TargetKey,
    /// Backends that it concerns.
    pub backends: Vec<Uuid>,
    /// Reason, for people; `None`: its probes say something again.
    pub reason: Option<String>,
    /// Time of the report.
    pub at: SystemTime,
}

/// A backend address was found up or down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The target that was probed.
    pub key: TargetKey,
    /// Backends that it concerns.
    pub backends: Vec<Uuid>,
    /// True if the backend is up.
    pub up: bool,
    /// Reason, for people: `connection refused`, `HTTP 503, expected 200`.
    pub reason: String,
    /// Time of the verdict.
    pub at: SystemTime,
    /// Number of the verdict. A [`VerdictSnapshot`] includes all up to its own number.
    pub sequence: u64,
}

/// All verdicts at one moment. Targets without one are not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerdictSnapshot {
    /// Number of the latest verdict that was reported before.
    pub sequence: u64,
    /// The verdicts, in no order.
    pub verdicts: Vec<Verdict>,
}

/// Verdict of the checker on one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendCheck {
    /// The backend.
    pub backend: Uuid,
    /// Network that its address belongs to.
    pub network: Uuid,
    /// Address and port that are probed.
    pub address: SocketAddr,
    /// True if it is up; `None`: no verdict yet.
    pub up: Option<bool>,
    /// Duration of the latest probe that said something of the backend, good or bad.
    pub took: Option<Duration>,
}

impl fmt::Debug for Targets {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let networks: Vec<_> = self.networks.keys().collect();
        out.debug_struct("Targets").field("networks", &networks).field("targets", &self.targets).finish()
    }
}
