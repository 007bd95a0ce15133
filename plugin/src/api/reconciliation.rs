//! Progress of carrying out what is stored, as the use cases ask for it.

use futures_util::future::BoxFuture;
use uuid::Uuid;

use super::error::ApiError;
use super::error::ErrorReason;
use super::use_cases::UseCases;
use crate::auth::{Object, Principal, Verb, authorize};

/// Whoever carries out what is stored, in OVN.
pub trait Reconciliation: Send + Sync + 'static {
    /// Dependency that carrying out waits for, as a sentence for the owners of resources.
    fn waiting_for(&self) -> Option<String>;

    /// Compares the northbound database with the desired state.
    ///
    /// # Errors
    /// The database or the leader cannot be reached, or another comparison runs.
    fn verify(&self) -> BoxFuture<'_, Result<Verification, ApiError>>;
}

/// Kind of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DifferenceKind {
    /// A row, or a reference to one, that should be there.
    Missing,
    /// A row of FiberLB, or a reference to one, that should not be there.
    Unexpected,
    /// A row with differing columns.
    Different,
    /// A load balancer that cannot be applied.
    Blocked,
}

/// Owner of rows that differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// Rows of a load balancer itself.
    LoadBalancer(Uuid),
    /// Rows that the load balancers on a logical switch share.
    Network(Uuid),
}

/// One difference between the northbound database and the desired state.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// Owner of the row.
    pub subject: Subject,
    /// Kind of the difference.
    pub kind: DifferenceKind,
    /// OVN's name of the table; empty for a load balancer that is blocked.
    pub table: String,
    /// The row.
    pub row: Uuid,
    /// Columns with observed and desired values, or the reason why it is blocked.
    pub detail: String,
}

/// Result of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// The first differences, grouped by load balancer; at most 1000.
    pub differences: Vec<Difference>,
    /// Number of differences.
    pub total: usize,
    /// Number of load balancers that were compared.
    pub load_balancers: usize,
    /// Number of load balancers and networks that wait to be carried out.
    pub waiting: usize,
    /// State of the connection to the northbound database.
    pub northbound: String,
    /// Features that the connected OVN lacks or cannot keep, and their consequences.
    pub lacking: Vec<String>,
}

impl UseCases {
    /// Compares the northbound database with the desired state.
    ///
    /// # Errors
    /// As [`Reconciliation::verify`].
    pub async fn verify(&self, principal: &Principal) -> Result<Verification, ApiError> {
        authorize(principal, Verb::Get, Object::Northbound, None)
            .map_err(|_| ApiError::new(ErrorReason::NotFound, "there is no such database"))?;
        self.on().reconciliation.verify().await
    }
}
