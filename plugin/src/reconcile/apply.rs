//! The only place that writes to the northbound database.

use fiberlb_ovn::nb::Northbound;
use fiberlb_ovn::ovsdb::client::Client;
use fiberlb_ovn::ovsdb::error::TransactError;
use fiberlb_ovn::plan::{Step, operations};

/// How a transaction ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Nothing was missing; nothing was sent.
    InStep,
    /// All of it is in the database.
    Committed,
    /// Committed, and some row that it meant to change was not there any more: look again.
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

/// Sends `steps` as one transaction.
pub(super) async fn apply(northbound: &Client<Northbound>, steps: Vec<Step>) -> Outcome {
    if steps.is_empty() {
        return Outcome::InStep;
    }
    let operations = operations(steps);
    match northbound.transact(operations).await {
        Ok(results) if results.iter().any(|result| result.count == Some(0)) => Outcome::Missed,
        Ok(_) => Outcome::Committed,
        Err(TransactError::NotConnected { .. }) => Outcome::NotConnected,
        Err(TransactError::Unknown { reason }) => Outcome::Unknown(reason),
        Err(error @ TransactError::Refused { .. }) => Outcome::Refused(error.to_string()),
    }
}
