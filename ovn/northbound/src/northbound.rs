//! The replica of the northbound database.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use uuid::Uuid;

use super::index::Index;
use super::rows::{
    LoadBalancer, LoadBalancerGroup, LogicalRouter, LogicalRouterPort, LogicalSwitch, LogicalSwitchPort,
    NbGlobal,
};
use ovsdb::replica::{ColumnError, MonitoredTable, Replica, RowChange, RowUpdate, Table, TableRow};

/// The tables that we use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TableKind {
    /// `Load_Balancer`
    LoadBalancer,
    /// `Load_Balancer_Group`
    LoadBalancerGroup,
    /// `Logical_Switch`
    LogicalSwitch,
    /// `Logical_Router`
    LogicalRouter,
    /// `Logical_Router_Port`
    LogicalRouterPort,
    /// `Logical_Switch_Port`
    LogicalSwitchPort,
}

impl TableKind {
    /// OVSDB's name of the table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LoadBalancer => LoadBalancer::TABLE,
            Self::LoadBalancerGroup => LoadBalancerGroup::TABLE,
            Self::LogicalSwitch => LogicalSwitch::TABLE,
            Self::LogicalRouter => LogicalRouter::TABLE,
            Self::LogicalRouterPort => LogicalRouterPort::TABLE,
            Self::LogicalSwitchPort => LogicalSwitchPort::TABLE,
        }
    }
}

/// What changed in the database, as far as somebody may have to do something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// A row with this owner came, went or is another, or was taken out of a group. A group tells this of itself also when
    /// it becomes empty.
    Owned {
        /// The owner's text form.
        owner: String,
    },
    /// A switch, or what it is connected to.
    Switch {
        /// The switch.
        uuid: Uuid,
    },
    /// Ports of a switch that lead to no router: who has which address.
    Ports {
        /// The switch.
        switch: Uuid,
    },
    /// A network came to a router port of this owner, or left it; nothing else of the port changed.
    Network {
        /// The port's owner, in its text form.
        owner: String,
        /// One element of the port's `networks`.
        network: String,
    },
    /// A router, one of its ports, or which ports it has.
    Router {
        /// The router.
        uuid: Uuid,
    },
    /// A northd of another release reads the database.
    Northd,
}

/// The replica.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Northbound {
    pub(super) owner_key: String,
    /// An update was applied in part: the indexes need not match the rows, and the next reload begins with nothing.
    torn: bool,
    /// `Load_Balancer`
    pub load_balancer: Table<LoadBalancer>,
    /// `Load_Balancer_Group`
    pub load_balancer_group: Table<LoadBalancerGroup>,
    /// `Logical_Switch`
    pub logical_switch: Table<LogicalSwitch>,
    /// `Logical_Router`
    pub logical_router: Table<LogicalRouter>,
    /// `Logical_Router_Port`
    pub logical_router_port: Table<LogicalRouterPort>,
    /// `Logical_Switch_Port`
    pub logical_switch_port: Table<LogicalSwitchPort>,
    /// `NB_Global`
    pub nb_global: Table<NbGlobal>,
    pub(super) owned: Index<String, (TableKind, Uuid)>,
    pub(super) switch_names: Index<String, Uuid>,
    pub(super) switches_of_ports: HashMap<Uuid, Uuid>,
    pub(super) routers_of_ports: HashMap<Uuid, Uuid>,
    pub(super) router_port_names: HashMap<String, Uuid>,
    /// Switch ports by the router port at their other end.
    pub(super) links: Index<String, Uuid>,
    /// Switch ports that lead to a router.
    pub(super) router_ports: HashSet<Uuid>,
    pub(super) addresses: Index<IpAddr, Uuid>,
    pub(super) group_referrers: Index<Uuid, (TableKind, Uuid)>,
}

impl Northbound {
    /// An empty replica. `owner_key` is the key in `external_ids` under which a row names its owner.
    #[must_use]
    pub fn new(owner_key: &str) -> Self {
        Self { owner_key: owner_key.to_owned(), ..Self::default() }
    }

