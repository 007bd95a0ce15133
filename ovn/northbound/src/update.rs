//! Updates of the rows and their indexes.
//!
//! The cost of an update depends on the size of its difference, not on that of the row: a switch has thousands of ports.

mod rules;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use ovsdb::collections::{Map, Set};
use uuid::Uuid;

use super::northbound::{Change, Northbound, SHARED_KEY, TableKind};
use super::rows::{
    Acl, DhcpOptions, LoadBalancer, LoadBalancerGroup, LogicalRouter, LogicalRouterPolicy, LogicalRouterPort,
    LogicalSwitch, LogicalSwitchPort, Nat, NbGlobal, PortGroup,
};
use ovsdb::column::Atom;
use ovsdb::replica::{Applied, ColumnError, RowChange, RowUpdate, Table, TableRow};
use ovsdb::value;

/// Columns of a switch that do not affect its connections.
const PORT_COLUMNS: &[&str] = &["ports", "load_balancer", "acls", "external_ids"];

/// Difference of a set.
struct SetDifference<T> {
    removed: Vec<T>,
    added: Vec<T>,
}

impl<T: Atom + Clone> SetDifference<T> {
    /// Difference of a column, by the change that was applied to its row.
    fn of<R: TableRow>(
        table: &Table<R>,
        uuid: Uuid,
        change: &RowChange,
        applied: &Applied<R>,
        (name, column): (&str, fn(&R) -> &Set<T>),
    ) -> Self {
        let none = Set::new();
        let after = table.get(&uuid).map_or(&none, column);
        match (applied, change) {
            (Applied::Modified, RowChange::Modify(columns)) => {
                // The change was applied, so it is well-formed.
                let elements = columns.get(name).and_then(|difference| value::elements(difference).ok());
                let elements = elements.into_iter().flatten().filter_map(|it| T::read_atom(it).ok());
                let (added, removed) = elements.partition(|element| after.contains(element));
                Self { removed, added }
            }
            (Applied::Replaced(before), _) => {
                let before = before.as_ref().map_or(&none, column);
                let difference = |one: &Set<T>, other| one.difference(other).cloned().collect();
                Self { removed: difference(before, after), added: difference(after, before) }
            }
            _ => Self { removed: Vec::new(), added: Vec::new() },
        }
    }

    fn all(&self) -> impl Iterator<Item = &T> {
        self.removed.iter().chain(&self.added)
    }
}

/// The installation that made a row, by its owner's text; `None`: no installation.
fn maker(owner: Option<&str>) -> Option<Uuid> {
    owner?.split('/').nth(1)?.parse().ok()
}

/// Values of a switch port that are indexed.
#[derive(Default)]
struct IndexedPort {
    owner: Option<String>,
    addresses: BTreeSet<IpAddr>,
    /// Name of the router port that it connects to.
    link: Option<String>,
    is_localnet: bool,
}

impl Northbound {
    /// Applies an update, and collects the changes to report.
    pub(super) fn update(
        &mut self,
        update: &RowUpdate,
        changes: &mut HashSet<Change>,
    ) -> Result<(), ColumnError> {
        let (uuid, change) = (update.uuid, &update.change);
        match update.table.as_str() {
            LoadBalancer::TABLE => self.load_balancer(uuid, change, changes),
            LoadBalancerGroup::TABLE => self.group(uuid, change, changes),
            LogicalSwitch::TABLE => self.switch(uuid, change, changes),
            LogicalRouter::TABLE => self.router(uuid, change, changes),
            LogicalRouterPort::TABLE => self.router_port(uuid, change, changes),
            LogicalRouterPolicy::TABLE => self.router_policy(uuid, change, changes),
            LogicalSwitchPort::TABLE => self.switch_port(uuid, change, changes),
            DhcpOptions::TABLE => self.dhcp_options(uuid, change, changes),
            NbGlobal::TABLE => self.global(uuid, change, changes),
            Acl::TABLE => self.acl(uuid, change, changes),
            PortGroup::TABLE => self.port_group(uuid, change, changes),
            Nat::TABLE => self.nat(uuid, change),
            _ => Ok(()),
        }
    }

