//! What one owner wants in the northbound database.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::{
    LoadBalancer, LoadBalancerGroup, LogicalRouter, LogicalRouterPort, LogicalSwitchPort, TableKind,
};

/// A row of our own, whole in the columns that we manage.
#[derive(Clone, Debug, PartialEq)]
pub enum Row {
    /// All columns are ours.
    LoadBalancer(LoadBalancer),
    /// Its `load_balancer` column is made of [`Member`]s.
    LoadBalancerGroup(LoadBalancerGroup),
    /// Ours are `name` and `external_ids`; ports and groups are [`Member`]s.
    LogicalRouter(LogicalRouter),
    /// Ours are `name`, `mac`, `networks` and `external_ids`.
    LogicalRouterPort(LogicalRouterPort),
    /// Ours are `name`, `type`, `options`, `addresses` and `external_ids`.
    LogicalSwitchPort(LogicalSwitchPort),
}

impl Row {
    /// The table that it stands in.
    #[must_use]
    pub fn table(&self) -> TableKind {
        match self {
            Self::LoadBalancer(_) => TableKind::LoadBalancer,
            Self::LoadBalancerGroup(_) => TableKind::LoadBalancerGroup,
            Self::LogicalRouter(_) => TableKind::LogicalRouter,
            Self::LogicalRouterPort(_) => TableKind::LogicalRouterPort,
            Self::LogicalSwitchPort(_) => TableKind::LogicalSwitchPort,
        }
    }
}

/// One of our rows' UUIDs in a column of another row, which may be foreign. The rest of that column is never touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// Table of the row that refers.
    pub table: TableKind,
    /// The row that refers.
    pub row: Uuid,
    /// Its column: `ports`, `load_balancer` or `load_balancer_group`.
    pub column: &'static str,
    /// Our row.
    pub element: Uuid,
}

/// All that one owner wants; what it has beyond this goes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// Rows by their UUID.
    pub rows: BTreeMap<Uuid, Row>,
    /// References to rows of ours.
    pub members: Vec<Member>,
}

impl Desired {
    /// Adds a row with the references that hold it.
    pub fn add(
        &mut self,
        uuid: Uuid,
        row: Row,
        held_by: impl IntoIterator<Item = (TableKind, Uuid, &'static str)>,
    ) {
        self.rows.insert(uuid, row);
        let members =
            held_by.into_iter().map(|(table, row, column)| Member { table, row, column, element: uuid });
        self.members.extend(members);
    }
}
