//! Current leader according to the store.

use std::time::Duration;

use super::LeaderRecord;
use crate::resources::leader_key;
use fiberlb_store::{Entry, Revision, Store, StoreError};

/// Pause before the store is queried again after a failure.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// Logs the current leader.
pub(super) fn log_leader(leader: Option<&LeaderRecord>) {
    match leader {
        Some(LeaderRecord { plugin, host, .. }) => {
            tracing::info!(%plugin, host, "another plugin is leader; following it");
        }
        None => tracing::warn!("unreadable record of a leader, probably of a newer release; following it"),
    }
}

/// Value under the leader's key, and the revision at which it was read; retries until the store answers.
pub(super) async fn leader(store: &dyn Store) -> (Option<Entry>, Revision) {
    loop {
        match try_leader(store).await {
            Ok(found) => return found,
            Err(error) => tracing::warn!(%error, "failed to read the leader from the store; retrying"),
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

/// Waits until the key may have changed since `revision`.
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

/// Waits until this plugin's leader key is gone, as when somebody deleted it by hand.
pub(super) async fn deposed(store: &dyn Store, revision: Revision) {
    loop {
        let (entry, seen) = leader(store).await;
        if entry.is_none_or(|entry| entry.revision != revision) {
            return;
        }
        await_news(store, seen).await;
    }
}