    fn owner_in(&self, external_ids: &Map<String, String>) -> Option<String> {
        external_ids.get(&self.owner_key).or_else(|| external_ids.get(SHARED_KEY)).cloned()
    }

    /// Moves a row from one owner to another in the index, and reports both.
    fn owner(
        &mut self,
        row: (TableKind, Uuid),
        before: Option<String>,
        after: Option<String>,
        changes: &mut HashSet<Change>,
    ) {
        if before != after {
            if let Some(owner) = &before {
                self.owned.remove(owner, row);
            }
            if let Some(owner) = &after {
                self.owned.insert(owner.clone(), row);
            }
        }
        changes.extend(before.into_iter().chain(after).map(|owner| Change::Owned { owner }));
    }

    fn load_balancer(
        &mut self,
        uuid: Uuid,
        change: &RowChange,
        changes: &mut HashSet<Change>,
    ) -> Result<(), ColumnError> {
        let before = self.owner_of_load_balancer(uuid);
        let old: Vec<IpAddr> = self.load_balancer.get(&uuid).into_iter().flat_map(vips).collect();
        if self.load_balancer.apply(uuid, change)?.is_change() {
            let after = self.owner_of_load_balancer(uuid);
            for address in old {
                self.vips.remove(&address, &maker(before.as_deref()), uuid);
            }
            for address in self.load_balancer.get(&uuid).into_iter().flat_map(vips) {
                self.vips.insert(address, maker(after.as_deref()), uuid);
            }
            self.owner((TableKind::LoadBalancer, uuid), before, after, changes);
        }
        Ok(())
    }

    fn nat(&mut self, uuid: Uuid, change: &RowChange) -> Result<(), ColumnError> {
        let address = |nb: &Self| nb.nat.get(&uuid)?.external_ip.parse::<IpAddr>().ok();
        let before = address(self);
        self.nat.apply(uuid, change)?;
        before.into_iter().for_each(|address| self.nat_addresses.remove(&address, uuid));
        address(self).into_iter().for_each(|address| self.nat_addresses.insert(address, uuid));
        Ok(())
    }

    fn global(
        &mut self,
        uuid: Uuid,
        change: &RowChange,
        changes: &mut HashSet<Change>,
    ) -> Result<(), ColumnError> {
        let before = self.northd_release();
        self.nb_global.apply(uuid, change)?;
        if self.northd_release() != before {
            changes.insert(Change::Northd);
        }
        Ok(())
    }

    fn dhcp_options(
        &mut self,
        uuid: Uuid,
        change: &RowChange,
        changes: &mut HashSet<Change>,
    ) -> Result<(), ColumnError> {
        let network =
            |nb: &Self| nb.dhcp_options.get(&uuid).and_then(DhcpOptions::neutron_network).map(str::to_owned);
        let before = network(self);
        if !self.dhcp_options.apply(uuid, change)?.is_change() {
            return Ok(());
        }
        let after = network(self);
        if let Some(network) = &before {
            self.neutron_subnets.remove(network, uuid);
        }
        if let Some(network) = &after {
            self.neutron_subnets.insert(network.clone(), uuid);
        }
        for network in before.into_iter().chain(after) {
            let switches = self.switches_named(&format!("neutron-{network}"));
            changes.extend(switches.map(|uuid| Change::Switch { uuid }));
        }
        Ok(())
    }

    fn owner_of_load_balancer(&self, uuid: Uuid) -> Option<String> {
        self.owner_in(&self.load_balancer.get(&uuid)?.external_ids)
    }

