//! Messages of nodes, validated and bounded: nothing else of them reaches the rest of the plugin.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use fiberlb_daemon::names::is_name;
use fiberlb_proto::agent::v1;
use uuid::Uuid;

use super::protocol::ProtocolViolation;
use crate::api::{Draining, Durations, LoggedBackend, LoggedConnection};
use crate::datapath::NodeFeatures;

/// Most verdicts, results or counters in a message, and most VIPs in a Hello.
pub(crate) const MOST_IN_MESSAGE: usize = 10_000;
/// Most troubles in a message.
const MOST_TROUBLES: usize = 1_000;
/// Most connections of an access log in a message, and listeners with omitted ones.
const MOST_LOGGED: usize = 1_000;
/// Longest duration, in microseconds: exact as a floating-point number.
const LARGEST_DURATION_US: u64 = (1 << 53) - 1;
/// Most backends that are tried for a connection.
const MOST_TRIES: u32 = 255;
/// Most bytes of a word of the data plane.
const WORD_BYTES: usize = 64;
/// Most reasons of a listener or backend.
const MOST_REASONS: usize = 64;
/// Most counts of durations.
const MOST_DURATIONS: usize = 64;
/// Most capabilities in a Hello.
const MOST_CAPABILITIES: usize = 64;
/// Most bytes of a text for people.
const TEXT_BYTES: usize = 4096;
/// Bytes of it that are kept.
const KEPT_BYTES: usize = 256;
/// Latest time: the end of the year 9999, in milliseconds since 1970, is the last one that a `Timestamp` can express.
const LATEST_MS: u64 = 253_402_300_799_999;
/// Largest counter.
const LARGEST_COUNTER: u64 = i64::MAX as u64;
/// Most connections at the same time of one listener.
const MOST_CONNECTIONS: u64 = u32::MAX as u64;
/// Largest share of a connection limit: the API's limits have a sign.
const LARGEST_SHARE: u64 = i32::MAX as u64;

/// Identity and state of a node, from its first message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// 1 to 64 letters, digits, `.`, `_` or `-`; the certificate's where there is one.
    pub node_id: String,
    /// Id of the process' life; same format.
    pub boot_id: String,
    /// `system-id` of the node's Open_vSwitch database; for people.
    pub chassis: String,
    /// Release of the agent; for people.
    pub release: String,
    /// Failure domain, of the form of a node id, or empty.
    pub zone: String,
    /// Capabilities of its data plane, unknown words included.
    pub capabilities: NodeFeatures,
    /// Ids of the VIPs that it holds now.
    pub held_vips: BTreeSet<Uuid>,
}

/// Kind of the object of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ResultKind {
    /// A tenant network on the node.
    Network,
    /// A listener.
    Listener,
    /// A pool.
    Pool,
}

/// Result of applying an object on a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// Kind of the object.
    pub kind: ResultKind,
    /// Id of the object.
    pub id: Uuid,
    /// Generation of a listener; 0 for other kinds.
    pub generation: u64,
    /// Error, for people; at most 256 bytes. The node retries by itself.
    pub error: Option<String>,
}

/// Verdict of a node's health checker on a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The backend.
    pub backend: Uuid,
    /// True if it is healthy.
    pub up: bool,
    /// Reason if it is unhealthy, for people; at most 256 bytes, empty when up.
    pub reason: String,
    /// Time of the verdict: milliseconds since 1970 by the node's clock.
    pub since_ms: u64,
}

/// Check of a node whose probes say nothing about their backend, or say something again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedDoubt {
    /// The backend.
    pub backend: Uuid,
    /// Reason, for people, at most 256 bytes; `None`: its probes say something.
    pub reason: Option<String>,
    /// Time since when: milliseconds since 1970 by the node's clock.
    pub since_ms: u64,
}

