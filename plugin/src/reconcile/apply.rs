//! The only place that writes to the northbound database.

use fiberlb_ovn::nb::Northbound;
use fiberlb_ovn::ovsdb::client::Client;
use fiberlb_ovn::ovsdb::error::TransactError;
use fiberlb_ovn::plan::{Step, operations};

use super::fence::Fence;

/// How a transaction ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Nothing was missing; nothing was sent.
    InStep,
    /// All of it is in the database.
    Committed,
    /// Committed, and some row that it meant to change was not there any more, or refused because the fence was moved: look
    /// again.
    Missed,
    /// Refused as a whole, with the database's reason.
    Refused(String),
    /// Not sent: there is no connection.
    NotConnected,
    /// Sent, and nobody knows whether it was committed: look at the database, then plan again.
    Unknown(String),
}

impl Outcome {
    /// Its name in metrics.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Self::InStep => "in_step",
            Self::Committed => "committed",
            Self::Missed => "missed",
            Self::Refused(_) => "refused",
            Self::NotConnected => "not_connected",
            Self::Unknown(_) => "unknown",
        }
    }
}

/// Sends `steps` as one transaction, behind the fence where there is one.
pub(super) async fn apply(
    northbound: &Client<Northbound>,
    fence: Option<&Fence>,
    steps: Vec<Step>,
) -> Outcome {
    if steps.is_empty() {
        return Outcome::InStep;
    }
    let guard = fence.map(|fence| fence.guard(&northbound.read()));
    let operations = guard.into_iter().chain(operations(steps)).collect();
    match northbound.transact(operations).await {
        Ok(results) if results.iter().any(|result| result.count == Some(0)) => Outcome::Missed,
        Ok(_) => Outcome::Committed,
        Err(error) if fence.is_some() && error.is_fenced() => Outcome::Missed,
        Err(TransactError::NotConnected { .. }) => Outcome::NotConnected,
        Err(TransactError::Unknown { reason }) => Outcome::Unknown(reason),
        Err(error @ TransactError::Refused { .. }) => Outcome::Refused(error.to_string()),
    }
}
