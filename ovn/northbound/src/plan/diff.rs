//! Difference between the desired state of an owner and the database, as steps; and steps as one transaction.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};
use uuid::Uuid;

use super::{Desired, Member, Owner, Row};
use crate::{Northbound, TableKind};
use ovsdb::operation::{Mutation, Operation};
use ovsdb::value;

/// Step towards the desired state.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Inserts a row.
    Insert(Uuid, Row),
    /// Sets columns of a row.
    Update(TableKind, Uuid, Map<String, Value>),
    /// Deletes a row of a root table.
    Delete(TableKind, Uuid),
    /// Adds a reference to a row, or removes it.
    Refer(StepOperation, Member),
    /// Adds a network to `networks` of a router port, or removes it.
    Network(StepOperation, Uuid, String),
    /// Adds an element to `addresses` of a switch port, or removes it.
    Address(StepOperation, Uuid, String),
}

/// Direction of a change of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StepOperation {
    /// The element is added.
    Insert,
    /// The element is removed.
    Delete,
}

/// Compares the desired state of `owner` with the database; returns the steps that establish it. Empty if they agree.
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

/// Inserts or updates a row, depending on the row that the database holds under its UUID.
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
        Row::LogicalRouterPolicy(row) => {
            nb.logical_router_policy.get(&uuid).map(|actual| actual.changed_columns(row))
        }
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
        (TableKind::LogicalRouter, "policies") => nb.logical_router.get(&member.row).map(|row| &row.policies),
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

/// All references to a group. They are strong, so that a group can only be deleted together with them.
fn group_members(group: Uuid, nb: &Northbound) -> impl Iterator<Item = Member> + '_ {
    nb.group_referrers(group).map(move |(table, row)| Member {
        table,
        row,
        column: "load_balancer_group",
        element: group,
    })
}

/// Steps that delete rows of the owner that are no longer desired. Ports and policies are not root rows: the server deletes them
/// once they are unreferenced (ovsdb-server(7)), so the reference is removed.
fn removals(owner: Owner, desired: &Desired, nb: &Northbound, steps: &mut Vec<Step>) {
    let owned: Vec<(TableKind, Uuid)> = nb.owned(&owner.to_string()).collect();
    let obsolete = || owned.iter().filter(|(_, uuid)| !desired.rows.contains_key(uuid)).copied();
    let deleted: BTreeSet<Uuid> = obsolete().map(|(_, uuid)| uuid).collect();
    for (table, uuid) in obsolete() {
        let unrefer = |table, row: Option<Uuid>, column| {
            let row = row.filter(|row| !deleted.contains(row))?;
            Some(Step::Refer(StepOperation::Delete, Member { table, row, column, element: uuid }))
        };
        match table {
            TableKind::LogicalSwitchPort => {
                steps.extend(unrefer(TableKind::LogicalSwitch, nb.switch_of_port(uuid), "ports"));
            }
            TableKind::LogicalRouterPort => {
                steps.extend(unrefer(TableKind::LogicalRouter, nb.router_of_port(uuid), "ports"));
            }
            TableKind::LogicalRouterPolicy => {
                steps.extend(unrefer(TableKind::LogicalRouter, nb.router_of_policy(uuid), "policies"));
            }
            TableKind::LoadBalancerGroup => {
                let foreign = group_members(uuid, nb).filter(|member| !deleted.contains(&member.row));
                steps.extend(foreign.map(|member| Step::Refer(StepOperation::Delete, member)));
                steps.push(Step::Delete(table, uuid));
            }
            _ => steps.push(Step::Delete(table, uuid)),
        }
    }
}

/// Writes the steps of any number of owners as the operations of one transaction. References in one column are merged into one
/// mutation, so that many load balancers on one network change its row once.
///
/// Mutations come last: if a row is deleted after another one was added to a set that contains it, ovsdb-server (3.5) leaves a
/// dangling weak reference in the set.
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
            Step::Refer(operation, Member { table, row, column, element }) => {
                sets.entry((table, row, column, operation)).or_default().insert(Element::Row(element));
            }
            Step::Network(operation, port, network) => {
                let key = (TableKind::LogicalRouterPort, port, "networks", operation);
                sets.entry(key).or_default().insert(Element::Text(network));
            }
            Step::Address(operation, port, address) => {
                let key = (TableKind::LogicalSwitchPort, port, "addresses", operation);
                sets.entry(key).or_default().insert(Element::Text(address));
            }
        }
    }
    operations.extend(sets.into_iter().map(|((table, row, column, operation), elements)| {
        let set = value::set(elements.into_iter().map(Element::into_value));
        let mutation = match operation {
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
        Row::LogicalRouterPolicy(row) => row.to_row(),
        Row::LogicalSwitchPort(row) => {
            let mut columns = row.to_row();
            // northd says so of each port that no chassis has, by a write to the row that costs it another pass.
            if row.r#type != "router" {
                columns.insert("up".to_owned(), Value::Bool(false));
            }
            columns
        }
    };
    Operation::insert(row.table().name(), uuid, columns)
}
