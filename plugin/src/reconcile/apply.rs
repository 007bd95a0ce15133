//! The only place that writes to the northbound database.

use fiberlb_northbound::Northbound;
use fiberlb_northbound::plan::{Step, operations};
use ovsdb::client::Client;
use ovsdb::error::TransactError;

use super::fence::Fence;

/// Outcome of a transaction.
#[derive(Debug)]
pub(super) enum TransactionOutcome {
    /// Desired and observed rows are equal; nothing was sent.
    InStep,
    /// All operations are committed.
    Committed,
    /// Committed, but a row to be changed was gone; or refused because the fence was moved. Plan again.
    Missed,
    /// Refused as a whole; text with the database's reason.
    Refused(String),
    /// Not sent, for lack of a connection.
    NotConnected,
    /// Sent, with unknown outcome: plan again from the database's content.
    Unknown(String),
}

impl TransactionOutcome {
    /// Value of the metrics' label `outcome`.
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
) -> TransactionOutcome {
    if steps.is_empty() {
        return TransactionOutcome::InStep;
    }
    let guard = fence.map(|fence| fence.guard(&northbound.read()));
    let operations = guard.into_iter().chain(operations(steps)).collect();
    match northbound.transact(operations).await {
        Ok(results) if results.iter().any(|result| result.count == Some(0)) => TransactionOutcome::Missed,
        Ok(_) => TransactionOutcome::Committed,
        Err(error) if fence.is_some() && error.is_fenced() => TransactionOutcome::Missed,
        Err(TransactError::NotConnected { .. }) => TransactionOutcome::NotConnected,
        Err(TransactError::Unknown { reason }) => TransactionOutcome::Unknown(reason),
        Err(error @ TransactError::Refused { .. }) => TransactionOutcome::Refused(error.to_string()),
    }
}