    /// The rows of an owner. A `Load_Balancer_Group` has no `external_ids` and names its owner by its name.
    pub fn owned(&self, owner: &str) -> impl Iterator<Item = (TableKind, Uuid)> + '_ {
        self.owned.get(owner)
    }

    /// All owners of rows, among them names of groups that are nobody's.
    pub fn owners(&self) -> impl Iterator<Item = &str> {
        self.owned.keys().map(String::as_str)
    }

    /// The switches with this name.
    pub fn switches_named(&self, name: &str) -> impl Iterator<Item = Uuid> + '_ {
        self.switch_names.get(name)
    }

    /// The switch that a port belongs to.
    #[must_use]
    pub fn switch_of_port(&self, port: Uuid) -> Option<Uuid> {
        self.switches_of_ports.get(&port).copied()
    }

    /// The router that a port belongs to.
    #[must_use]
    pub fn router_of_port(&self, port: Uuid) -> Option<Uuid> {
        self.routers_of_ports.get(&port).copied()
    }

    /// The router port with this name.
    #[must_use]
    pub fn router_port_named(&self, name: &str) -> Option<Uuid> {
        self.router_port_names.get(name).copied()
    }

    /// The names of the router ports that a switch's ports lead to.
    pub fn router_links<'a>(&'a self, switch: &'a LogicalSwitch) -> impl Iterator<Item = &'a str> {
        // A switch may have ten thousand ports and one router, or a cloud ten thousand routers: look through the fewer.
        let few_ports = switch.ports.len() <= self.router_ports.len();
        let own =
            switch.ports.iter().filter(move |_| few_ports).filter(|port| self.router_ports.contains(port));
        let all =
            self.router_ports.iter().filter(move |_| !few_ports).filter(|port| switch.ports.contains(port));
        own.chain(all).filter_map(|port| self.logical_switch_port.get(port)?.router_port())
    }

    /// The switches with a port that leads to the router port of this name.
    pub fn switches_linked_to(&self, router_port: &str) -> impl Iterator<Item = Uuid> + '_ {
        self.links.get(router_port).filter_map(|port| self.switch_of_port(port))
    }

    /// The switch ports that have an address, static or from IPAM.
    pub fn ports_with_address(&self, address: IpAddr) -> impl Iterator<Item = Uuid> + '_ {
        self.addresses.get(&address)
    }

    /// The switches and routers that refer to a group.
    pub fn group_referrers(&self, group: Uuid) -> impl Iterator<Item = (TableKind, Uuid)> + '_ {
        self.group_referrers.get(&group)
    }

    /// Year and month of the release of the northd that reads the database, from the version that it gives
    /// (`RELEASE-SCHEMA-…`, such as `25.03.0-20.41.0-76.8`). `None` if none ever has, or that is no version.
    #[must_use]
    pub fn northd_release(&self) -> Option<(u32, u32)> {
        let mut rows = self.nb_global.iter();
        let version = rows.find_map(|(_, row)| row.options.get("northd_internal_version"))?;
        version_numbers(version)
    }

    /// Updates that make rows which are not in `content` go.
    fn missing(&self, content: &[RowUpdate]) -> Vec<RowUpdate> {
        fn of<R: TableRow>(table: &Table<R>, content: &[RowUpdate], missing: &mut Vec<RowUpdate>) {
            let present: HashSet<Uuid> =
                content.iter().filter(|row| row.table == R::TABLE).map(|row| row.uuid).collect();
            let gone = table.others(&present);
            missing.extend(gone.map(|uuid| RowUpdate {
                table: R::TABLE.to_owned(),
                uuid,
                change: RowChange::Delete,
            }));
        }
        let mut missing = Vec::new();
        of(&self.load_balancer, content, &mut missing);
        of(&self.load_balancer_group, content, &mut missing);
        of(&self.logical_switch, content, &mut missing);
        of(&self.logical_router, content, &mut missing);
        of(&self.logical_router_port, content, &mut missing);
        of(&self.logical_switch_port, content, &mut missing);
        of(&self.nb_global, content, &mut missing);
        missing
    }
}

