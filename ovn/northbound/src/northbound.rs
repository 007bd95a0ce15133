//! Replica of the northbound database.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use uuid::Uuid;

use super::index::{GroupedIndex, Index};
use super::rows::{
    Acl, DhcpOptions, LoadBalancer, LoadBalancerGroup, LogicalRouter, LogicalRouterPolicy, LogicalRouterPort,
    LogicalSwitch, LogicalSwitchPort, Nat, NbGlobal, PortGroup,
};
use ovsdb::operation::Condition;
use ovsdb::replica::{ColumnError, MonitoredTable, Replica, RowUpdate, Table, TableRow as _};

/// Table whose rows the planner writes or refers to.
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
    /// `Logical_Router_Policy`
    LogicalRouterPolicy,
    /// `Logical_Switch_Port`
    LogicalSwitchPort,
}

impl TableKind {
    /// Name of the table in the schema.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::LoadBalancer => LoadBalancer::TABLE,
            Self::LoadBalancerGroup => LoadBalancerGroup::TABLE,
            Self::LogicalSwitch => LogicalSwitch::TABLE,
            Self::LogicalRouter => LogicalRouter::TABLE,
            Self::LogicalRouterPort => LogicalRouterPort::TABLE,
            Self::LogicalRouterPolicy => LogicalRouterPolicy::TABLE,
            Self::LogicalSwitchPort => LogicalSwitchPort::TABLE,
        }
    }
}

/// Change of the database that may require a new plan.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// A row of this owner was created, deleted or changed, or removed from a group. Also reported for the owner of a group that
    /// became empty.
    Owned {
        /// Owner, in its text form.
        owner: String,
    },
    /// A switch changed, or its connections to routers.
    Switch {
        /// UUID of the switch.
        uuid: Uuid,
    },
    /// Ports of a switch changed that lead to no router: addresses may be allocated or released.
    Ports {
        /// UUID of the switch.
        switch: Uuid,
    },
    /// A network was added to a router port of this owner, or removed from it; no other column of the port changed.
    Network {
        /// Owner of the port, in its text form.
        owner: String,
        /// Element of the port's `networks`.
        network: String,
    },
    /// An address was added to a switch port of this owner, or removed from it; no other column of the port changed.
    Address {
        /// Owner of the port, in its text form.
        owner: String,
        /// UUID of the port.
        port: Uuid,
        /// Element of the port's `addresses`.
        address: String,
    },
    /// A router, one of its ports, or its set of ports changed.
    Router {
        /// UUID of the router.
        uuid: Uuid,
    },
    /// A northd of another release took over the database.
    Northd,
}

/// Key in `external_ids` of the owner of ports that load balancers share, instead of that of all other rows. A release that does not
/// know it takes such a port over for the load balancer that would have it alone, and removes none that it does not know.
pub const SHARED_KEY: &str = "fiberlb:shared";