/// Counters of a listener, or of a backend, on a node since the node's process started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrafficReport {
    /// The listener or backend.
    pub subject: Uuid,
    /// Connections that were accepted.
    pub connections_total: u64,
    /// Connections at this moment.
    pub connections_active: u64,
    /// Connections that were not served; attempts to reach a backend that failed.
    pub connections_failed_total: u64,
    /// Bytes from clients.
    pub bytes_in_total: u64,
    /// Bytes to clients.
    pub bytes_out_total: u64,
    /// Connections that were not served, or did not end well, by reason.
    pub reasons: BTreeMap<String, u64>,
    /// Durations of the connections that had reached a backend and have ended.
    pub durations: Durations,
    /// State of its drain: of a backend that takes no connections, or none of some listeners, or of a listener that is gone.
    pub drain: Option<ReportedDrain>,
    /// Use of its share of the connection limit, of a listener that has one.
    pub share: Option<ReportedShare>,
}

/// Connections left of a backend that takes no new ones, or none of some listeners, or of a removed listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportedDrain {
    /// Pool of a backend, load balancer of a listener.
    pub parent: Uuid,
    /// Connections, and their deadline by the node's clock.
    pub left: Draining,
}

/// Use of a node's share of a listener's connection limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportedShare {
    /// Share in force on the node.
    pub in_force: u32,
    /// Clients that were turned away above it, since the node's process started.
    pub above_total: u64,
}

/// Passive health of a backend on a node at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedEjection {
    /// The backend.
    pub backend: Uuid,
    /// End, in milliseconds since 1970 by the node's clock, and reason, for people, at most 256 bytes; `None`: it is not left
    /// out.
    pub ejection: Option<(u64, String)>,
}

/// Trouble of a node at this moment: what keeps it from serving all clients, though it carries out its configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeTrouble {
    /// The listener; `None`: the node as a whole.
    pub listener: Option<Uuid>,
    /// A sentence for people; at most 256 bytes.
    pub text: String,
}

/// Connections of a node that somebody reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccessLogReport {
    /// In the order of their ends.
    pub connections: Vec<ReportedConnection>,
    /// Numbers of those that were left out, by listener.
    pub omitted: BTreeMap<Uuid, u64>,
}

/// Connection of a listener that somebody reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedConnection {
    /// Project of the listener when the node was told of it.
    pub project: String,
    /// The connection, without the name of the node.
    pub connection: LoggedConnection,
}

impl TryFrom<v1::Hello> for Hello {
    type Error = ProtocolViolation;

    fn try_from(wire: v1::Hello) -> Result<Self, ProtocolViolation> {
        bounded("Hello.capabilities", wire.capabilities.len(), MOST_CAPABILITIES)?;
        bounded("Hello.held_vip_ids", wire.held_vip_ids.len(), MOST_IN_MESSAGE)?;
        let zone = if wire.zone.is_empty() { wire.zone } else { name("Hello.zone", wire.zone)? };
        let capability = |text| name("Hello.capabilities", text);
        Ok(Self {
            node_id: name("Hello.node_id", wire.node_id)?,
            boot_id: name("Hello.boot_id", wire.boot_id)?,
            chassis: text("Hello.chassis", &wire.chassis)?,
            release: text("Hello.release", &wire.release)?,
            zone,
            capabilities: NodeFeatures::stated(
                wire.capabilities.into_iter().map(capability).collect::<Result<Vec<_>, _>>()?,
            ),
            held_vips: wire
                .held_vip_ids
                .iter()
                .map(|text| id("Hello.held_vip_ids", text))
                .collect::<Result<_, _>>()?,
        })
    }
}

impl TryFrom<v1::Result> for Acknowledgement {
    type Error = ProtocolViolation;

    fn try_from(wire: v1::Result) -> Result<Self, ProtocolViolation> {
        let kind = match wire.kind() {
            v1::result::Kind::Network => ResultKind::Network,
            v1::result::Kind::Listener => ResultKind::Listener,
            v1::result::Kind::Pool => ResultKind::Pool,
            v1::result::Kind::Unspecified => {
                return Err(malformed("Result.kind", &wire.kind.to_string(), "not one of version 1"));
            }
        };
        let error = text("Result.error", &wire.error)?;
        let error = (!error.is_empty()).then_some(error);
        let generation = number("Result.generation", wire.generation, LARGEST_COUNTER)?;
        Ok(Self { kind, id: id("Result.id", &wire.id)?, generation, error })
    }
}