/// The first two numbers of a version.
pub(crate) fn version_numbers(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(['.', '-']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

impl Replica for Northbound {
    type Change = Change;

    fn monitored() -> Vec<MonitoredTable> {
        fn of<R: TableRow>(required: bool) -> MonitoredTable {
            MonitoredTable { name: R::TABLE, columns: R::COLUMNS, required }
        }
        vec![
            of::<LoadBalancer>(true),
            of::<LoadBalancerGroup>(false),
            of::<LogicalSwitch>(true),
            of::<LogicalRouter>(true),
            of::<LogicalRouterPort>(true),
            of::<LogicalSwitchPort>(true),
            of::<NbGlobal>(true),
        ]
    }

    fn reload(&mut self, rows: Vec<RowUpdate>) -> Result<Vec<Change>, ColumnError> {
        if self.torn {
            *self = Self::new(&self.owner_key);
        }
        let missing = self.missing(&rows);
        self.apply(missing.into_iter().chain(rows).collect())
    }

    fn apply(&mut self, updates: Vec<RowUpdate>) -> Result<Vec<Change>, ColumnError> {
        let mut changes = HashSet::new();
        let applied = updates.iter().try_for_each(|update| self.update(update, &mut changes));
        self.torn = applied.is_err();
        applied.map(|()| changes.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn update(table: &str, uuid: u128, kind: &str, row: Value) -> RowUpdate {
        let Value::Object(row) = row else { panic!("a row is an object") };
        let change = match kind {
            "insert" => RowChange::Insert(row),
            "modify" => RowChange::Modify(row),
            _ => RowChange::Delete,
        };
        RowUpdate { table: table.to_owned(), uuid: Uuid::from_u128(uuid), change }
    }

    fn owned(name: &str) -> Value {
        json!({"name": name, "external_ids": ["map", [["owner", "me"]]]})
    }

    #[test]
    fn a_reload_tells_only_what_differs() {
        let mut nb = Northbound::new("owner");
        let content = || {
            vec![
                update("Load_Balancer", 1, "insert", owned("a")),
                update("Load_Balancer", 2, "insert", owned("b")),
            ]
        };
        assert_eq!(nb.reload(content()).unwrap(), [Change::Owned { owner: "me".into() }]);
        assert_eq!(nb.reload(content()).unwrap(), []);
        let without = content().into_iter().take(1).collect();
        assert_eq!(nb.reload(without).unwrap(), [Change::Owned { owner: "me".into() }]);
        assert_eq!(nb.owned("me").count(), 1);
    }

    #[test]
    fn addresses_and_links_follow_their_ports() {
        let mut nb = Northbound::new("owner");
        let address = "10.0.0.5".parse().unwrap();
        let port = json!({"name": "p", "addresses": "0a:00:00:00:00:01 10.0.0.5 fd00::5"});
        nb.apply(vec![
            update(
                "Logical_Switch",
                1,
                "insert",
                json!({"name": "sw", "ports": ["uuid", Uuid::from_u128(2)]}),
            ),
            update("Logical_Switch_Port", 2, "insert", port),
        ])
        .unwrap();
        let ports: Vec<Uuid> = nb.ports_with_address(address).collect();
        assert_eq!(ports, [Uuid::from_u128(2)]);
        assert_eq!(nb.switch_of_port(Uuid::from_u128(2)), Some(Uuid::from_u128(1)));
        nb.apply(vec![update("Logical_Switch_Port", 2, "delete", json!({}))]).unwrap();
        assert_eq!(nb.ports_with_address(address).count(), 0);
    }

    #[test]
    fn a_malformed_column_names_table_row_and_column() {
        let mut nb = Northbound::new("owner");
        let error =
            nb.apply(vec![update("Load_Balancer", 1, "insert", json!({"vips": 5}))]).unwrap_err().to_string();
        assert!(
            error.contains("Load_Balancer") && error.contains("vips") && error.contains("expected a map"),
            "{error}"
        );
    }
}
