//! Messages of nodes, validated and bounded: nothing else of them reaches the rest of the plugin.

use std::collections::BTreeSet;

use fiberlb_daemon::names::is_name;
use fiberlb_proto::agent::v1;
use uuid::Uuid;

use super::protocol::ProtocolViolation;
use crate::datapath::NodeFeatures;

/// Most verdicts, results or counters in a message, and most VIPs in a Hello.
pub(crate) const MOST_IN_MESSAGE: usize = 10_000;
/// Most troubles in a message.
const MOST_TROUBLES: usize = 1_000;
/// Most capabilities in a Hello.
const MOST_CAPABILITIES: usize = 64;
/// Most bytes of a text for people; longer ones are cut.
const TEXT_BYTES: usize = 256;

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

/// Counters of a listener on a node since the node's process started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerCounters {
    /// The listener.
    pub listener: Uuid,
    /// Connections that were accepted.
    pub connections_total: u64,
    /// Connections at this moment.
    pub connections_active: u64,
    /// Connections that were not served.
    pub connections_failed_total: u64,
    /// Bytes from clients.
    pub bytes_in_total: u64,
    /// Bytes to clients.
    pub bytes_out_total: u64,
}

/// Trouble of a node at this moment: what keeps it from serving all clients, though it carries out its configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeTrouble {
    /// The listener; `None`: the node as a whole.
    pub listener: Option<Uuid>,
    /// A sentence for people; at most 256 bytes.
    pub text: String,
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
            chassis: text(&wire.chassis),
            release: text(&wire.release),
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
        let error = (!wire.error.is_empty()).then(|| text(&wire.error));
        Ok(Self { kind, id: id("Result.id", &wire.id)?, generation: wire.generation, error })
    }
}

impl TryFrom<v1::Verdict> for Verdict {
    type Error = ProtocolViolation;

    fn try_from(wire: v1::Verdict) -> Result<Self, ProtocolViolation> {
        let backend = id("Verdict.backend_id", &wire.backend_id)?;
        let reason = if wire.up { String::new() } else { text(&wire.reason) };
        Ok(Self { backend, up: wire.up, reason, since_ms: wire.since_ms })
    }
}

impl TryFrom<v1::InconclusiveCheck> for ReportedDoubt {
    type Error = ProtocolViolation;

    fn try_from(wire: v1::InconclusiveCheck) -> Result<Self, ProtocolViolation> {
        let backend = id("InconclusiveCheck.backend_id", &wire.backend_id)?;
        let reason = (!wire.reason.is_empty()).then(|| text(&wire.reason));
        Ok(Self { backend, reason, since_ms: wire.since_ms })
    }
}

impl TryFrom<v1::ListenerCounters> for ListenerCounters {
    type Error = ProtocolViolation;

    fn try_from(wire: v1::ListenerCounters) -> Result<Self, ProtocolViolation> {
        Ok(Self {
            listener: id("ListenerCounters.listener_id", &wire.listener_id)?,
            connections_total: wire.connections_total,
            connections_active: wire.connections_active,
            connections_failed_total: wire.connections_failed_total,
            bytes_in_total: wire.bytes_in_total,
            bytes_out_total: wire.bytes_out_total,
        })
    }
}

impl TryFrom<v1::Trouble> for NodeTrouble {
    type Error = ProtocolViolation;

    fn try_from(wire: v1::Trouble) -> Result<Self, ProtocolViolation> {
        let listener = (!wire.listener_id.is_empty()).then(|| id("Trouble.listener_id", &wire.listener_id));
        Ok(Self { listener: listener.transpose()?, text: text(&wire.text) })
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

fn malformed(field: &'static str, value: &str, why: &'static str) -> ProtocolViolation {
    ProtocolViolation::Malformed { field, value: text(value), why }
}

/// A text for people: cut, and without characters that could fake a line of a log.
fn text(value: &str) -> String {
    let end = (0..=TEXT_BYTES.min(value.len())).rev().find(|at| value.is_char_boundary(*at)).unwrap_or(0);
    let head = value.get(..end).unwrap_or_default();
    head.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters_and_stay_on_one_line() {
        assert_eq!(text("connection\nrefused\u{1b}[31m"), "connection refused [31m");
        let long = "é".repeat(300);
        assert_eq!(text(&long).len(), 256);
        assert_eq!(text(&format!("x{long}")).len(), 255);
        assert_eq!(text(""), "");
    }

    #[test]
    fn an_unknown_kind_or_id_is_refused_by_its_field() {
        let result = v1::Result { kind: 9, id: Uuid::nil().to_string(), ..v1::Result::default() };
        assert!(Acknowledgement::try_from(result).unwrap_err().to_string().contains("Result.kind"));
        let verdict = v1::Verdict { backend_id: "10.0.0.1".to_owned(), ..v1::Verdict::default() };
        assert!(Verdict::try_from(verdict).unwrap_err().to_string().contains("10.0.0.1"));
        let many = vec![v1::Verdict::default(); MOST_IN_MESSAGE + 1];
        assert!(matches!(all::<_, Verdict>("x", many), Err(ProtocolViolation::TooMany { .. })));
    }

    #[test]
    fn a_node_without_capabilities_is_of_an_old_release() {
        let hello = |words: &[&str]| v1::Hello {
            node_id: "n1".to_owned(),
            boot_id: "b".to_owned(),
            capabilities: words.iter().map(|word| (*word).to_owned()).collect(),
            ..v1::Hello::default()
        };
        let stated = |words: &[&str]| Hello::try_from(hello(words)).unwrap().capabilities;
        assert_eq!(stated(&[]), NodeFeatures::of_old_agents());
        assert_eq!(stated(&["tcp"]), stated(&[]));
        assert!(!stated(&["unknown"]).cover(&NodeFeatures::of_old_agents()));
        assert!(Hello::try_from(hello(&["a b"])).is_err());
    }
}