/// Replica of the tables in use, with indexes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Northbound {
    pub(super) owner_key: String,
    /// True after an update was applied in part: the indexes may not match the rows, and the next reload starts from scratch.
    is_torn: bool,
    /// Rows of `Load_Balancer`.
    pub load_balancer: Table<LoadBalancer>,
    /// Rows of `Load_Balancer_Group`.
    pub load_balancer_group: Table<LoadBalancerGroup>,
    /// Rows of `Logical_Switch`.
    pub logical_switch: Table<LogicalSwitch>,
    /// Rows of `Logical_Router`.
    pub logical_router: Table<LogicalRouter>,
    /// Rows of `Logical_Router_Port`.
    pub logical_router_port: Table<LogicalRouterPort>,
    /// Rows of `Logical_Router_Policy`.
    pub logical_router_policy: Table<LogicalRouterPolicy>,
    /// Rows of `Logical_Switch_Port`.
    pub logical_switch_port: Table<LogicalSwitchPort>,
    /// Rows of `DHCP_Options`.
    pub dhcp_options: Table<DhcpOptions>,
    /// Rows of `NB_Global`; OVN makes one.
    pub nb_global: Table<NbGlobal>,
    /// Rows of `ACL` that are stateless.
    pub(super) acl: Table<Acl>,
    /// Switches by rule, of whatever action.
    pub(super) acl_switches: Index<Uuid, Uuid>,
    /// Stateless rules by switch.
    pub(super) stateless: Index<Uuid, Uuid>,
    pub(super) port_group: Table<PortGroup>,
    /// Port groups by rule, of whatever action.
    pub(super) acl_groups: Index<Uuid, Uuid>,
    /// Stateless rules by port group.
    pub(super) stateless_groups: Index<Uuid, Uuid>,
    /// Port groups with stateless rules by port.
    pub(super) ruled_ports: Index<Uuid, Uuid>,
    /// Ports in such groups by switch.
    pub(super) stateless_ports: Index<Uuid, Uuid>,
    /// Ports that lead to a physical network, by switch.
    pub(super) localnet_ports: Index<Uuid, Uuid>,
    pub(super) owned: Index<String, (TableKind, Uuid)>,
    pub(super) switch_names: Index<String, Uuid>,
    pub(super) switches_of_ports: HashMap<Uuid, Uuid>,
    pub(super) routers_of_ports: HashMap<Uuid, Uuid>,
    pub(super) routers_of_policies: HashMap<Uuid, Uuid>,
    pub(super) router_port_names: HashMap<String, Uuid>,
    /// Switch ports by the name of the router port that they connect to.
    pub(super) links: Index<String, Uuid>,
    /// Switch ports that connect to a router port, by switch.
    pub(super) router_ports: Index<Uuid, Uuid>,
    /// Switch ports by their addresses, and by switch: tenants have the same addresses, each on switches of their own.
    pub(super) addresses: GroupedIndex<IpAddr, Option<Uuid>, Uuid>,
    pub(super) nat: Table<Nat>,
    /// Translations by their address outside.
    pub(super) nat_addresses: Index<IpAddr, Uuid>,
    pub(super) routers_of_nats: HashMap<Uuid, Uuid>,
    /// Load balancers by the addresses of their VIPs, and by the installation that made them: it may have very many of one.
    pub(super) vips: GroupedIndex<IpAddr, Option<Uuid>, Uuid>,
    /// Switches and routers that refer to a load balancer themselves.
    pub(super) balancer_referrers: Index<Uuid, (TableKind, Uuid)>,
    /// Groups by their load balancers.
    pub(super) groups_of_balancers: Index<Uuid, Uuid>,
    pub(super) group_referrers: Index<Uuid, (TableKind, Uuid)>,
    /// Rows of `DHCP_Options` by the id of their Neutron network.
    pub(super) neutron_subnets: Index<String, Uuid>,
}

impl Northbound {
    /// Empty replica. `owner_key` is the key in `external_ids` under which a row names its owner, if not under
    /// [`SHARED_KEY`].
    #[must_use]
    pub fn new(owner_key: &str) -> Self {
        Self { owner_key: owner_key.to_owned(), ..Self::default() }
    }

