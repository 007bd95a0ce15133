//! Identity of a caller.

use serde::{Deserialize, Serialize};

/// Objects that a principal may reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Scope {
    /// Its own project.
    #[default]
    Project,
    /// Everything: an operator.
    All,
}

/// Identity of a caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Principal {
    /// 1 to 64 letters, digits, `.`, `_`, `-`: organisation of everybody who reaches the API.
    pub org_id: String,
    /// 1 to 64 letters, digits, `.`, `_`, `-`: project of everybody who reaches the API.
    pub project_id: String,
    /// Reachable load balancers: those of the project, or all. Nodes and `ovn verify` are open to everybody in either
    /// case.
    pub scope: Scope,
}

impl Default for Principal {
    fn default() -> Self {
        Self { org_id: "default".to_owned(), project_id: "default".to_owned(), scope: Scope::Project }
    }
}
