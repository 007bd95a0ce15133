//! Plan of the operations that plug links into bridges, as one transaction. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ovsdb::collections::{Map, Set};
use serde_json::json;
use thiserror::Error;
use uuid::Uuid;

use super::IFACE_ID;
use super::rows::{Bridge, Interface, OpenVswitch, Port};
use super::vswitch::{Vswitch, owner_in};
use crate::netlink::IfName;
use fiberlb_northbound::plan::{Installation, OWNER_KEY, Owner};
use ovsdb::operation::{Columns, Mutation, Operation};
use ovsdb::replica::TableRow as _;

/// `type` of an interface that is a link of the kernel.
const SYSTEM: &str = "system";

/// Link that is desired on a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plug {
    /// Owner of the link.
    pub owner: Owner,
    /// Link; of a veth, the end in the namespace of ovs-vswitchd. Also the name of Port and Interface.
    pub link: IfName,
    /// Name of the logical switch port that it implements.
    pub iface_id: String,
}

/// Reason why one link cannot be plugged in. Others are not affected.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlugError {
    /// The bridge does not exist.
    #[error(
        "link {link}: bridge {bridge} does not exist; ovn-controller creates the integration bridge: check that it is running"
    )]
    NoBridge {
        /// Link.
        link: IfName,
        /// Name of the bridge.
        bridge: String,
    },
    /// Port or Interface of this name that belongs to someone else.
    #[error(
        "link {link}: Open vSwitch has a {table} of this name that is not FiberLB's; see ovs-vsctl list {table} {link}"
    )]
    Taken {
        /// Link.
        link: IfName,
        /// `Port` or `Interface`.
        table: &'static str,
    },
    /// Link that two owners desire.
    #[error("link {link}: {owner} and another owner both desire it")]
    Contested {
        /// Link.
        link: IfName,
        /// Owner that does not get it.
        owner: Owner,
    },
}

/// Difference between the desired links and the database.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// Operations of one transaction; empty if there is no difference.
    pub operations: Vec<Operation>,
    /// True if ports leave bridges. `next_cfg` then says when ovs-vswitchd has carried that out.
    pub removes: bool,
    /// Links that cannot be plugged in.
    pub refused: Vec<PlugError>,
}

/// Plans that one link is on a bridge.
#[must_use]
pub fn plug(vswitch: &Vswitch, bridge: &str, plug: &Plug) -> Plan {
    let mut planner = Planner::new(vswitch);
    planner.plug(bridge, plug);
    planner.finish()
}

/// Plans that an owner has no ports on any bridge.
#[must_use]
pub fn unplug(vswitch: &Vswitch, owner: Owner) -> Plan {
    let mut planner = Planner::new(vswitch);
    let is_owner =
        |port: &Uuid| vswitch.port.get(port).and_then(|row| owner_in(&row.external_ids)) == Some(owner);
    for port in vswitch.ports_of(owner.installation).filter(is_owner) {
        planner.leave(port);
    }
    planner.finish()
}

/// Plans that exactly these links of an installation are on a bridge: its other ports are removed. Ports of others are not touched.
/// Plugs of another installation among the desired ones are ignored; of two for one link the first is used.
///
/// Call it only when the desired set is known to be complete.
#[must_use]
pub fn sweep(vswitch: &Vswitch, bridge: &str, installation: Installation, desired: &[Plug]) -> Plan {
    let mut planner = Planner::new(vswitch);
    let mut keep = BTreeSet::new();
    for plug in desired.iter().filter(|plug| plug.owner.installation == installation) {
        if keep.insert(port_uuid(installation, &plug.link)) {
            planner.plug(bridge, plug);
        } else {
            planner.refused.push(PlugError::Contested { link: plug.link.clone(), owner: plug.owner });
        }
    }
    for port in vswitch.ports_of(installation).filter(|port| !keep.contains(port)) {
        planner.leave(port);
    }
    planner.finish()
}

/// UUID of the Port of a link, derived from the link, so that a repeated insert is refused instead of making a second row.
fn port_uuid(installation: Installation, link: &IfName) -> Uuid {
    installation.row("ovs-port", link.as_str())
}

fn interface_uuid(installation: Installation, link: &IfName) -> Uuid {
    installation.row("ovs-interface", link.as_str())
}

