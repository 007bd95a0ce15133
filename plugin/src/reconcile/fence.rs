//! What keeps a plugin that leads no more from writing to the northbound database.

use std::sync::Arc;
use std::time::Duration;

use fiberlb_ovn::nb::Northbound;
use fiberlb_ovn::ovsdb::client::Client;
use fiberlb_ovn::ovsdb::error::TransactError;
use fiberlb_ovn::ovsdb::operation::Operation;
use fiberlb_ovn::plan::Installation;
use fiberlb_ovn::plan::fence::{self, FenceError};

use crate::resources::leader_key;
use crate::store::{Revision, Store, StoreError};

/// Attempts at raising the fence while others change the same column.
const ATTEMPTS: usize = 20;
/// Wait for the replica to show why the database refused to raise it.
const PAUSE: Duration = Duration::from_millis(20);

/// The fence of one time of leading: none of two plugins' can stand at the same term.
pub struct Fence {
    installation: Installation,
    store: Arc<dyn Store>,
    tenure: Revision,
    /// The term that the fence was raised to; `None`: it was not yet.
    term: Option<u64>,
    /// The last one that was given up.
    abandoned: Option<u64>,
}

/// Why nothing may be written.
#[derive(Debug, thiserror::Error)]
pub(super) enum FencedOff {
    /// Another plugin leads.
    #[error("another plugin leads")]
    Deposed,
    /// It is not known who leads.
    #[error("it is not known whether this plugin still leads: {0}")]
    Store(#[from] StoreError),
    /// The fence cannot be raised now.
    #[error("the fence in the northbound database cannot be raised: {0}")]
    Northbound(TransactError),
    /// There is nothing to put it on.
    #[error(transparent)]
    Fence(FenceError),
    /// Somebody writes there all the time.
    #[error(
        "external_ids of NB_Global was changed by somebody else each time that the fence was to be raised"
    )]
    Busy,
}

impl Fence {
    /// The fence of a plugin that leads since revision `tenure` of the store, when it put its name there.
    pub fn new(installation: Installation, store: Arc<dyn Store>, tenure: Revision) -> Self {
        Self { installation, store, tenure, term: None, abandoned: None }
    }

    /// The operation that each transaction begins with.
    pub(super) fn guard(&self, nb: &Northbound) -> Operation {
        fence::guard(self.installation, self.term.unwrap_or_default(), nb)
    }

    /// Sees to it that the fence stands at a term of ours: from then on nobody who led before can write. It costs nothing
    /// where it does.
    ///
    /// The term is higher than any before it, whatever store these came from; and it is raised only where the store says,
    /// after the northbound database was looked at, that this plugin leads. One that led before and comes late so finds
    /// either the store or `external_ids` changed.
    ///
    /// # Errors
    /// [`FencedOff`]: nothing may be written.
    pub(super) async fn raise(&mut self, northbound: &Client<Northbound>) -> Result<(), FencedOff> {
        let next = self.abandoned.map_or(self.tenure.0, |term| term.saturating_add(1));
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
                    tracing::info!(
                        term = wanted,
                        "the northbound database takes writes of this plugin alone from now on"
                    );
                    self.term = Some(wanted);
                    return Ok(());
                }
                Err(error) if error.is_fenced() => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(FencedOff::Northbound(error)),
            }
        }
        Err(FencedOff::Busy)
    }

    /// Gives the term up: the next one is higher, so that a transaction whose outcome is unknown cannot come after newer ones.
    pub(super) fn abandon(&mut self) {
        self.abandoned = self.term.take();
    }

    async fn check_store(&self) -> Result<(), FencedOff> {
        let entry = self.store.get(&leader_key()).await?;
        if entry.is_some_and(|entry| entry.revision == self.tenure) {
            Ok(())
        } else {
            Err(FencedOff::Deposed)
        }
    }
}
