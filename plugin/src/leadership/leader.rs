//! Who leads, as the store tells.

use std::time::Duration;

use super::LeaderRecord;
use crate::resources::leader_key;
use crate::store::{Entry, Revision, Store, StoreError};

/// Wait before the store is asked again, when it did not answer.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// Says who leads.
pub(super) fn tell(leader: Option<&LeaderRecord>) {
    match leader {
        Some(LeaderRecord { plugin, host, .. }) => {
            tracing::info!(%plugin, host, "another plugin leads; this one serves the API");
        }
        None => tracing::warn!("a newer plugin leads, whom this one does not understand; it serves the API"),
    }
}

/// What the plugin that leads has put under its key, and the revision at which that is so; waits while the store does not
/// answer.
pub(super) async fn leader(store: &dyn Store) -> (Option<Entry>, Revision) {
    loop {
        match try_leader(store).await {
            Ok(found) => return found,
            Err(error) => tracing::warn!(%error, "the store does not say who leads; asking again"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

pub(super) async fn try_leader(store: &dyn Store) -> Result<(Option<Entry>, Revision), StoreError> {
    let snapshot = store.snapshot(&leader_key()).await?;
    let revision = snapshot.revision();
    let entry = snapshot.collect().await?.into_iter().find(|entry| entry.key == leader_key());
    Ok((entry, revision))
}

/// Waits until the key may be another one than at `revision`.
pub(super) async fn await_news(store: &dyn Store, revision: Revision) {
    match store.watch(&leader_key(), revision).await {
        Ok(mut watch) => {
            if watch.next().await.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
        }
        Err(_) => tokio::time::sleep(PAUSE).await,
    }
}

/// Waits until the key is not the one of this plugin any more, as when somebody removed it by hand.
pub(super) async fn deposed(store: &dyn Store, tenure: Revision) {
    loop {
        let (entry, seen) = leader(store).await;
        if entry.is_none_or(|entry| entry.revision != tenure) {
            return;
        }
        await_news(store, seen).await;
    }
}
