//! A pool that the node checks, or proxies to, or both.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fiberlb_proto::agent::v1;
use uuid::Uuid;

use super::invalid::{ResourceError, bounded, distinct, endpoint, field, id, parse};
use super::{Resource, ResourceKind};
use crate::dataplane::{Algorithm, MAX_WEIGHT, PassiveHealthSpec, QueueSpec};
use crate::health::{Check, CheckKind, ExpectedCodes, Http};
use crate::proxy_protocol::Version;

/// Most backends of one pool.
const MOST_BACKENDS: usize = 10_000;

/// Longest drain timeout.
const MAX_DRAIN: Duration = Duration::from_secs(86_400);

/// Shortest and longest slow start.
const MIN_SLOW_START: Duration = Duration::from_secs(1);
const MAX_SLOW_START: Duration = Duration::from_secs(3_600);

/// Most failures in a row that eject a backend.
const MOST_FAILURES: u32 = 100;

/// Shortest and longest time of a first ejection, and longest of any.
const MIN_EJECTION: Duration = Duration::from_secs(1);
const MAX_EJECTION: Duration = Duration::from_secs(3_600);
const LONGEST_EJECTION: Duration = Duration::from_secs(86_400);

/// Most connections that wait for a place at the backends of a pool, and for how long.
const MAX_QUEUE: u32 = 10_000;
const MAX_QUEUE_TIMEOUT: Duration = Duration::from_secs(3_600);

/// A pool that the node checks, or proxies to, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Its UUID in the public API.
    pub id: Uuid,
    /// The network that its backends are reached through.
    pub network: Uuid,
    /// Algorithm that selects a backend.
    pub algorithm: Algorithm,
    /// Timeout of SOURCE_IP persistence; None: each connection is decided anew.
    pub persistence: Option<Duration>,
    /// False: every connection is reset.
    pub enabled: bool,
    /// Its backends; ids are distinct.
    pub backends: Vec<Backend>,
    /// Header of PROXY protocol that connections to its backends begin with.
    pub header: Option<Version>,
    /// Time after which connections of a backend that is gone are reset; None: never.
    pub drain_timeout: Option<Duration>,
    /// Time in which the weight of a backend that begins to take connections grows to all of it; None: at once.
    pub slow_start: Option<Duration>,
    /// Passive health check.
    pub passive_health: Option<PassiveHealthSpec>,
    /// Queue of the connections that find all backends at their limits; None: they are reset.
    pub queue: Option<QueueSpec>,
    /// None: its backends count as up.
    pub check: Option<PoolCheck>,
}

/// Health check of a pool, by where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolCheck {
    /// Check of a backend at its own address and port, which begins with the pool's header.
    pub at_backend: Arc<Check>,
    /// Check of a backend somewhere else: what answers there need not know the header.
    pub elsewhere: Arc<Check>,
}

/// One server of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its UUID in the public API.
    pub id: Uuid,
    /// Address that it listens on.
    pub address: SocketAddr,
    /// 0 to 256.
    pub weight: u16,
    /// Only used while no other is left.
    pub backup: bool,
    /// False: takes no connections, and is not checked.
    pub enabled: bool,
    /// Address that is checked.
    pub monitor_address: SocketAddr,
    /// True if it takes no connections before its first good probe.
    pub probation: bool,
    /// Most connections at a time on this node.
    pub connection_limit: Option<u32>,
}

impl Pool {
    /// The backends that are checked, with the check.
    pub fn checked(&self) -> impl Iterator<Item = (&Backend, &Arc<Check>)> {
        let check = self.check.as_ref();
        let enabled = self.backends.iter().filter(|backend| backend.enabled);
        enabled.filter_map(move |backend| Some((backend, check?.of(backend))))
    }
}

impl PoolCheck {
    fn new(check: Check, header: Option<Version>) -> Self {
        match header {
            None => {
                let check = Arc::new(check);
                Self { at_backend: Arc::clone(&check), elsewhere: check }
            }
            Some(version) => {
                Self { at_backend: Arc::new(check.clone().with_header(version)), elsewhere: Arc::new(check) }
            }
        }
    }

    fn of(&self, backend: &Backend) -> &Arc<Check> {
        if backend.monitor_address == backend.address { &self.at_backend } else { &self.elsewhere }
    }
}

impl Resource for Pool {
    type Wire = v1::Pool;
    const KIND: ResourceKind = ResourceKind::Pool;

    fn read(id_: Uuid, wire: &v1::Pool) -> Result<Self, ResourceError> {
        bounded("backends", wire.backends.len(), MOST_BACKENDS)?;
        let backends: Vec<Backend> = wire.backends.iter().map(backend).collect::<Result<_, _>>()?;
        distinct("backends", backends.iter().map(|backend| backend.id))?;
        let seconds = u64::from(wire.persistence_timeout_s);
        let (algorithm, header) = (algorithm(wire)?, header(wire)?);
        Ok(Self {
            id: id_,
            network: id("network_id", &wire.network_id)?,
            algorithm,
            persistence: (seconds > 0).then(|| Duration::from_secs(seconds)),
            enabled: wire.enabled,
            backends,
            header,
            drain_timeout: wire.drain_timeout_ms.map(drain_timeout),
            slow_start: slow_start(wire.slow_start_ms, algorithm),
            passive_health: wire.passive_health_check.as_ref().map(passive_health),
            queue: queue(wire),
            check: wire.check.as_ref().map(check).transpose()?.map(|check| PoolCheck::new(check, header)),
        })
    }

