//! Maps errors of the cluster to those of the store.

use chainfire_client::Error;

use super::super::{CommitError, StoreError};

pub(super) fn store(error: &Error) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

pub(super) fn commit(error: Error) -> CommitError {
    match error {
        Error::Unknown(reason) => CommitError::Unknown(reason),
        Error::NoSpace(reason) => CommitError::Full(format!(
            "{reason}; compact and defragment the cluster's database, raise its quota, then disarm the alarm"
        )),
        error @ Error::TooLarge(_) => CommitError::Invalid(error.to_string()),
        error => CommitError::Unavailable(error.to_string()),
    }
}
