//! Watch: the current state, then changes.
//!
//! Level-triggered: a change of a tree renders its resources again, and those that differ from the last
//! version sent to this watcher are sent. A slow reader may miss intermediate values but always gets the
//! latest, and the state kept for it is bounded by what it watches.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{broadcast, mpsc};
use uuid::Uuid;

use super::api_kind::ApiKind;
use super::error::{ApiError, ErrorReason};
use super::use_cases::{UseCases, may};
use super::view::{Observed, TreeView};
use crate::auth::{Principal, Verb};
use crate::catalog::ModelNotice;
use crate::metrics::Metrics;
use crate::resources::{Kind, LoadBalancer, Tree, every_kind, with_kinds};

/// Events queued for a slow reader; beyond that, its watch waits.
const WAITING: usize = 64;

/// Kind of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchChange {
    /// A resource as it was when the watch began.
    Snapshot,
    /// All such resources have been sent.
    Synced,
    /// A new resource.
    Created,
    /// A changed resource or status.
    Updated,
    /// A resource that is gone, as it was last.
    Deleted,
}

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct WatchEvent {
    /// Kind of it.
    pub change: WatchChange,
    /// The resource; `None` for [`WatchChange::Synced`].
    pub resource: Option<AnyObserved>,
}

/// The events of one watch, which ends when the receiver is dropped.
pub type WatchEvents = mpsc::Receiver<WatchEvent>;

/// Declares the sum of all kinds.
macro_rules! any_observed {
    ($($kind:ident),*) => {
        /// A resource of any kind, with its status.
        #[derive(Clone, Debug, PartialEq)]
        pub enum AnyObserved {
            $(
                /// One of this kind.
                $kind(Observed<crate::resources::$kind>),
            )*
        }

        $(
            impl From<Observed<crate::resources::$kind>> for AnyObserved {
                fn from(observed: Observed<crate::resources::$kind>) -> Self {
                    Self::$kind(observed)
                }
            }
        )*
    };
}
with_kinds!(any_observed);

impl UseCases {
    /// Follows one load balancer with all that is below it, or all that the principal may see.
    ///
    /// # Errors
    /// It does not exist, or too many watches are open.
    pub fn watch(&self, principal: Principal, load_balancer: Option<Uuid>) -> Result<WatchEvents, ApiError> {
        // First, so that nothing happens unseen between the look and the watch.
        let notices = self.on().model.subscribe();
        if let Some(id) = load_balancer {
            self.find::<LoadBalancer>(&principal, Verb::Watch, id)?;
        }
        let open = Open::new(self)?;
        let (sender, receiver) = mpsc::channel(WAITING);
        let (cases, only, sent) = (self.clone(), load_balancer, HashMap::new());
        let watcher = Watcher { cases, principal, only, sent, sender, _open: open };
        tokio::spawn(watcher.run(notices));
        Ok(receiver)
    }
}

/// One of the watches that may be open at the same time.
struct Open {
    count: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

impl Open {
    fn new(cases: &UseCases) -> Result<Self, ApiError> {
        let (count, most) = (Arc::clone(&cases.0.watches), cases.limits().watches);
        if count.fetch_add(1, Ordering::Relaxed) >= most {
            count.fetch_sub(1, Ordering::Relaxed);
            let text = format!("watches: at most {most} at the same time");
            return Err(ApiError::new(ErrorReason::LimitExceeded, text));
        }
        let metrics = Arc::clone(&cases.on().metrics);
        metrics.watches.inc();
        Ok(Self { count, metrics })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.metrics.watches.dec();
    }
}

/// The reader went away.
struct Gone;

struct Watcher {
    cases: UseCases,
    principal: Principal,
    only: Option<Uuid>,
    /// The version of each tree that was last sent. Trees are shared with the model, so this costs little.
    sent: HashMap<Uuid, TreeView>,
    sender: mpsc::Sender<WatchEvent>,
    _open: Open,
}

impl Watcher {
    async fn run(mut self, mut notices: broadcast::Receiver<ModelNotice>) {
        // A reader that went away ends the watch; nobody is left to notify.
        let _ = self.events(&mut notices).await;
    }

    async fn events(&mut self, notices: &mut broadcast::Receiver<ModelNotice>) -> Result<(), Gone> {
        self.everything(WatchChange::Snapshot).await?;
        self.send(WatchChange::Synced, None).await?;
        while !self.is_over() {
            let notice = tokio::select! {
                notice = notices.recv() => notice,
                () = self.sender.closed() => return Err(Gone),
            };
            match notice {
                Ok(ModelNotice::Specification(id) | ModelNotice::Observation(id)) => {
                    self.tree(id, WatchChange::Created).await?;
                }
                Err(broadcast::error::RecvError::Lagged(_)) => self.everything(WatchChange::Created).await?,
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            }
        }
        Ok(())
    }

    /// True once the one load balancer that is watched is gone.
    fn is_over(&self) -> bool {
        self.only.is_some_and(|id| !self.sent.contains_key(&id))
    }

    async fn everything(&mut self, new: WatchChange) -> Result<(), Gone> {
        let ids: BTreeSet<Uuid> = match self.only {
            Some(id) => [id].into(),
            None => {
                self.cases.on().model.load_balancers().into_iter().chain(self.sent.keys().copied()).collect()
            }
        };
        for id in ids {
            self.tree(id, new).await?;
        }
        Ok(())
    }

    /// Sends the resources of a tree that differ from the last version sent.
    async fn tree(&mut self, id: Uuid, new: WatchChange) -> Result<(), Gone> {
        if self.only.is_some_and(|only| only != id) {
            return Ok(());
        }
        let may_watch = |tree: &Arc<Tree>| may::<LoadBalancer>(&self.principal, Verb::Watch, tree);
        let tree = self.cases.on().model.tree(id).filter(may_watch);
        let view = tree.map(|tree| self.cases.view(tree));
        let now = view.as_ref().map(resources).unwrap_or_default();
        let before: HashMap<(Kind, Uuid), AnyObserved> =
            self.sent.remove(&id).map(|view| resources(&view).into_iter().collect()).unwrap_or_default();
        for (key, resource) in &now {
            match before.get(key) {
                Some(sent) if sent == resource => {}
                Some(_) => self.send(WatchChange::Updated, Some(resource.clone())).await?,
                None => self.send(new, Some(resource.clone())).await?,
            }
        }
        let present: BTreeSet<(Kind, Uuid)> = now.iter().map(|(key, _)| *key).collect();
        for (_, resource) in before.into_iter().filter(|(key, _)| !present.contains(key)) {
            self.send(WatchChange::Deleted, Some(resource)).await?;
        }
        self.sent.extend(view.map(|view| (id, view)));
        Ok(())
    }

    async fn send(&self, change: WatchChange, resource: Option<AnyObserved>) -> Result<(), Gone> {
        self.sender.send(WatchEvent { change, resource }).await.map_err(|_| Gone)
    }
}

/// All resources of a tree, parents before their children.
fn resources(view: &TreeView) -> Vec<((Kind, Uuid), AnyObserved)> {
    fn of_kind<T: ApiKind>(view: &TreeView) -> impl Iterator<Item = ((Kind, Uuid), AnyObserved)>
    where
        AnyObserved: From<Observed<T>>,
    {
        T::records(&view.tree).map(|record| ((T::KIND, record.id), view.observed(record).into()))
    }
    let mut all = Vec::new();
    every_kind!(T => all.extend(of_kind::<T>(view)));
    all
}
