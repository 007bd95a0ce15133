//! What is missing for our links to be plugged in, as the operations of one transaction. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Map, Value, json};
use thiserror::Error;
use uuid::Uuid;

use super::IFACE_ID;
use super::rows::{Bridge, Interface, Port};
use super::vswitch::{Vswitch, owner_in};
use crate::netlink::IfName;
use fiberlb_northbound::plan::{Installation, OWNER_KEY, Owner};
use ovsdb::operation::{Mutation, Operation};
use ovsdb::replica::TableRow as _;
use ovsdb::value;

/// `type` of an interface that is a link of the kernel.
const SYSTEM: &str = "system";

/// A link that is to be on a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plug {
    /// Whose it is.
    pub owner: Owner,
    /// The link: of a veth, the end that is in the namespace of ovs-vswitchd. Also the name of Port and Interface.
    pub link: IfName,
    /// Name of the logical switch port that it stands for.
    pub iface_id: String,
}

/// A link cannot be plugged in; others can.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlugError {
    /// There is no such bridge.
    #[error(
        "link {link}: there is no bridge {bridge} (is ovn-controller running? it makes the integration bridge)"
    )]
    NoBridge {
        /// Which link.
        link: IfName,
        /// Which bridge.
        bridge: String,
    },
    /// Somebody else has a port or interface of this name.
    #[error(
        "link {link}: Open vSwitch has a {table} of this name that is not ours (see ovs-vsctl list {table} {link})"
    )]
    Taken {
        /// Which link.
        link: IfName,
        /// `Port` or `Interface`.
        table: &'static str,
    },
    /// Two owners want the same link.
    #[error("link {link}: {owner} and another want it")]
    Contested {
        /// Which link.
        link: IfName,
        /// The one that does not get it.
        owner: Owner,
    },
}

/// What to do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Operations of one transaction; none if nothing is missing.
    pub operations: Vec<Operation>,
    /// Links that cannot be plugged in now.
    pub refused: Vec<PlugError>,
}

/// What is missing for one link to be on a bridge.
#[must_use]
pub fn plug(vswitch: &Vswitch, bridge: &str, plug: &Plug) -> Plan {
    let mut steps = Steps::new(vswitch);
    steps.plug(bridge, plug);
    steps.finish()
}

/// Takes what an owner has out of its bridges, or nothing if it has nothing.
#[must_use]
pub fn unplug(vswitch: &Vswitch, owner: Owner) -> Plan {
    let mut steps = Steps::new(vswitch);
    let is_owner =
        |port: &Uuid| vswitch.port.get(port).and_then(|row| owner_in(&row.external_ids)) == Some(owner);
    for port in vswitch.ports_of(owner.installation).filter(is_owner) {
        steps.leave(port);
    }
    steps.finish()
}

/// What is missing for exactly these links of an installation to be on a bridge: others of the installation are taken out.
/// Nothing of anybody else is touched. Plugs of another
/// installation among the wanted ones are passed over; of two for one link the first is taken.
///
/// Call it only when the wanted set is known to be complete.
#[must_use]
pub fn sweep(vswitch: &Vswitch, bridge: &str, installation: Installation, wanted: &[Plug]) -> Plan {
    let mut steps = Steps::new(vswitch);
    let mut keep = BTreeSet::new();
    for plug in wanted.iter().filter(|plug| plug.owner.installation == installation) {
        if keep.insert(port_uuid(installation, &plug.link)) {
            steps.plug(bridge, plug);
        } else {
            steps.refused.push(PlugError::Contested { link: plug.link.clone(), owner: plug.owner });
        }
    }
    for port in vswitch.ports_of(installation).filter(|port| !keep.contains(port)) {
        steps.leave(port);
    }
    steps.finish()
}

/// The Port of a link: always the same one, so that a repeated insert is refused instead of making a second.
fn port_uuid(installation: Installation, link: &IfName) -> Uuid {
    installation.row("ovs-port", link.as_str())
}

fn interface_uuid(installation: Installation, link: &IfName) -> Uuid {
    installation.row("ovs-interface", link.as_str())
}

/// A plan in the making.
struct Steps<'a> {
    vswitch: &'a Vswitch,
    operations: Vec<Operation>,
    /// Ports that come to a bridge, and ports that leave it.
    joining: BTreeMap<Uuid, BTreeSet<Uuid>>,
    leaving: BTreeMap<Uuid, BTreeSet<Uuid>>,
    refused: Vec<PlugError>,
    /// Rows by name; made when it is first needed.
    names: Option<Names<'a>>,
}

struct Names<'a> {
    ports: HashMap<&'a str, Uuid>,
    interfaces: HashMap<&'a str, Uuid>,
}

impl<'a> Steps<'a> {
    fn new(vswitch: &'a Vswitch) -> Self {
        Self {
            vswitch,
            operations: Vec::new(),
            joining: BTreeMap::new(),
            leaving: BTreeMap::new(),
            refused: Vec::new(),
            names: None,
        }
    }

    fn plug(&mut self, bridge: &str, plug: &Plug) {
        let installation = plug.owner.installation;
        let Some((bridge_uuid, row)) = self.vswitch.bridge_named(bridge) else {
            let (link, bridge) = (plug.link.clone(), bridge.to_owned());
            return self.refused.push(PlugError::NoBridge { link, bridge });
        };
        if let Some(table) = self.taken(installation, &plug.link) {
            return self.refused.push(PlugError::Taken { link: plug.link.clone(), table });
        }
        let port = port_uuid(installation, &plug.link);
        self.replace(port, &plug.link);
        self.interface(plug);
        self.port(port, plug);
        if !row.ports.contains(&port) {
            self.leave(port);
            self.joining.entry(bridge_uuid).or_default().insert(port);
        }
    }