    fn group(
        &mut self,
        uuid: Uuid,
        change: &RowChange,
        changes: &mut HashSet<Change>,
    ) -> Result<(), ColumnError> {
        let name = |nb: &Self| nb.load_balancer_group.get(&uuid).map(|row| row.name.clone());
        let before = name(self);
        let applied = self.load_balancer_group.apply(uuid, change)?;
        let after = name(self);
        let members = SetDifference::of(
            &self.load_balancer_group,
            uuid,
            change,
            &applied,
            ("load_balancer", |row| &row.load_balancer),
        );
        for balancer in &members.removed {
            self.groups_of_balancers.remove(balancer, uuid);
        }
        for balancer in &members.added {
            self.groups_of_balancers.insert(*balancer, uuid);
        }
        let is_empty = self.load_balancer_group.get(&uuid).is_some_and(|row| row.load_balancer.is_empty());
        let emptied = is_empty && !members.removed.is_empty();
        if before != after || emptied {
            let owner = |name: String| owner_of_group(&name).to_owned();
            self.owner((TableKind::LoadBalancerGroup, uuid), before.map(owner), after.map(owner), changes);
        }
        let excluded = members.removed.iter().filter_map(|row| self.owner_of_load_balancer(*row));
        changes.extend(excluded.map(|owner| Change::Owned { owner }));
        Ok(())
    }

    fn switch(
        &mut self,
        uuid: Uuid,
        change: &RowChange,
        changes: &mut HashSet<Change>,
    ) -> Result<(), ColumnError> {
        let name = |nb: &Self| nb.logical_switch.get(&uuid).map(|row| row.name.clone());
        let before = name(self);
        let applied = self.logical_switch.apply(uuid, change)?;
        if !applied.is_change() {
            return Ok(());
        }
        let set = |column| SetDifference::of(&self.logical_switch, uuid, change, &applied, column);
        let ports = set(("ports", |row| &row.ports));
        let groups = set(("load_balancer_group", |row| &row.load_balancer_group));
        let acls = set(("acls", |row| &row.acls));
        let balancers = set(("load_balancer", |row| &row.load_balancer));
        self.hold_switch_ports(uuid, &ports, changes);
        self.refers((TableKind::LogicalSwitch, uuid), &groups, &balancers);
        self.rules(uuid, &acls, changes);
        let after = name(self);
        if before != after {
            before.into_iter().for_each(|name| self.switch_names.remove(&name, uuid));
            after.into_iter().for_each(|name| self.switch_names.insert(name, uuid));
        }
        let is_link = |row: &LogicalSwitchPort| row.router_port().is_some() || row.is_localnet();
        let links_stay = !ports.all().any(|port| self.logical_switch_port.get(port).is_some_and(is_link));
        let ports_only = links_stay && only_of(change, PORT_COLUMNS);
        changes.insert(if ports_only { Change::Ports { switch: uuid } } else { Change::Switch { uuid } });
        Ok(())
    }

    /// Updates the indexes of the groups and load balancers that a row refers to.
    fn refers(
        &mut self,
        row: (TableKind, Uuid),
        groups: &SetDifference<Uuid>,
        balancers: &SetDifference<Uuid>,
    ) {
        for balancer in &balancers.removed {
            self.balancer_referrers.remove(balancer, row);
        }
        for balancer in &balancers.added {
            self.balancer_referrers.insert(*balancer, row);
        }
        for group in &groups.removed {
            self.group_referrers.remove(group, row);
        }
        for group in &groups.added {
            self.group_referrers.insert(*group, row);
        }
    }

    fn router(
        &mut self,
        uuid: Uuid,
        change: &RowChange,
        changes: &mut HashSet<Change>,
    ) -> Result<(), ColumnError> {
        let owner = |nb: &Self| nb.owner_in(&nb.logical_router.get(&uuid)?.external_ids);
        let before = owner(self);
        let applied = self.logical_router.apply(uuid, change)?;
        if !applied.is_change() {
            return Ok(());
        }
        let set = |column| SetDifference::of(&self.logical_router, uuid, change, &applied, column);
        let ports = set(("ports", |row| &row.ports));
        let groups = set(("load_balancer_group", |row| &row.load_balancer_group));
        let policies = set(("policies", |row| &row.policies));
        let balancers = set(("load_balancer", |row| &row.load_balancer));
        let nats = set(("nat", |row| &row.nat));
        hold(&mut self.routers_of_ports, uuid, &ports);
        hold(&mut self.routers_of_policies, uuid, &policies);
        hold(&mut self.routers_of_nats, uuid, &nats);
        let row = (TableKind::LogicalRouter, uuid);
        self.refers(row, &groups, &balancers);
        let after = owner(self);
        self.owner(row, before, after, changes);
        // A tenant's policies are none of a plan's business, nor what it translates and balances by itself: these are looked up where
        // an address is chosen.
        if !only_of(change, &["policies", "nat", "load_balancer"]) {
            changes.insert(Change::Router { uuid });
        }
        Ok(())
    }