    /// Keeps backends out of probation that have passed it: the plugin may not have received their verdicts
    /// yet.
    fn succeed(&mut self, before: &Self) {
        let proven: HashSet<Uuid> = before
            .checked()
            .filter(|(backend, _)| !backend.probation)
            .map(|(backend, _)| backend.id)
            .collect();
        for backend in &mut self.backends {
            backend.probation &= !proven.contains(&backend.id);
        }
    }
}

fn algorithm(wire: &v1::Pool) -> Result<Algorithm, ResourceError> {
    match wire.algorithm() {
        v1::Algorithm::RoundRobin => Ok(Algorithm::RoundRobin),
        v1::Algorithm::LeastConnections => Ok(Algorithm::LeastConnections),
        v1::Algorithm::SourceIp => Ok(Algorithm::SourceIp),
        v1::Algorithm::SourceIpPort => Ok(Algorithm::SourceIpPort),
        v1::Algorithm::Random => Ok(Algorithm::Random),
        v1::Algorithm::PowerOfTwoChoices => Ok(Algorithm::PowerOfTwoChoices),
        v1::Algorithm::Unspecified => {
            Err(field("algorithm", &wire.algorithm, "this release of the agent does not know it: update it"))
        }
    }
}

fn header(wire: &v1::Pool) -> Result<Option<Version>, ResourceError> {
    match v1::ProxyProtocol::try_from(wire.proxy_protocol) {
        Ok(v1::ProxyProtocol::Unspecified) => Ok(None),
        Ok(v1::ProxyProtocol::V1) => Ok(Some(Version::V1)),
        Ok(v1::ProxyProtocol::V2) => Ok(Some(Version::V2)),
        Err(_) => Err(ResourceError::Unsupported { field: "proxy_protocol", value: wire.proxy_protocol }),
    }
}

fn drain_timeout(millis: u32) -> Duration {
    Duration::from_millis(millis.into()).min(MAX_DRAIN)
}

/// Slow start of a pool; one that hashes has none, since clients would move with the weights.
fn slow_start(millis: u32, algorithm: Algorithm) -> Option<Duration> {
    let is_hashed = matches!(algorithm, Algorithm::SourceIp | Algorithm::SourceIpPort);
    let given = Duration::from_millis(millis.into());
    (millis > 0 && !is_hashed).then(|| given.clamp(MIN_SLOW_START, MAX_SLOW_START))
}

fn passive_health(wire: &v1::PassiveHealthCheck) -> PassiveHealthSpec {
    let ejection = Duration::from_millis(wire.ejection_ms).clamp(MIN_EJECTION, MAX_EJECTION);
    PassiveHealthSpec {
        consecutive_failures: wire.consecutive_failures.clamp(1, MOST_FAILURES),
        ejection,
        max_ejection: Duration::from_millis(wire.max_ejection_ms).clamp(ejection, LONGEST_EJECTION),
        max_ejected_percent: u8::try_from(wire.max_ejected_percent.clamp(1, 100)).unwrap_or(100),
    }
}

/// The queue, cut to what a node can hold, and for an hour.
fn queue(wire: &v1::Pool) -> Option<QueueSpec> {
    let timeout = Duration::from_millis(wire.queue_timeout_ms.into()).min(MAX_QUEUE_TIMEOUT);
    (wire.queue_limit > 0).then(|| QueueSpec { limit: wire.queue_limit.min(MAX_QUEUE), timeout })
}

fn backend(wire: &v1::Backend) -> Result<Backend, ResourceError> {
    let weight = u16::try_from(wire.weight).ok().filter(|weight| *weight <= MAX_WEIGHT);
    Ok(Backend {
        id: id("backends.id", &wire.id)?,
        address: endpoint("backends.address", &wire.address)?,
        weight: weight.ok_or_else(|| field("backends.weight", &wire.weight, "must be 0 to 256"))?,
        backup: wire.backup,
        enabled: wire.enabled,
        monitor_address: endpoint("backends.monitor_address", &wire.monitor_address)?,
        probation: wire.probation,
        connection_limit: wire.connection_limit,
    })
}

fn check(wire: &v1::Check) -> Result<Check, ResourceError> {
    let milliseconds = |value: u32| Duration::from_millis(u64::from(value));
    let kind = match &wire.http {
        None => CheckKind::Tcp,
        Some(http) => {
            let codes = "not like \"200\", \"200,202\" or \"200-204\"";
            let expected: ExpectedCodes = parse("check.http.expected_codes", &http.expected_codes, codes)?;
            CheckKind::Http(Http::new(&http.method, &http.path, Some(&http.host), expected)?)
        }
    };
    let (delay, timeout) = (milliseconds(wire.delay_ms), milliseconds(wire.timeout_ms));
    Ok(Check::new(kind, delay, timeout, wire.rise, wire.fall)?)
}