impl TryFrom<v1::Verdict> for Verdict {
    type Error = ProtocolViolation;

    fn try_from(wire: v1::Verdict) -> Result<Self, ProtocolViolation> {
        let backend = id("Verdict.backend_id", &wire.backend_id)?;
        let reason = text("Verdict.reason", &wire.reason)?;
        let reason = if wire.up { String::new() } else { reason };
        let since_ms = number("Verdict.since_ms", wire.since_ms, LATEST_MS)?;
        Ok(Self { backend, up: wire.up, reason, since_ms })
    }
}

impl TryFrom<v1::InconclusiveCheck> for ReportedDoubt {
    type Error = ProtocolViolation;

    fn try_from(wire: v1::InconclusiveCheck) -> Result<Self, ProtocolViolation> {
        let backend = id("InconclusiveCheck.backend_id", &wire.backend_id)?;
        let reason = text("InconclusiveCheck.reason", &wire.reason)?;
        let since_ms = number("InconclusiveCheck.since_ms", wire.since_ms, LATEST_MS)?;
        Ok(Self { backend, reason: (!reason.is_empty()).then_some(reason), since_ms })
    }
}

/// Reads the counters of a message, whose type, field of the id, and reader of the share are given.
macro_rules! read_counters {
    ($wire:ident, $id:ident, |$read:ident| $share:expr) => {
        impl TryFrom<v1::$wire> for TrafficReport {
            type Error = ProtocolViolation;

            fn try_from(wire: v1::$wire) -> Result<Self, ProtocolViolation> {
                let $read = &wire;
                macro_rules! read {
                    ($field:ident, $most:expr) => {
                        number(concat!(stringify!($wire), ".", stringify!($field)), wire.$field, $most)?
                    };
                }
                let share = $share;
                Ok(Self {
                    share,
                    reasons: reasons(concat!(stringify!($wire), ".reasons"), &wire.reasons)?,
                    durations: wire.durations.as_ref().map_or(Ok(Durations::default()), durations)?,
                    drain: wire.drain.as_ref().map(drain).transpose()?,
                    subject: id(concat!(stringify!($wire), ".", stringify!($id)), &wire.$id)?,
                    connections_total: read!(connections_total, LARGEST_COUNTER),
                    connections_active: read!(connections_active, MOST_CONNECTIONS),
                    connections_failed_total: read!(connections_failed_total, LARGEST_COUNTER),
                    bytes_in_total: read!(bytes_in_total, LARGEST_COUNTER),
                    bytes_out_total: read!(bytes_out_total, LARGEST_COUNTER),
                })
            }
        }
    };
}

read_counters!(ListenerCounters, listener_id, |wire| share(wire)?);
read_counters!(BackendCounters, backend_id, |_wire| None);

fn share(wire: &v1::ListenerCounters) -> Result<Option<ReportedShare>, ProtocolViolation> {
    let above = "ListenerCounters.connections_above_share_total";
    let above_total = number(above, wire.connections_above_share_total, LARGEST_COUNTER)?;
    let in_force = wire.connection_share.map(|share| {
        let in_force = number("ListenerCounters.connection_share", share.into(), LARGEST_SHARE);
        in_force.map(|_| ReportedShare { in_force: share, above_total })
    });
    in_force.transpose()
}

fn reasons(
    field: &'static str,
    wire: &[v1::ReasonCount],
) -> Result<BTreeMap<String, u64>, ProtocolViolation> {
    bounded(field, wire.len(), MOST_REASONS)?;
    let count = |it: &v1::ReasonCount| {
        let total = number("ReasonCount.connections_total", it.connections_total, LARGEST_COUNTER)?;
        Ok((word("ReasonCount.reason", it.reason.clone())?, total))
    };
    wire.iter().map(count).collect()
}