    fn router_policy(
        &mut self,
        uuid: Uuid,
        change: &RowChange,
        changes: &mut HashSet<Change>,
    ) -> Result<(), ColumnError> {
        let owner = |nb: &Self| nb.owner_in(&nb.logical_router_policy.get(&uuid)?.external_ids);
        let before = owner(self);
        if self.logical_router_policy.apply(uuid, change)?.is_change() {
            let after = owner(self);
            self.owner((TableKind::LogicalRouterPolicy, uuid), before, after, changes);
        }
        Ok(())
    }

    fn router_port(
        &mut self,
        uuid: Uuid,
        change: &RowChange,
        changes: &mut HashSet<Change>,
    ) -> Result<(), ColumnError> {
        let owner = |nb: &Self| nb.owner_in(&nb.logical_router_port.get(&uuid)?.external_ids);
        let name = |nb: &Self| nb.logical_router_port.get(&uuid).map(|row| row.name.clone());
        let (old_owner, old_name) = (owner(self), name(self));
        let applied = self.logical_router_port.apply(uuid, change)?;
        if !applied.is_change() {
            return Ok(());
        }
        if let Some(owner) = old_owner.as_ref().filter(|_| only_of(change, &["networks"])) {
            let of_row = &self.logical_router_port;
            let networks =
                SetDifference::of(of_row, uuid, change, &applied, ("networks", |row| &row.networks));
            let network =
                |network: &String| Change::Network { owner: owner.clone(), network: network.clone() };
            changes.extend(networks.all().map(network));
            return Ok(());
        }
        let (new_owner, new_name) = (owner(self), name(self));
        self.owner((TableKind::LogicalRouterPort, uuid), old_owner, new_owner, changes);
        if let Some(old) = &old_name {
            // The name may have moved to another port in the same transaction.
            if self.router_port_names.get(old) == Some(&uuid) {
                self.router_port_names.remove(old);
            }
        }
        if let Some(new) = &new_name {
            self.router_port_names.insert(new.clone(), uuid);
        }
        for name in old_name.into_iter().chain(new_name) {
            changes.extend(self.switches_linked_to(&name).map(|uuid| Change::Switch { uuid }));
        }
        changes.extend(self.router_of_port(uuid).map(|uuid| Change::Router { uuid }));
        Ok(())
    }

    fn switch_port(
        &mut self,
        uuid: Uuid,
        change: &RowChange,
        changes: &mut HashSet<Change>,
    ) -> Result<(), ColumnError> {
        let old = self.indexed_port(uuid);
        let applied = self.logical_switch_port.apply(uuid, change)?;
        if !applied.is_change() {
            return Ok(());
        }
        let new = self.indexed_port(uuid);
        let switch = self.switch_of_port(uuid);
        self.leave_switch(uuid, &old, switch);
        self.join_switch(uuid, &new, switch);
        if let Some(link) = &old.link {
            self.links.remove(link, uuid);
        }
        if let Some(link) = &new.link {
            self.links.insert(link.clone(), uuid);
        }
        match old.owner.as_ref().filter(|_| only_of(change, &["addresses"])) {
            Some(owner) => {
                let of_row = &self.logical_switch_port;
                let column = ("addresses", (|row| &row.addresses) as fn(&LogicalSwitchPort) -> &Set<String>);
                let addresses = SetDifference::of(of_row, uuid, change, &applied, column);
                let address = |address: &String| Change::Address {
                    owner: owner.clone(),
                    port: uuid,
                    address: address.clone(),
                };
                changes.extend(addresses.all().map(address));
            }
            None => self.owner((TableKind::LogicalSwitchPort, uuid), old.owner, new.owner, changes),
        }
        let links = || [&old.link, &new.link].into_iter().flatten();
        let is_link = links().next().is_some() || old.is_localnet || new.is_localnet;
        changes.extend(switch.map(|switch| match is_link {
            true => Change::Switch { uuid: switch },
            false => Change::Ports { switch },
        }));
        // Other switches of the same router are concerned as well.
        let routers = links().filter_map(|name| self.router_of_port(self.router_port_named(name)?));
        changes.extend(routers.map(|uuid| Change::Router { uuid }));
        Ok(())
    }