    /// The table in which somebody else has a row of this name. Only rows with our owner key are ours.
    fn taken(&mut self, installation: Installation, link: &IfName) -> Option<&'static str> {
        let vswitch = self.vswitch;
        let names = self.names();
        let foreign = |external_ids| owner_in(external_ids).is_none_or(|it| it.installation != installation);
        let port = names.ports.get(link.as_str()).and_then(|uuid| vswitch.port.get(uuid));
        let interface = names.interfaces.get(link.as_str()).and_then(|uuid| vswitch.interface.get(uuid));
        match (port, interface) {
            (Some(port), _) if foreign(&port.external_ids) => Some(Port::TABLE),
            (_, Some(interface)) if foreign(&interface.external_ids) => Some(Interface::TABLE),
            _ => None,
        }
    }

    /// Takes out a port of ours that has the name but not the UUID: a name can only be used once.
    fn replace(&mut self, port: Uuid, link: &IfName) {
        if let Some(other) = self.names().ports.get(link.as_str()).copied().filter(|other| *other != port) {
            self.leave(other);
        }
    }

    fn names(&mut self) -> &Names<'a> {
        self.names.get_or_insert_with(|| Names::of(self.vswitch))
    }

    fn interface(&mut self, plug: &Plug) {
        let uuid = interface_uuid(plug.owner.installation, &plug.link);
        let ids = BTreeMap::from([
            (OWNER_KEY.to_owned(), plug.owner.to_string()),
            (IFACE_ID.to_owned(), plug.iface_id.clone()),
        ]);
        let Some(actual) = self.vswitch.interface.get(&uuid) else {
            let row = Interface {
                name: plug.link.to_string(),
                r#type: SYSTEM.to_owned(),
                external_ids: ids,
                ..Interface::default()
            };
            return self.operations.push(Operation::insert(Interface::TABLE, uuid, row.to_row()));
        };
        if !matches!(actual.r#type.as_str(), "" | SYSTEM) {
            let columns = Map::from_iter([("type".to_owned(), json!(SYSTEM))]);
            self.operations.push(Operation::update(Interface::TABLE, uuid, columns));
        }
        // ovn-controller keeps keys of its own there, so ours are set one by one.
        self.operations.extend(set_ids(Interface::TABLE, uuid, &actual.external_ids, &ids));
    }

    fn port(&mut self, uuid: Uuid, plug: &Plug) {
        let interfaces = BTreeSet::from([interface_uuid(plug.owner.installation, &plug.link)]);
        let ids = BTreeMap::from([(OWNER_KEY.to_owned(), plug.owner.to_string())]);
        let Some(actual) = self.vswitch.port.get(&uuid) else {
            let row = Port { name: plug.link.to_string(), interfaces, external_ids: ids };
            return self.operations.push(Operation::insert(Port::TABLE, uuid, row.to_row()));
        };
        let wanted = Port { interfaces, ..actual.clone() };
        let columns = actual.changed_columns(&wanted);
        if !columns.is_empty() {
            self.operations.push(Operation::update(Port::TABLE, uuid, columns));
        }
        self.operations.extend(set_ids(Port::TABLE, uuid, &actual.external_ids, &ids));
    }

    /// Ports and interfaces are no root rows: they go when nothing refers to them (ovsdb-server(7)).
    fn leave(&mut self, port: Uuid) {
        for (bridge, _) in self.vswitch.bridge.iter().filter(|(_, row)| row.ports.contains(&port)) {
            self.leaving.entry(*bridge).or_default().insert(port);
        }
    }

    fn finish(mut self) -> Plan {
        let set = |ports: BTreeSet<Uuid>| value::set(ports.into_iter().map(value::uuid));
        let joining = self.joining.into_iter().map(|(it, ports)| (it, Mutation::insert("ports", set(ports))));
        let leaving = self.leaving.into_iter().map(|(it, ports)| (it, Mutation::delete("ports", set(ports))));
        let mut bridges: BTreeMap<Uuid, Vec<Mutation>> = BTreeMap::new();
        for (bridge, mutation) in leaving.chain(joining) {
            bridges.entry(bridge).or_default().push(mutation);
        }
        let mutate = |(bridge, mutations)| Operation::mutate(Bridge::TABLE, bridge, mutations);
        self.operations.extend(bridges.into_iter().map(mutate));
        Plan { operations: self.operations, refused: self.refused }
    }
}

impl<'a> Names<'a> {
    fn of(vswitch: &'a Vswitch) -> Self {
        Self {
            ports: vswitch.port.iter().map(|(uuid, row)| (row.name.as_str(), *uuid)).collect(),
            interfaces: vswitch.interface.iter().map(|(uuid, row)| (row.name.as_str(), *uuid)).collect(),
        }
    }
}

/// Sets keys of a map and leaves the others. An insert alone would leave a key that is there as it was.
fn set_ids(
    table: &'static str,
    uuid: Uuid,
    actual: &BTreeMap<String, String>,
    wanted: &BTreeMap<String, String>,
) -> Option<Operation> {
    let wrong: Vec<(&String, &String)> =
        wanted.iter().filter(|(key, value)| actual.get(*key) != Some(*value)).collect();
    if wrong.is_empty() {
        return None;
    }
    let keys: Vec<Value> = wrong.iter().map(|(key, _)| json!(key)).collect();
    let pairs = value::map(wrong.iter().map(|(key, value)| (json!(key), json!(value))));
    let mutations =
        vec![Mutation::delete("external_ids", value::set(keys)), Mutation::insert("external_ids", pairs)];
    Some(Operation::mutate(table, uuid, mutations))
}
