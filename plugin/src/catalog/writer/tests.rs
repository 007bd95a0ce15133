mod project;
mod references;

use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::{BoxFuture, FutureExt as _};

use super::*;
use crate::resources::examples::{LOAD_BALANCER, tree};
use crate::resources::{head_key, transaction};
use fiberlb_store::{Entry, MemoryStore, Snapshot, StoreError, Transaction, Watch, WatchError};

/// A store that loses the answer of the next commit, and applies that commit or not.
struct Lossy {
    inner: Arc<MemoryStore>,
    loses: AtomicBool,
    carries_out: bool,
}

impl Store for Lossy {
    fn get(&self, key: &str) -> BoxFuture<'_, Result<Option<Entry>, StoreError>> {
        self.inner.get(key)
    }

    fn snapshot(&self, prefix: &str) -> BoxFuture<'_, Result<Snapshot, StoreError>> {
        self.inner.snapshot(prefix)
    }

    fn commit(&self, transaction: Transaction) -> BoxFuture<'_, Result<Revision, CommitError>> {
        if !self.loses.swap(false, Ordering::Relaxed) {
            return self.inner.commit(transaction);
        }
        async move {
            if self.carries_out {
                self.inner.commit(transaction).await?;
            }
            Err(CommitError::Unknown("the answer was lost".into()))
        }
        .boxed()
    }

    fn watch(&self, prefix: &str, after: Revision) -> BoxFuture<'_, Result<Watch, WatchError>> {
        self.inner.watch(prefix, after)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

fn make(_before: Option<&Tree>) -> Result<(Option<Tree>, ()), WriteError> {
    Ok((Some(tree()), ()))
}

/// A writer whose next answer is lost, and the store behind it.
async fn writer(carries_out: bool) -> (Writer, Arc<MemoryStore>) {
    let inner = Arc::new(MemoryStore::default());
    let lossy = Lossy { inner: Arc::clone(&inner), loses: AtomicBool::new(true), carries_out };
    let model = Arc::new(Model::load(&*inner).await.unwrap());
    let (followed, source) = (Arc::clone(&model), Arc::clone(&inner));
    tokio::spawn(async move { followed.follow(&*source).await });
    (Writer::new(model, Arc::new(lossy), Arc::default()), inner)
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_done_once_and_acknowledged() {
    for carries_out in [true, false] {
        let (writer, store) = writer(carries_out).await;
        let (made, ()) = writer.write(LOAD_BALANCER, make).await.unwrap();
        let head = store.get(&head_key(LOAD_BALANCER)).await.unwrap().unwrap();
        assert_eq!(head.revision, Revision(1), "once");
        assert!(is_same(writer.model.tree(LOAD_BALANCER).as_deref(), made.as_ref()));
    }
}

#[tokio::test]
async fn a_lost_write_that_another_one_followed_stays_unknown() {
    let (writer, store) = writer(true).await;
    let other = async {
        let mut revisions = writer.model.revisions();
        revisions.wait_for(|revision| *revision == Revision(1)).await.unwrap();
        let before = writer.model.tree(LOAD_BALANCER).unwrap();
        let mut changed = Tree::clone(&before);
        changed.listeners.clear();
        store.commit(transaction(Some(&before), Some(&changed)).unwrap()).await.unwrap();
    };
    let (lost, ()) = tokio::join!(writer.write(LOAD_BALANCER, make), other);
    assert!(matches!(lost, Err(WriteError::Store(CommitError::Unknown(_)))));
}

#[tokio::test]
async fn a_lock_is_of_one_id_and_is_dropped_with_its_last_holder() {
    let locks = Locks::default();
    let id = |number: u128| Uuid::from_u128(number << 8 | 7);
    let held = locks.take([Uuid::nil(), id(0)]).await;
    // They end in the same byte.
    drop(locks.take((1..=KEPT_LOCKS as u128).map(id)).await);
    assert!(locks.take([id(0)]).now_or_never().is_none());
    drop(held);
    assert!(locks.take([id(0)]).now_or_never().is_some());
    drop(locks.take((2000..2010).map(id)).await);
    assert!(locks.0.lock().unwrap().len() < KEPT_LOCKS);
}