/// Reads durations. Those of a node with other buckets say nothing here.
fn durations(wire: &v1::DurationCounts) -> Result<Durations, ProtocolViolation> {
    bounded("DurationCounts.counts", wire.counts.len(), MOST_DURATIONS)?;
    for count in &wire.counts {
        number("DurationCounts.counts", *count, LARGEST_COUNTER)?;
    }
    let sum_us = number("DurationCounts.sum_us", wire.sum_us, LARGEST_COUNTER)?;
    let counts = <[u64; _]>::try_from(wire.counts.as_slice());
    Ok(counts.map_or_else(|_| Durations::default(), |counts| Durations { counts, sum_us }))
}

fn drain(wire: &v1::Drain) -> Result<ReportedDrain, ProtocolViolation> {
    let deadline_ms = number("Drain.deadline_ms", wire.deadline_ms, LATEST_MS)?;
    let left = Draining {
        connections: number("Drain.connections", wire.connections, MOST_CONNECTIONS)?,
        deadline_ms: (deadline_ms > 0).then_some(deadline_ms),
    };
    Ok(ReportedDrain { parent: id("Drain.parent_id", &wire.parent_id)?, left })
}

impl TryFrom<v1::AccessLog> for AccessLogReport {
    type Error = ProtocolViolation;

    fn try_from(wire: v1::AccessLog) -> Result<Self, ProtocolViolation> {
        bounded("AccessLog.entries", wire.entries.len(), MOST_LOGGED)?;
        bounded("AccessLog.omitted", wire.omitted.len(), MOST_LOGGED)?;
        let omitted = |it: v1::OmittedEntries| {
            let connections = number("OmittedEntries.connections", it.connections, LARGEST_COUNTER)?;
            Ok((id("OmittedEntries.listener_id", &it.listener_id)?, connections))
        };
        Ok(Self {
            connections: wire.entries.into_iter().map(logged).collect::<Result<_, _>>()?,
            omitted: wire.omitted.into_iter().map(omitted).collect::<Result<_, ProtocolViolation>>()?,
        })
    }
}

fn tries(value: u32) -> Result<u32, ProtocolViolation> {
    number("AccessLogEntry.tries", value.into(), MOST_TRIES.into()).map(|_| value)
}

fn logged(wire: v1::AccessLogEntry) -> Result<ReportedConnection, ProtocolViolation> {
    let backend = (!wire.backend_id.is_empty()).then(|| {
        Ok(LoggedBackend {
            id: id("AccessLogEntry.backend_id", &wire.backend_id)?,
            address: address("AccessLogEntry.backend", &wire.backend)?,
            selection: word("AccessLogEntry.selection", wire.selection)?,
            tries: tries(wire.tries)?,
            connect_us: number("AccessLogEntry.connect_us", wire.connect_us, LARGEST_DURATION_US)?,
        })
    });
    let peer = (!wire.peer.is_empty()).then(|| address("AccessLogEntry.peer", &wire.peer));
    let pool = (!wire.pool_id.is_empty()).then(|| id("AccessLogEntry.pool_id", &wire.pool_id));
    let connection = LoggedConnection {
        node: String::new(),
        listener: id("AccessLogEntry.listener_id", &wire.listener_id)?,
        start_ms: number("AccessLogEntry.start_ms", wire.start_ms, LATEST_MS)?,
        duration_us: number("AccessLogEntry.duration_us", wire.duration_us, LARGEST_DURATION_US)?,
        client: address("AccessLogEntry.client", &wire.client)?,
        peer: peer.transpose()?,
        pool: pool.transpose()?,
        backend: backend.transpose()?,
        bytes_in: number("AccessLogEntry.bytes_in", wire.bytes_in, LARGEST_COUNTER)?,
        bytes_out: number("AccessLogEntry.bytes_out", wire.bytes_out, LARGEST_COUNTER)?,
        reason: word("AccessLogEntry.reason", wire.reason)?,
    };
    Ok(ReportedConnection { project: text("AccessLogEntry.project_id", &wire.project_id)?, connection })
}

impl TryFrom<&v1::BackendCounters> for ReportedEjection {
    type Error = ProtocolViolation;