    /// Rows of an owner. A `Load_Balancer_Group` has no `external_ids`; its name is its owner, or that, a `#` and a word.
    pub fn owned(&self, owner: &str) -> impl Iterator<Item = (TableKind, Uuid)> + '_ {
        self.owned.get(owner)
    }

    /// All owners of rows, including the names of groups that have no owner.
    pub fn owners(&self) -> impl Iterator<Item = &str> {
        self.owned.keys().map(String::as_str)
    }

    /// Switches with this name, which need not be unique.
    pub fn switches_named(&self, name: &str) -> impl Iterator<Item = Uuid> + '_ {
        self.switch_names.get(name)
    }

    /// Switch of a port.
    #[must_use]
    pub fn switch_of_port(&self, port: Uuid) -> Option<Uuid> {
        self.switches_of_ports.get(&port).copied()
    }

    /// Router of a port.
    #[must_use]
    pub fn router_of_port(&self, port: Uuid) -> Option<Uuid> {
        self.routers_of_ports.get(&port).copied()
    }

    /// Router of a policy.
    #[must_use]
    pub fn router_of_policy(&self, policy: Uuid) -> Option<Uuid> {
        self.routers_of_policies.get(&policy).copied()
    }

    /// Router port with this name.
    #[must_use]
    pub fn router_port_named(&self, name: &str) -> Option<Uuid> {
        self.router_port_names.get(name).copied()
    }

    /// Names of the router ports that a switch's ports connect to.
    pub fn router_links(&self, switch: Uuid) -> impl Iterator<Item = &str> {
        self.router_ports.get(&switch).filter_map(|port| self.logical_switch_port.get(&port)?.router_port())
    }

    /// True if a switch has a port to a physical network.
    #[must_use]
    pub fn is_physical(&self, switch: Uuid) -> bool {
        self.localnet_ports.has(&switch)
    }

    /// True if a switch, or a port group with one of its ports, has rules that pass packets by load balancing.
    #[must_use]
    pub fn has_stateless_acls(&self, switch: Uuid) -> bool {
        self.stateless.has(&switch) || self.stateless_ports.has(&switch)
    }

    /// True if any switch has.
    #[must_use]
    pub fn knows_stateless_acls(&self) -> bool {
        self.stateless.keys().len() > 0 || self.stateless_ports.keys().len() > 0
    }

    /// Switches with a port that connects to the router port of this name.
    pub fn switches_linked_to(&self, router_port: &str) -> impl Iterator<Item = Uuid> + '_ {
        self.links.get(router_port).filter_map(|port| self.switch_of_port(port))
    }

    /// Routers that translate to or from an address.
    pub fn routers_with_nat(&self, address: IpAddr) -> impl Iterator<Item = Uuid> + '_ {
        self.nat_addresses.get(&address).filter_map(|nat| self.routers_of_nats.get(&nat).copied())
    }

    /// Load balancers with a VIP of this address, but for those of an installation: their owner's text has its id as the second of
    /// its parts, which `/` separates.
    pub fn others_with_vip(&self, address: IpAddr, installation: Uuid) -> impl Iterator<Item = Uuid> + '_ {
        let makers = self.vips.get(&address);
        makers.into_iter().flat_map(move |makers| {
            makers
                .keys()
                .filter(move |maker| **maker != Some(installation))
                .flat_map(|maker| makers.get(maker))
        })
    }

    /// Switches and routers that use a load balancer, by themselves or by a group.
    pub fn users_of_load_balancer(&self, balancer: Uuid) -> impl Iterator<Item = (TableKind, Uuid)> + '_ {
        let grouped =
            self.groups_of_balancers.get(&balancer).flat_map(|group| self.group_referrers.get(&group));
        self.balancer_referrers.get(&balancer).chain(grouped)
    }

    /// Ports on a switch that have an address, static or from IPAM, that may use it, or that Neutron gave it to.
    pub fn ports_with_address(&self, address: IpAddr, switch: Uuid) -> impl Iterator<Item = Uuid> + '_ {
        self.addresses.get(&address).into_iter().flat_map(move |switches| switches.get(&Some(switch)))
    }

    /// True if a port of any switch has the address.
    #[must_use]
    pub fn has_address(&self, address: IpAddr) -> bool {
        self.addresses.get(&address).is_some()
    }

    /// Switches among `switches` of which a port has the address.
    #[must_use]
    pub fn with_address(&self, address: IpAddr, switches: &BTreeSet<Uuid>) -> Vec<Uuid> {
        let Some(all) = self.addresses.get(&address) else { return Vec::new() };
        // A cloud may have ten thousand switches with one address, or a router ten thousand switches behind it.
        if all.keys().len() < switches.len() {
            return all.keys().copied().flatten().filter(|switch| switches.contains(switch)).collect();
        }
        switches.iter().copied().filter(|switch| all.has(&Some(*switch))).collect()
    }

    /// Switches and routers that refer to a group.
    pub fn group_referrers(&self, group: Uuid) -> impl Iterator<Item = (TableKind, Uuid)> + '_ {
        self.group_referrers.get(&group)
    }

    /// Rows by which Neutron tells of the subnets of a switch by DHCP; none for a switch that is not Neutron's.
    pub fn neutron_subnets<'a>(&'a self, switch: &'a LogicalSwitch) -> impl Iterator<Item = &'a DhcpOptions> {
        let rows = switch.neutron_network().into_iter().flat_map(|network| self.neutron_subnets.get(network));
        rows.filter_map(|row| self.dhcp_options.get(&row))
    }

    /// Release of the northd that uses the database, as year and month, from the version that it publishes (`RELEASE-SCHEMA-…`, such
    /// as `25.03.0-20.41.0-76.8`). `None` if no northd has ever run, or the version cannot be parsed.
    #[must_use]
    pub fn northd_release(&self) -> Option<(u32, u32)> {
        let mut rows = self.nb_global.iter();
        let version = rows.find_map(|(_, row)| row.options.get("northd_internal_version"))?;
        version_numbers(version)
    }

    /// Deletions of the rows that a new content lacks.
    fn missing_in(&self, content: &[RowUpdate]) -> Vec<RowUpdate> {
        [
            self.load_balancer.missing_in(content),
            self.load_balancer_group.missing_in(content),
            self.logical_switch.missing_in(content),
            self.logical_router.missing_in(content),
            self.logical_router_port.missing_in(content),
            self.logical_router_policy.missing_in(content),
            self.logical_switch_port.missing_in(content),
            self.dhcp_options.missing_in(content),
            self.nb_global.missing_in(content),
            self.acl.missing_in(content),
            self.port_group.missing_in(content),
            self.nat.missing_in(content),
        ]
        .concat()
    }
}

