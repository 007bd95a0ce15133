//! Fencing token that keeps a former leader from writing to the northbound database.

use std::sync::Arc;
use std::time::Duration;

use fiberlb_northbound::Northbound;
use fiberlb_northbound::plan::Installation;
use fiberlb_northbound::plan::fence::{self, FenceError};
use ovsdb::client::Client;
use ovsdb::error::TransactError;
use ovsdb::operation::Operation;

use crate::resources::leader_key;
use fiberlb_store::{Revision, Store, StoreError};

/// Attempts at raising the fence while others change the same column.
const ATTEMPTS: usize = 20;
/// Pause for the replica to show why the database refused to raise the fence.
const PAUSE: Duration = Duration::from_millis(20);

/// Fencing token for one leadership term; no two plugins hold the same term.
pub struct Fence {
    installation: Installation,
    store: Arc<dyn Store>,
    /// Revision of the leader's key in the store.
    elected: Revision,
    /// Term that the fence was raised to; `None`: not raised yet.
    term: Option<u64>,
    /// Last term that was abandoned.
    abandoned: Option<u64>,
}

/// Reason why nothing may be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum FencedOff {
    /// Leadership is lost.
    #[error("another plugin leads")]
    Deposed,
    /// The leader is unknown.
    #[error("it is not known whether this plugin still leads: {0}")]
    Store(#[from] StoreError),
    /// The database refused to raise the fence.
    #[error("the fence in the northbound database cannot be raised: {0}")]
    Northbound(TransactError),
    /// `NB_Global` has no row to hold the fence.
    #[error(transparent)]
    Fence(FenceError),
    /// Others keep changing the same column.
    #[error(
        "external_ids of NB_Global was changed by somebody else each time that the fence was to be raised"
    )]
    Busy,
}

impl Fence {
    /// Fence of a leader whose key has the revision `elected` in the store.
    pub fn new(installation: Installation, store: Arc<dyn Store>, elected: Revision) -> Self {
        Self { installation, store, elected, term: None, abandoned: None }
    }

    /// The operation that each transaction begins with.
    pub(super) fn guard(&self, nb: &Northbound) -> Operation {
        fence::guard(self.installation, self.term.unwrap_or_default(), nb)
    }

    /// Raises the fence to a term of this plugin, after which no former leader can write. A no-op where it
    /// stands there already.
    ///
    /// The term is higher than any before it, whatever store those came from. It is raised only if the
    /// store confirms, after the northbound database was read, that this plugin leads: a former leader that
    /// comes late finds either the store or `external_ids` changed.
    ///
    /// # Errors
    /// [`FencedOff`]: nothing may be written.
    pub(super) async fn raise(&mut self, northbound: &Client<Northbound>) -> Result<(), FencedOff> {
        let next = self.abandoned.map_or(self.elected.0, |term| term.saturating_add(1));
        let mut wanted = self.term.unwrap_or(next);
        for _ in 0..ATTEMPTS {
            let raised = fence::raise(self.installation, wanted, &northbound.read());
            let operations = match raised {
                Ok(None) if self.term == Some(wanted) => return Ok(()),
                Ok(None) => {
                    wanted += 1;
                    continue;
                }
                Ok(Some(operations)) => operations,
                Err(FenceError::Superseded { found }) => {
                    self.check_store().await?;
                    wanted = found.saturating_add(1);
                    continue;
                }
                Err(error) => return Err(FencedOff::Fence(error)),
            };
            self.check_store().await?;
            match northbound.transact(operations).await {
                Ok(_) => {
                    tracing::info!(term = wanted, "raised the fence in the northbound database");
                    self.term = Some(wanted);
                    return Ok(());
                }
                Err(error) if error.is_fenced() => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(FencedOff::Northbound(error)),
            }
        }
        Err(FencedOff::Busy)
    }

    /// Abandons the term; the next one is higher, so that a transaction with unknown outcome cannot be
    /// applied after newer ones.
    pub(super) fn abandon(&mut self) {
        self.abandoned = self.term.take();
    }

    async fn check_store(&self) -> Result<(), FencedOff> {
        let entry = self.store.get(&leader_key()).await?;
        if entry.is_some_and(|entry| entry.revision == self.elected) {
            Ok(())
        } else {
            Err(FencedOff::Deposed)
        }
    }
}

#[cfg(test)]
mod tests;
