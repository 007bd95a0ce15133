//! Desired state of one owner in the northbound database.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::{
    LoadBalancer, LoadBalancerGroup, LogicalRouter, LogicalRouterPolicy, LogicalRouterPort,
    LogicalSwitchPort, TableKind,
};

/// Desired row of an owner, with the columns that the planner manages.
#[derive(Clone, Debug, PartialEq)]
pub enum Row {
    /// All columns are managed.
    LoadBalancer(LoadBalancer),
    /// `name` is managed; `load_balancer` by [`Member`]s.
    LoadBalancerGroup(LoadBalancerGroup),
    /// `name` and `external_ids` are managed; ports and groups by [`Member`]s.
    LogicalRouter(LogicalRouter),
    /// `name`, `mac`, `networks` and `external_ids` are managed.
    LogicalRouterPort(LogicalRouterPort),
    /// All columns are managed.
    LogicalRouterPolicy(LogicalRouterPolicy),
    /// `name`, `type`, `options`, `addresses` and `external_ids` are managed.
    LogicalSwitchPort(LogicalSwitchPort),
}

impl Row {
    /// Table of the row.
    #[must_use]
    pub fn table(&self) -> TableKind {
        match self {
            Self::LoadBalancer(_) => TableKind::LoadBalancer,
            Self::LoadBalancerGroup(_) => TableKind::LoadBalancerGroup,
            Self::LogicalRouter(_) => TableKind::LogicalRouter,
            Self::LogicalRouterPort(_) => TableKind::LogicalRouterPort,
            Self::LogicalRouterPolicy(_) => TableKind::LogicalRouterPolicy,
            Self::LogicalSwitchPort(_) => TableKind::LogicalSwitchPort,
        }
    }
}

/// Reference to a row of an owner in a column of another row, which may be foreign. The rest of that column is never touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// Table of the referring row.
    pub table: TableKind,
    /// UUID of the referring row.
    pub row: Uuid,
    /// Column of the referring row: `ports`, `policies`, `load_balancer` or `load_balancer_group`.
    pub column: &'static str,
    /// UUID of the referenced row.
    pub element: Uuid,
}

/// Desired state of one owner: everything else that it owns is deleted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// Rows by their UUID.
    pub rows: BTreeMap<Uuid, Row>,
    /// References to these rows.
    pub members: Vec<Member>,
}

impl Desired {
    /// Adds a row with the references to it.
    pub fn add(
        &mut self,
        uuid: Uuid,
        row: Row,
        referrers: impl IntoIterator<Item = (TableKind, Uuid, &'static str)>,
    ) {
        self.rows.insert(uuid, row);
        let members =
            referrers.into_iter().map(|(table, row, column)| Member { table, row, column, element: uuid });
        self.members.extend(members);
    }
}
