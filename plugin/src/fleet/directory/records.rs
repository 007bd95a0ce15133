//! Stored records of the proxy nodes and of their allocations. Keys below `/fiberlb/fleet/`.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::datapath::NodeFeatures;
use crate::resources::{checksum, guard};
use fiberlb_store::{Compare, Revision, Write};

/// Version of the JSON forms. 1: nodes had no duty, and ports did not drain; such records are read as well.
pub(in crate::fleet) const VERSION: u32 = 2;

/// Prefix of all keys of this module.
pub(in crate::fleet) const FLEET: &str = "/fiberlb/fleet/";

/// Key of a record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::fleet) enum FleetKey {
    /// `/fiberlb/fleet/nodes/{node}`
    Node(String),
    /// `/fiberlb/fleet/ports/{network}/{node}`
    Port(Uuid, String),
    /// `/fiberlb/fleet/proxyports/{network}/{port}`
    ProxyPort(Uuid, u16),
    /// `/fiberlb/fleet/clock`; older releases do not know it.
    Clock,
}

impl fmt::Display for FleetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "{FLEET}nodes/{node}"),
            Self::Port(network, node) => write!(f, "{FLEET}ports/{network}/{node}"),
            Self::ProxyPort(network, port) => write!(f, "{FLEET}proxyports/{network}/{port}"),
            Self::Clock => write!(f, "{FLEET}clock"),
        }
    }
}

impl FleetKey {
    /// Reads a key; `None` for keys of other things.
    pub(in crate::fleet) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix(FLEET)?.split('/');
        let key = match (parts.next()?, parts.next(), parts.next()) {
            ("clock", None, None) => Self::Clock,
            ("nodes", Some(node), None) => Self::Node(node.to_owned()),
            ("ports", Some(network), Some(node)) => Self::Port(network.parse().ok()?, node.to_owned()),
            ("proxyports", Some(network), Some(port)) => {
                Self::ProxyPort(network.parse().ok()?, port.parse().ok()?)
            }
            _ => return None,
        };
        parts.next().is_none().then_some(key)
    }
}

/// Duty of a node, set by operators. Active by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Duty {
    /// It serves its share of the networks.
    #[default]
    Active,
    /// It keeps its networks and gets no new ones.
    Cordoned,
    /// Its networks move to others.
    Draining,
}

impl Duty {
    /// The duty after a cordon. A draining node keeps draining.
    pub fn cordoned(self) -> Self {
        if self == Self::Active { Self::Cordoned } else { self }
    }
}

/// A proxy node that has connected once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    version: u32,
    /// Node id, unique in the installation.
    pub id: String,
    /// Failure domain; may be empty.
    pub zone: String,
    /// `system-id` of its Open_vSwitch database.
    pub chassis: String,
    /// Release of its agent.
    pub release: String,
    /// Time of the first connection, in milliseconds since 1970.
    pub registered_at: u64,
    /// Duty set by an operator.
    #[serde(default)]
    pub duty: Duty,
    /// Capabilities of its data plane. Absent in records of agents that state none.
    #[serde(default = "NodeFeatures::of_old_agents", skip_serializing_if = "is_of_old_agent")]
    pub capabilities: NodeFeatures,
}

/// Allocation of a node on a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortRecord {
    version: u32,
    /// At most one of each family, with the subnets' prefix lengths.
    pub addresses: Vec<IpNetwork>,
    /// Further addresses, by which the node connects to backends. Releases that do not know them drop them here and leave them
    /// reserved.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<IpNetwork>,
    /// Time since which it takes no new connections, because the network has moved to others, in milliseconds
    /// since 1970 by the clock of the leader's machine; `None`: it serves. Releases that do not know `drain_began` measure by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining_since: Option<u64>,
    /// The same time by the fleet's clock, in milliseconds; `None` where it serves, and in records of older releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_began: Option<u64>,
}

/// The port that proxies listen on for a listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::fleet) struct ProxyPortRecord {
    version: u32,
    /// Its load balancer.
    pub load_balancer: Uuid,
    /// The listener.
    pub listener: Uuid,
    /// Place of the listener's port that it stands for, in a range. Releases that do not know it take further ports of a listener for
    /// stale.
    #[serde(default, skip_serializing_if = "is_first")]
    pub offset: u16,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_first(offset: &u16) -> bool {
    *offset == 0
}

