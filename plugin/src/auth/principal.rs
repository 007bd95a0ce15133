//! Identity of a caller.

use serde::{Deserialize, Serialize};

/// Objects that a principal may reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
pub struct Principal {
    /// Its organisation, default "default". Letters, digits, `.`, `_` and `-`.
    pub org_id: String,
    /// Its project, default "default". Letters, digits, `.`, `_` and `-`.
    pub project_id: String,
    /// Reachable objects, default those of its project.
    pub scope: Scope,
}

impl Default for Principal {
    fn default() -> Self {
        Self { org_id: "default".to_owned(), project_id: "default".to_owned(), scope: Scope::Project }
    }
}