    fn try_from(wire: &v1::BackendCounters) -> Result<Self, ProtocolViolation> {
        let until_ms = number("BackendCounters.ejected_until_ms", wire.ejected_until_ms, LATEST_MS)?;
        let reason = text("BackendCounters.ejection_reason", &wire.ejection_reason)?;
        Ok(Self {
            backend: id("BackendCounters.backend_id", &wire.backend_id)?,
            ejection: (until_ms > 0).then_some((until_ms, reason)),
        })
    }
}

impl TryFrom<v1::Trouble> for NodeTrouble {
    type Error = ProtocolViolation;

    fn try_from(wire: v1::Trouble) -> Result<Self, ProtocolViolation> {
        let listener = (!wire.listener_id.is_empty()).then(|| id("Trouble.listener_id", &wire.listener_id));
        Ok(Self { listener: listener.transpose()?, text: text("Trouble.text", &wire.text)? })
    }
}

/// Validates the troubles of a message; `None`: it says nothing of them.
pub(crate) fn troubles(wire: Option<v1::Troubles>) -> Result<Option<Vec<NodeTrouble>>, ProtocolViolation> {
    let Some(v1::Troubles { troubles }) = wire else { return Ok(None) };
    bounded("Troubles.troubles", troubles.len(), MOST_TROUBLES)?;
    troubles.into_iter().map(NodeTrouble::try_from).collect::<Result<_, _>>().map(Some)
}

/// Validates all entries of a message's list.
pub(crate) fn all<W, T>(field: &'static str, wire: Vec<W>) -> Result<Vec<T>, ProtocolViolation>
where
    T: TryFrom<W, Error = ProtocolViolation>,
{
    bounded(field, wire.len(), MOST_IN_MESSAGE)?;
    wire.into_iter().map(T::try_from).collect()
}

fn bounded(field: &'static str, count: usize, most: usize) -> Result<(), ProtocolViolation> {
    if count > most { Err(ProtocolViolation::TooMany { field, count, most }) } else { Ok(()) }
}

fn name(field: &'static str, value: String) -> Result<String, ProtocolViolation> {
    if is_name(&value) {
        return Ok(value);
    }
    Err(malformed(field, &value, "not 1 to 64 letters, digits, '.', '_' or '-'"))
}

fn id(field: &'static str, value: &str) -> Result<Uuid, ProtocolViolation> {
    value.parse().map_err(|_| malformed(field, value, "not a UUID"))
}

fn address(field: &'static str, value: &str) -> Result<SocketAddr, ProtocolViolation> {
    value.parse().map_err(|_| malformed(field, value, "not ADDRESS:PORT"))
}

/// A word of the data plane, which a program compares.
fn word(field: &'static str, value: String) -> Result<String, ProtocolViolation> {
    let is_word = value.len() <= WORD_BYTES && value.bytes().all(|it| it == b'_' || it.is_ascii_lowercase());
    if is_word { Ok(value) } else { Err(malformed(field, &value, "not up to 64 lowercase letters or '_'")) }
}

fn malformed(field: &'static str, value: &str, why: &'static str) -> ProtocolViolation {
    ProtocolViolation::Malformed { field, value: kept(value), why }
}

fn number(field: &'static str, value: u64, most: u64) -> Result<u64, ProtocolViolation> {
    if value > most { Err(ProtocolViolation::TooLarge { field, value, most }) } else { Ok(value) }
}

/// A text for people, as far as it is kept.
fn text(field: &'static str, value: &str) -> Result<String, ProtocolViolation> {
    let bytes = value.len();
    if bytes > TEXT_BYTES {
        return Err(ProtocolViolation::TooLong { field, bytes, most: TEXT_BYTES });
    }
    Ok(kept(value))
}

/// A text, cut, and without characters that could fake a line of a log.
fn kept(value: &str) -> String {
    let end = (0..=KEPT_BYTES.min(value.len())).rev().find(|at| value.is_char_boundary(*at)).unwrap_or(0);
    let head = value.get(..end).unwrap_or_default();
    head.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests;