/// First two numbers of a version.
pub(crate) fn version_numbers(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(['.', '-']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

impl Replica for Northbound {
    type Change = Change;

    fn monitored(&self) -> Option<Vec<MonitoredTable>> {
        Some(vec![
            MonitoredTable::of::<LoadBalancer>(),
            MonitoredTable::of::<LoadBalancerGroup>().optional(),
            MonitoredTable::of::<LogicalSwitch>(),
            MonitoredTable::of::<LogicalRouter>(),
            MonitoredTable::of::<LogicalRouterPort>(),
            MonitoredTable::of::<LogicalRouterPolicy>(),
            MonitoredTable::of::<LogicalSwitchPort>(),
            MonitoredTable::of::<DhcpOptions>().optional(),
            MonitoredTable::of::<NbGlobal>(),
            MonitoredTable::of::<Nat>(),
            MonitoredTable::of::<PortGroup>().optional(),
            MonitoredTable::of::<Acl>().or_where(Condition::equal("action", Acl::STATELESS)),
        ])
    }

    fn reload(&mut self, rows: Vec<RowUpdate>) -> Result<Vec<Change>, ColumnError> {
        if self.is_torn {
            *self = Self::new(&self.owner_key);
        }
        let missing = self.missing_in(&rows);
        self.apply(missing.into_iter().chain(rows).collect())
    }

    fn apply(&mut self, updates: Vec<RowUpdate>) -> Result<Vec<Change>, ColumnError> {
        let mut changes = HashSet::new();
        let applied = updates.iter().try_for_each(|update| self.update(update, &mut changes));
        self.is_torn = applied.is_err();
        applied.map(|()| changes.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use ovsdb::replica::RowChange;

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
        let ports: Vec<Uuid> = nb.ports_with_address(address, Uuid::from_u128(1)).collect();
        assert_eq!(ports, [Uuid::from_u128(2)]);
        assert_eq!(nb.switch_of_port(Uuid::from_u128(2)), Some(Uuid::from_u128(1)));
        nb.apply(vec![update("Logical_Switch_Port", 2, "delete", json!({}))]).unwrap();
        assert_eq!(nb.ports_with_address(address, Uuid::from_u128(1)).count(), 0);
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