fn is_of_old_agent(capabilities: &NodeFeatures) -> bool {
    *capabilities == NodeFeatures::of_old_agents()
}

impl NodeRecord {
    /// Record of a new node, with the capabilities of an old agent.
    pub fn new(id: &str, zone: &str, chassis: &str, release: &str, registered_at: u64) -> Self {
        let text = str::to_owned;
        let (id, zone, chassis, release) = (text(id), text(zone), text(chassis), text(release));
        let capabilities = NodeFeatures::of_old_agents();
        Self { version: VERSION, id, zone, chassis, release, registered_at, duty: Duty::Active, capabilities }
    }

    /// The same node with another duty.
    pub fn with_duty(self, duty: Duty) -> Self {
        Self { version: VERSION, duty, ..self }
    }

    /// The same node with other capabilities.
    pub fn with_capabilities(self, capabilities: NodeFeatures) -> Self {
        Self { version: VERSION, capabilities, ..self }
    }
}

impl PortRecord {
    /// A port with these addresses.
    pub fn new(addresses: Vec<IpNetwork>) -> Self {
        Self { version: VERSION, addresses, sources: Vec::new(), draining_since: None, drain_began: None }
    }

    /// The same port, which begins to drain: at `ms` since 1970, and at `fleet_ms` by the fleet's clock.
    #[must_use]
    pub fn draining(&self, ms: u64, fleet_ms: u64) -> Self {
        Self { version: VERSION, draining_since: Some(ms), drain_began: Some(fleet_ms), ..self.clone() }
    }

    /// The same port, which serves.
    #[must_use]
    pub fn serving(&self) -> Self {
        Self { version: VERSION, draining_since: None, drain_began: None, ..self.clone() }
    }

    /// The same port with more addresses.
    pub fn with(&self, more: Vec<IpNetwork>) -> Self {
        let addresses = self.addresses.iter().copied().chain(more).collect();
        Self { version: VERSION, addresses, ..self.clone() }
    }

    /// The same port with another further address.
    pub fn with_source(&self, source: IpNetwork) -> Self {
        let sources = self.sources.iter().copied().chain([source]).collect();
        Self { version: VERSION, sources, ..self.clone() }
    }

    /// The same port without one of its further addresses.
    pub fn without_source(&self, source: IpNetwork) -> Self {
        let sources = self.sources.iter().copied().filter(|own| *own != source).collect();
        Self { version: VERSION, sources, ..self.clone() }
    }

    /// Its last further address of a subnet's family.
    pub fn last_source_in(&self, subnet: &IpNetwork) -> Option<IpNetwork> {
        self.sources.iter().rfind(|source| source.is_ipv4() == subnet.is_ipv4()).copied()
    }

    /// Number of its addresses of a subnet's family, the further ones included.
    pub fn sources_in(&self, subnet: &IpNetwork) -> usize {
        self.all_hosts().filter(|own| own.is_ipv4() == subnet.is_ipv4()).count()
    }

    /// True if it has no address of a subnet's family.
    pub fn lacks_family_of(&self, subnet: &IpNetwork) -> bool {
        !self.addresses.iter().any(|own| own.is_ipv4() == subnet.is_ipv4())
    }

    /// Addresses without prefix lengths.
    pub fn hosts(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.iter().map(IpNetwork::ip)
    }

    /// The same with the further ones.
    pub fn all_hosts(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.iter().chain(&self.sources).map(IpNetwork::ip)
    }
}

impl ProxyPortRecord {
    /// Record of a port allocated to a listener's port at `offset`.
    pub(in crate::fleet) fn new(load_balancer: Uuid, listener: Uuid, offset: u16) -> Self {
        Self { version: VERSION, load_balancer, listener, offset }
    }
}

/// Reads a record; `None` for one that is malformed, damaged or of a newer version.
pub(in crate::fleet) fn decode<T: DeserializeOwned>(value: &[u8]) -> Option<T> {
    #[derive(Deserialize)]
    struct FleetRecordVersion {
        version: u32,
    }
    let FleetRecordVersion { version } =
        serde_json::from_slice(value).ok().filter(|_| checksum::holds(value))?;
    (version <= VERSION).then(|| serde_json::from_slice(value).ok())?
}