/// Plan under construction.
struct Planner<'a> {
    vswitch: &'a Vswitch,
    operations: Vec<Operation>,
    /// Ports to add to bridges, and ports to remove from them.
    joining: BTreeMap<Uuid, Set<Uuid>>,
    leaving: BTreeMap<Uuid, Set<Uuid>>,
    refused: Vec<PlugError>,
    /// Rows by name; computed on first use.
    names: Option<Names<'a>>,
}

struct Names<'a> {
    ports: HashMap<&'a str, Uuid>,
    interfaces: HashMap<&'a str, Uuid>,
}

impl<'a> Planner<'a> {
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
        self.remove_namesake(port, &plug.link);
        self.interface(plug);
        self.port(port, plug);
        if !row.ports.contains(&port) {
            self.leave(port);
            self.joining.entry(bridge_uuid).or_default().insert(port);
        }
    }

    /// Table in which a row of this name belongs to someone else. Only rows with the owner key are ours.
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

    /// Removes a port of ours with the name but another UUID, since names are unique.
    fn remove_namesake(&mut self, port: Uuid, link: &IfName) {
        if let Some(other) = self.names().ports.get(link.as_str()).copied().filter(|other| *other != port) {
            self.leave(other);
        }
    }

    fn names(&mut self) -> &Names<'a> {
        self.names.get_or_insert_with(|| Names::of(self.vswitch))
    }

    fn interface(&mut self, plug: &Plug) {
        let uuid = interface_uuid(plug.owner.installation, &plug.link);
        let ids = Map::from([
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
            let columns = Columns::from_iter([("type".to_owned(), json!(SYSTEM))]);
            self.operations.push(Operation::update(Interface::TABLE, uuid, columns));
        }
        // ovn-controller has keys of its own there, so ours are set one by one.
        self.operations.extend(set_ids(Interface::TABLE, uuid, &actual.external_ids, &ids));
    }

    fn port(&mut self, uuid: Uuid, plug: &Plug) {
        let interfaces = Set::from([interface_uuid(plug.owner.installation, &plug.link)]);
        let ids = Map::from([(OWNER_KEY.to_owned(), plug.owner.to_string())]);
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

    /// Removes a port from its bridges. Ports and interfaces are not root rows: the server deletes them once they are unreferenced
    /// (ovsdb-server(7)).
    fn leave(&mut self, port: Uuid) {
        for (bridge, _) in self.vswitch.bridge.iter().filter(|(_, row)| row.ports.contains(&port)) {
            self.leaving.entry(*bridge).or_default().insert(port);
        }
    }

    fn finish(mut self) -> Plan {
        let removes = !self.leaving.is_empty();
        let joining = self.joining.into_iter().map(|(it, ports)| (it, Mutation::insert("ports", ports)));
        let leaving = self.leaving.into_iter().map(|(it, ports)| (it, Mutation::delete("ports", ports)));
        let mut bridges: BTreeMap<Uuid, Vec<Mutation>> = BTreeMap::new();
        for (bridge, mutation) in leaving.chain(joining) {
            bridges.entry(bridge).or_default().push(mutation);
        }
        let mutate = |(bridge, mutations)| Operation::mutate(Bridge::TABLE, bridge, mutations);
        self.operations.extend(bridges.into_iter().map(mutate));
        if let Some((switch, _)) = self.vswitch.switch().filter(|_| removes) {
            let step = vec![Mutation::add("next_cfg", 1_i64)];
            self.operations.push(Operation::mutate(OpenVswitch::TABLE, switch, step));
        }
        Plan { operations: self.operations, removes, refused: self.refused }
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

/// Sets keys of a map and leaves the others. An insert alone would not change a key that is present.
fn set_ids(
    table: &'static str,
    uuid: Uuid,
    actual: &Map<String, String>,
    desired: &Map<String, String>,
) -> Option<Operation> {
    let differing = desired.iter().filter(|(key, value)| actual.get(*key) != Some(*value));
    let pairs: Map<String, String> = differing.map(|(key, value)| (key.clone(), value.clone())).collect();
    if pairs.is_empty() {
        return None;
    }
    let keys: Set<String> = pairs.keys().cloned().collect();
    let mutations = vec![Mutation::delete("external_ids", keys), Mutation::insert("external_ids", pairs)];
    Some(Operation::mutate(table, uuid, mutations))
}
