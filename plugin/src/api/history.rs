//! Recent changes of statuses, as the owner of a load balancer asks for them.

use uuid::Uuid;

use super::error::ApiError;
use super::use_cases::UseCases;
use crate::auth::{Principal, Verb};
use crate::catalog::StatusEvent;
use crate::resources::LoadBalancer;

/// Changes of statuses that this plugin has seen in one load balancer.
#[derive(Clone, Debug, PartialEq)]
pub struct StatusHistory {
    /// The oldest first.
    pub events: Vec<StatusEvent>,
    /// Since when this plugin sees them, in milliseconds since 1970.
    pub since: u64,
}

impl UseCases {
    /// Recent changes of statuses in a load balancer.
    ///
    /// # Errors
    /// It does not exist, or is not the principal's.
    pub fn status_history(&self, principal: &Principal, id: Uuid) -> Result<StatusHistory, ApiError> {
        self.find::<LoadBalancer>(principal, Verb::Get, id)?;
        let model = &self.on().model;
        Ok(StatusHistory { events: model.status_events(id), since: model.loaded_at() })
    }
}