    /// Updates the switch of each of these ports, and what is found by switch.
    fn hold_switch_ports(
        &mut self,
        switch: Uuid,
        ports: &SetDifference<Uuid>,
        changes: &mut HashSet<Change>,
    ) {
        let before: Vec<Option<Uuid>> = ports.all().map(|port| self.switch_of_port(*port)).collect();
        hold(&mut self.switches_of_ports, switch, ports);
        for (port, before) in ports.all().zip(before) {
            let after = self.switch_of_port(*port);
            if before != after {
                let indexed = self.indexed_port(*port);
                self.leave_switch(*port, &indexed, before);
                self.join_switch(*port, &indexed, after);
                self.move_ruled_port(*port, before, after, changes);
            }
        }
    }

    fn join_switch(&mut self, uuid: Uuid, port: &IndexedPort, switch: Option<Uuid>) {
        port.addresses.iter().for_each(|address| self.addresses.insert(*address, switch, uuid));
        let Some(switch) = switch else { return };
        if port.link.is_some() {
            self.router_ports.insert(switch, uuid);
        }
        if port.is_localnet {
            self.localnet_ports.insert(switch, uuid);
        }
    }

    fn leave_switch(&mut self, uuid: Uuid, port: &IndexedPort, switch: Option<Uuid>) {
        port.addresses.iter().for_each(|address| self.addresses.remove(address, &switch, uuid));
        if let Some(switch) = switch {
            self.router_ports.remove(&switch, uuid);
            self.localnet_ports.remove(&switch, uuid);
        }
    }

    fn indexed_port(&self, uuid: Uuid) -> IndexedPort {
        let Some(port) = self.logical_switch_port.get(&uuid) else { return IndexedPort::default() };
        IndexedPort {
            owner: self.owner_in(&port.external_ids),
            addresses: addresses(port),
            link: port.router_port().map(str::to_owned),
            is_localnet: port.is_localnet(),
        }
    }
}

/// Owner of a group by its name: all of it, or what is before the first `#`, by which an owner tells several groups apart.
fn owner_of_group(name: &str) -> &str {
    name.split_once('#').map_or(name, |(owner, _)| owner)
}

/// Updates the switch or router that each port belongs to.
fn hold(holders: &mut HashMap<Uuid, Uuid>, holder: Uuid, ports: &SetDifference<Uuid>) {
    for port in &ports.removed {
        // It may have gone to another holder in the same transaction.
        if holders.get(port) == Some(&holder) {
            holders.remove(port);
        }
    }
    holders.extend(ports.added.iter().map(|port| (*port, holder)));
}

/// True for a modification of no other columns than these.
fn only_of(change: &RowChange, names: &[&str]) -> bool {
    match change {
        RowChange::Modify(columns) => columns.keys().all(|column| names.contains(&column.as_str())),
        RowChange::Insert(_) | RowChange::Delete => false,
    }
}

/// All addresses that a port has, may use, or was given by Neutron. A prefix length is not part of an address.
fn addresses(port: &LogicalSwitchPort) -> BTreeSet<IpAddr> {
    let own = port.addresses.iter().chain(&port.dynamic_addresses).chain(&port.port_security);
    let others = port.options.get("virtual-ip").into_iter().chain(port.external_ids.get("neutron:cidrs"));
    let words = own.chain(others).flat_map(|text| text.split_whitespace());
    words.filter_map(|word| word.split('/').next()?.parse().ok()).collect()
}

/// Addresses of a load balancer's VIPs, each once or more. A key is `address:port`, `[address]:port` or an address.
fn vips(row: &LoadBalancer) -> impl Iterator<Item = IpAddr> + '_ {
    let host = |key: &String| {
        let socket = key.parse::<SocketAddr>().map(|socket| socket.ip());
        socket.or_else(|_| key.parse()).ok()
    };
    row.vips.keys().filter_map(host)
}

#[cfg(test)]
mod tests;