/// The write that puts a record.
///
/// # Errors
/// None for the records of this module.
pub(in crate::fleet) fn put<T: Serialize>(key: &FleetKey, record: &T) -> Result<Write, serde_json::Error> {
    Ok(Write::Put { key: key.to_string(), value: checksum::add(serde_json::to_vec(record)?) })
}

/// Condition that a key does not exist.
pub(in crate::fleet) fn absent(key: String) -> Compare {
    Compare { key, revision: Revision::ZERO }
}

/// Condition that a key has not changed since `revision`.
pub(in crate::fleet) fn unchanged(key: &FleetKey, revision: Revision) -> Compare {
    Compare { key: key.to_string(), revision }
}

/// Guard that makes an address unique among nodes and VIPs of a network.
pub(in crate::fleet) fn address_guard(network: Uuid, address: IpAddr) -> String {
    guard::vip(network, address)
}

/// The write that reserves an address.
pub(in crate::fleet) fn reserve_address(network: Uuid, address: IpAddr, node: &str) -> Write {
    let value = serde_json::json!({ "version": VERSION, "node": node }).to_string().into_bytes();
    Write::Put { key: address_guard(network, address), value }
}

/// Node that an address is reserved for, by the value of its guard; `None`: it is a VIP's.
pub(in crate::fleet) fn reserved_for(value: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Reservation {
        node: String,
    }
    serde_json::from_slice(value).ok().map(|Reservation { node }| node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_their_text_form() {
        let network = Uuid::from_u128(1);
        let keys = [
            FleetKey::Node("n1".into()),
            FleetKey::Port(network, "n1".into()),
            FleetKey::ProxyPort(network, 10_000),
            FleetKey::Clock,
        ];
        for key in keys {
            assert_eq!(FleetKey::parse(&key.to_string()), Some(key));
        }
        assert_eq!(FleetKey::parse("/fiberlb/fleet/nodes/a/b"), None);
        assert_eq!(FleetKey::parse("/fiberlb/fleet/clock/a"), None);
        assert_eq!(FleetKey::parse("/fiberlb/fleet/nodes"), None);
        assert_eq!(FleetKey::parse("/fiberlb/listeners/a/b"), None);
    }

    #[test]
    fn a_damaged_record_is_not_read() {
        let port = PortRecord::new(vec!["10.0.0.9/24".parse().unwrap()]);
        let Write::Put { mut value, .. } =
            put(&FleetKey::Port(Uuid::from_u128(1), "n1".into()), &port).unwrap()
        else {
            panic!()
        };
        assert_eq!(decode(&value), Some(port));
        let at = value.windows(3).position(|part| part == b"9/2").unwrap();
        value[at] = b'8';
        assert_eq!(decode::<PortRecord>(&value), None);
    }

    #[test]
    fn a_newer_record_is_not_read() {
        assert_eq!(decode::<PortRecord>(br#"{"version":3,"addresses":[]}"#), None);
    }

    #[test]
    fn records_of_the_first_version_are_read_as_of_nodes_that_take_part() {
        let port: PortRecord = decode(br#"{"version":1,"addresses":["10.0.0.9/24"]}"#).unwrap();
        assert_eq!((port.addresses.len(), port.draining_since), (1, None));
        let node = br#"{"version":1,"id":"n1","zone":"z1","chassis":"c","release":"1","registered_at":7}"#;
        let node: NodeRecord = decode(node).unwrap();
        assert_eq!((node.zone.as_str(), node.duty), ("z1", Duty::Active));
        assert_eq!(node.capabilities, NodeFeatures::of_old_agents());
        let text = serde_json::to_string(&node).unwrap();
        assert!(!text.contains("capabilities"), "an older plugin's record of the same node is the same");
        let capable =
            node.clone().with_capabilities(NodeFeatures::stated(["tcp".to_owned(), "later".to_owned()]));
        let text = serde_json::to_vec(&capable).unwrap();
        assert_eq!(decode::<NodeRecord>(&text).unwrap(), capable);
        let drained = serde_json::to_vec(&node.with_duty(Duty::Draining)).unwrap();
        assert_eq!(decode::<NodeRecord>(&drained).unwrap().duty, Duty::Draining);
    }
}
