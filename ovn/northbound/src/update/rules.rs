//! Indexes of the rules that pass packets by load balancing: of switches, and of port groups, which are rules of the switches that
//! the groups' ports are on.
//!
//! A cloud has a port group for each security group, with thousands of ports in some: all that is kept of an ordinary one is its
//! row and the groups of its rules.

use super::{Applied, Change, HashSet, Northbound, RowChange, SetDifference, Uuid};
use crate::rows::{Acl, PortGroup};
use ovsdb::replica::ColumnError;

impl Northbound {
    /// Updates the indexes of the rules that a switch has.
    pub(super) fn rules(&mut self, switch: Uuid, acls: &SetDifference<Uuid>, changes: &mut HashSet<Change>) {
        self.report_rules(switch, changes, |nb| {
            for acl in &acls.removed {
                nb.acl_switches.remove(acl, switch);
                nb.stateless.remove(&switch, *acl);
            }
            for acl in &acls.added {
                nb.acl_switches.insert(*acl, switch);
                if nb.is_stateless(*acl) {
                    nb.stateless.insert(switch, *acl);
                }
            }
        });
    }

    /// Makes a change, and reports the switch if it begins or ceases to have stateless rules. Others behind the same routers are
    /// concerned as well.
    fn report_rules(&mut self, switch: Uuid, changes: &mut HashSet<Change>, change: impl FnOnce(&mut Self)) {
        let before = self.has_stateless_acls(switch);
        change(self);
        if self.has_stateless_acls(switch) == before {
            return;
        }
        changes.insert(Change::Switch { uuid: switch });
        let links = self.router_links(switch);
        let routers = links.filter_map(|name| self.router_of_port(self.router_port_named(name)?));
        changes.extend(routers.map(|uuid| Change::Router { uuid }));
    }

    fn is_stateless(&self, acl: Uuid) -> bool {
        self.acl.get(&acl).is_some_and(|row| row.action == Acl::STATELESS)
    }

    pub(super) fn acl(
        &mut self,
        uuid: Uuid,
        change: &RowChange,
        changes: &mut HashSet<Change>,
    ) -> Result<(), ColumnError> {
        let before = self.is_stateless(uuid);
        self.acl.apply(uuid, change)?;
        let after = self.is_stateless(uuid);
        if before == after {
            return Ok(());
        }
        for switch in self.acl_switches.get(&uuid).collect::<Vec<_>>() {
            self.report_rules(switch, changes, |nb| match after {
                true => nb.stateless.insert(switch, uuid),
                false => nb.stateless.remove(&switch, uuid),
            });
        }
        for group in self.acl_groups.get(&uuid).collect::<Vec<_>>() {
            let was_ruled = self.stateless_groups.has(&group);
            match after {
                true => self.stateless_groups.insert(group, uuid),
                false => self.stateless_groups.remove(&group, uuid),
            }
            self.rule_members(group, was_ruled, changes);
        }
        Ok(())
    }

    pub(super) fn port_group(
        &mut self,
        uuid: Uuid,
        change: &RowChange,
        changes: &mut HashSet<Change>,
    ) -> Result<(), ColumnError> {
        let applied: Applied<PortGroup> = self.port_group.apply(uuid, change)?;
        if !applied.is_change() {
            return Ok(());
        }
        let set = |column| SetDifference::of(&self.port_group, uuid, change, &applied, column);
        let (acls, ports) = (set(("acls", |row| &row.acls)), set(("ports", |row| &row.ports)));
        let was_ruled = self.stateless_groups.has(&uuid);
        if was_ruled {
            for port in &ports.removed {
                self.end_rule(*port, uuid, changes);
            }
            for port in &ports.added {
                self.begin_rule(*port, uuid, changes);
            }
        }
        for acl in &acls.removed {
            self.acl_groups.remove(acl, uuid);
            self.stateless_groups.remove(&uuid, *acl);
        }
        for acl in &acls.added {
            self.acl_groups.insert(*acl, uuid);
            if self.is_stateless(*acl) {
                self.stateless_groups.insert(uuid, *acl);
            }
        }
        self.rule_members(uuid, was_ruled, changes);
        Ok(())
    }

    /// Updates the indexes of all ports of a group that begins or ceases to have stateless rules.
    fn rule_members(&mut self, group: Uuid, was_ruled: bool, changes: &mut HashSet<Change>) {
        let is_ruled = self.stateless_groups.has(&group);
        if is_ruled == was_ruled {
            return;
        }
        let ports = self.port_group.get(&group).map(|row| row.ports.clone()).unwrap_or_default();
        for port in ports {
            match is_ruled {
                true => self.begin_rule(port, group, changes),
                false => self.end_rule(port, group, changes),
            }
        }
    }

    fn begin_rule(&mut self, port: Uuid, group: Uuid, changes: &mut HashSet<Change>) {
        self.ruled_ports.insert(port, group);
        self.move_ruled_port(port, None, self.switch_of_port(port), changes);
    }

    fn end_rule(&mut self, port: Uuid, group: Uuid, changes: &mut HashSet<Change>) {
        self.ruled_ports.remove(&port, group);
        if let Some(switch) = self.switch_of_port(port).filter(|_| !self.ruled_ports.has(&port)) {
            self.report_rules(switch, changes, |nb| nb.stateless_ports.remove(&switch, port));
        }
    }

    /// Updates the switch of a port whose groups may have stateless rules.
    pub(super) fn move_ruled_port(
        &mut self,
        port: Uuid,
        before: Option<Uuid>,
        after: Option<Uuid>,
        changes: &mut HashSet<Change>,
    ) {
        if !self.ruled_ports.has(&port) {
            return;
        }
        if let Some(switch) = before {
            self.report_rules(switch, changes, |nb| nb.stateless_ports.remove(&switch, port));
        }
        if let Some(switch) = after {
            self.report_rules(switch, changes, |nb| nb.stateless_ports.insert(switch, port));
        }
    }
}
