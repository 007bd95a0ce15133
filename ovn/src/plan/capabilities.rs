//! What the connected northbound database can do, read from its schema.

use crate::ovsdb::schema::Schema;

/// Features of OVN that are not in every release; the first one with each stands beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// `Load_Balancer.selection_fields` (20.03).
    pub selection_fields: bool,
    /// `Load_Balancer_Group` (21.12). FiberLB does not work without it.
    pub groups: bool,
    /// `Load_Balancer.options:affinity_timeout` (22.12).
    pub affinity: bool,
    /// `ipv6_src` and `ipv6_dst` in `selection_fields` (25.03).
    pub ipv6_selection: bool,
}

impl Capabilities {
    /// Everything.
    pub const ALL: Self = Self { selection_fields: true, groups: true, affinity: true, ipv6_selection: true };

    /// Reads them from a schema. Options have no column of their own: the affinity option came with the table of
    /// chassis template variables.
    #[must_use]
    pub fn of(schema: &Schema) -> Self {
        Self {
            selection_fields: schema.has_column("Load_Balancer", "selection_fields"),
            groups: schema.has_column("Logical_Switch", "load_balancer_group"),
            affinity: schema.has_table("Chassis_Template_Var"),
            ipv6_selection: schema.allows("Load_Balancer", "selection_fields", "ipv6_src"),
        }
    }
}
