//! The difference between what an owner wants and what the database holds, as steps, and steps as one transaction.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use uuid::Uuid;

use super::{Desired, Member, Owner, Row};
use crate::{Northbound, TableKind};
use ovsdb::operation::{Mutation, Operation};
use ovsdb::value;

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Make a row of ours.
    Insert(Uuid, Row),
    /// Set columns of a row of ours.
    Update(TableKind, Uuid, Map<String, Value>),
    /// Remove a row of ours that nothing needs to refer to.
    Delete(TableKind, Uuid),
    /// Put the UUID of a row of ours into a column, or take it out.
    Refer(StepOperation, Member),
    /// Put a network into, or take it out of, `networks` of a router port of ours.
    Network(StepOperation, Uuid, String),
}

/// Which way a set changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StepOperation {
    /// The element comes.
    Insert,
    /// The element goes.
    Delete,
}

/// What is missing for `owner` to have what it desires, and no more. Nothing when the two agree.
#[must_use]
pub fn diff(owner: Owner, desired: &Desired, nb: &Northbound) -> Vec<Step> {
    let mut steps = Vec::new();
    for (uuid, row) in &desired.rows {
        row_steps(*uuid, row, nb, &mut steps);
    }
    let wanted: BTreeSet<Member> = desired.members.iter().copied().collect();
    let missing = wanted.iter().filter(|member| !refers(member, nb));
    steps.extend(missing.map(|member| Step::Refer(StepOperation::Insert, *member)));
    for uuid in desired
        .rows
        .iter()
        .filter(|(_, row)| row.table() == TableKind::LoadBalancerGroup)
        .map(|(uuid, _)| *uuid)
    {
        let extra = group_members(uuid, nb).filter(|member| !wanted.contains(member));
        steps.extend(extra.map(|member| Step::Refer(StepOperation::Delete, member)));
    }
    removals(owner, desired, nb, &mut steps);
    steps
}

/// Insert or update, by what the database holds under the row's UUID.
fn row_steps(uuid: Uuid, row: &Row, nb: &Northbound, steps: &mut Vec<Step>) {
    let changed = match row {
        Row::LoadBalancer(row) => nb.load_balancer.get(&uuid).map(|actual| actual.changed_columns(row)),
        Row::LoadBalancerGroup(row) => {
            nb.load_balancer_group.get(&uuid).map(|actual| only(&["name"], actual.changed_columns(row)))
        }
        Row::LogicalRouter(row) => nb
            .logical_router
            .get(&uuid)
            .map(|actual| only(&["name", "external_ids"], actual.changed_columns(row))),
        Row::LogicalRouterPort(row) => nb.logical_router_port.get(&uuid).map(|actual| {
            let network = |operation| move |text: &String| Step::Network(operation, uuid, text.clone());
            steps.extend(row.networks.difference(&actual.networks).map(network(StepOperation::Insert)));
            steps.extend(actual.networks.difference(&row.networks).map(network(StepOperation::Delete)));
            only(&["name", "mac", "external_ids"], actual.changed_columns(row))
        }),
        Row::LogicalSwitchPort(row) => nb.logical_switch_port.get(&uuid).map(|actual| {
            only(&["name", "type", "options", "addresses", "external_ids"], actual.changed_columns(row))
        }),
    };
    match changed {
        None => steps.push(Step::Insert(uuid, row.clone())),
        Some(columns) if columns.is_empty() => {}
        Some(columns) => steps.push(Step::Update(row.table(), uuid, columns)),
    }
}

fn only(ours: &[&str], mut columns: Map<String, Value>) -> Map<String, Value> {
    columns.retain(|column, _| ours.contains(&column.as_str()));
    columns
}

fn refers(member: &Member, nb: &Northbound) -> bool {
    let column = match (member.table, member.column) {
        (TableKind::LogicalSwitch, "ports") => nb.logical_switch.get(&member.row).map(|row| &row.ports),
        (TableKind::LogicalSwitch, "load_balancer_group") => {
            nb.logical_switch.get(&member.row).map(|row| &row.load_balancer_group)
        }
        (TableKind::LogicalRouter, "ports") => nb.logical_router.get(&member.row).map(|row| &row.ports),
        (TableKind::LogicalRouter, "load_balancer_group") => {
            nb.logical_router.get(&member.row).map(|row| &row.load_balancer_group)
        }
        (TableKind::LoadBalancerGroup, "load_balancer") => {
            nb.load_balancer_group.get(&member.row).map(|row| &row.load_balancer)
        }
        _ => None,
    };
    column.is_some_and(|set| set.contains(&member.element))
}

