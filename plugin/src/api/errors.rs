//! Errors of the layers below, as gRPC statuses.

use tonic::Status;

use crate::catalog::WriteError;
use crate::store::CommitError;

impl From<WriteError> for Status {
    fn from(error: WriteError) -> Self {
        match &error {
            WriteError::Contended => Status::aborted(error.to_string()),
            WriteError::Encode { .. } => Status::internal(error.to_string()),
            WriteError::Store(failed) => status(failed),
        }
    }
}

/// Status of a call whose transaction the store did not commit, or may not have.
pub(super) fn status(error: &CommitError) -> Status {
    let text = error.to_string();
    match error {
        CommitError::Conflict { .. } => Status::aborted(text),
        CommitError::Invalid(_) | CommitError::Full(_) => Status::resource_exhausted(text),
        CommitError::Unavailable(_) => Status::unavailable(text),
        CommitError::Unknown(_) => Status::unknown(text),
    }
}