/// Every reference to a group: these are strong, so a group can only be deleted together with them.
fn group_members(group: Uuid, nb: &Northbound) -> impl Iterator<Item = Member> + '_ {
    nb.group_referrers(group).map(move |(table, row)| Member {
        table,
        row,
        column: "load_balancer_group",
        element: group,
    })
}

/// Steps that remove what the owner has and does not want any more. Ports are not root rows: they go when nothing refers
/// to them (ovsdb-server(7)), so the reference is what is removed.
fn removals(owner: Owner, desired: &Desired, nb: &Northbound, steps: &mut Vec<Step>) {
    let owned: Vec<(TableKind, Uuid)> = nb.owned(&owner.to_string()).collect();
    let going = || owned.iter().filter(|(_, uuid)| !desired.rows.contains_key(uuid)).copied();
    let gone: BTreeSet<Uuid> = going().map(|(_, uuid)| uuid).collect();
    for (table, uuid) in going() {
        let port_of = |table, row: Option<Uuid>| {
            let row = row.filter(|row| !gone.contains(row))?;
            Some(Step::Refer(StepOperation::Delete, Member { table, row, column: "ports", element: uuid }))
        };
        match table {
            TableKind::LogicalSwitchPort => {
                steps.extend(port_of(TableKind::LogicalSwitch, nb.switch_of_port(uuid)));
            }
            TableKind::LogicalRouterPort => {
                steps.extend(port_of(TableKind::LogicalRouter, nb.router_of_port(uuid)));
            }
            TableKind::LoadBalancerGroup => {
                let foreign = group_members(uuid, nb).filter(|member| !gone.contains(&member.row));
                steps.extend(foreign.map(|member| Step::Refer(StepOperation::Delete, member)));
                steps.push(Step::Delete(table, uuid));
            }
            _ => steps.push(Step::Delete(table, uuid)),
        }
    }
}

/// Writes steps, of any number of owners, as the operations of one transaction. References in one column are merged into
/// one mutation, so that many load balancers on one network cost that row one change.
///
/// Mutations come last: where a row is deleted after another one was put into a set that it is in, ovsdb-server (3.5) leaves
/// its UUID there, a weak reference to nothing.
#[must_use]
pub fn operations(steps: Vec<Step>) -> Vec<Operation> {
    let mut operations = Vec::with_capacity(steps.len());
    let mut sets: BTreeMap<(TableKind, Uuid, &'static str, StepOperation), BTreeSet<Element>> =
        BTreeMap::new();
    for step in steps {
        match step {
            Step::Insert(uuid, row) => operations.push(insert(uuid, &row)),
            Step::Update(table, uuid, columns) => {
                operations.push(Operation::update(table.name(), uuid, columns));
            }
            Step::Delete(table, uuid) => operations.push(Operation::delete(table.name(), uuid)),
            Step::Refer(way, Member { table, row, column, element }) => {
                sets.entry((table, row, column, way)).or_default().insert(Element::Row(element));
            }
            Step::Network(way, port, network) => {
                let key = (TableKind::LogicalRouterPort, port, "networks", way);
                sets.entry(key).or_default().insert(Element::Text(network));
            }
        }
    }
    operations.extend(sets.into_iter().map(|((table, row, column, way), elements)| {
        let set = value::set(elements.into_iter().map(Element::into_value));
        let mutation = match way {
            StepOperation::Insert => Mutation::insert(column, set),
            StepOperation::Delete => Mutation::delete(column, set),
        };
        Operation::mutate(table.name(), row, vec![mutation])
    }));
    operations
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Element {
    Row(Uuid),
    Text(String),
}

impl Element {
    fn into_value(self) -> Value {
        match self {
            Self::Row(uuid) => value::uuid(uuid),
            Self::Text(text) => Value::String(text),
        }
    }
}

fn insert(uuid: Uuid, row: &Row) -> Operation {
    let columns = match row {
        Row::LoadBalancer(row) => row.to_row(),
        Row::LoadBalancerGroup(row) => row.to_row(),
        Row::LogicalRouter(row) => row.to_row(),
        Row::LogicalRouterPort(row) => row.to_row(),
        Row::LogicalSwitchPort(row) => row.to_row(),
    };
    Operation::insert(row.table().name(), uuid, columns)
}
