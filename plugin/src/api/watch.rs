//! Watch: the current state, then changes.
//!
//! Level-triggered: after a change of a tree the resources that differ from the last version sent to this watcher
//! are sent. What differs is found once for all watchers that have sent the same version. A slow reader may miss
//! intermediate values but always gets the
//! latest, and the state kept for it is bounded by what it watches.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::broadcast;
use uuid::Uuid;

use super::differences::{DifferenceWay, ResourceDifference};
use super::error::ApiError;
use super::events::{EventSender, Events, Gone, events};
use super::use_cases::{UseCases, may};
use super::view::{Observed, TreeView};
use crate::auth::{Principal, Verb};
use crate::catalog::ModelNotice;
use crate::metrics::Metrics;
use crate::resources::{LoadBalancer, Tree, with_kinds};

/// Events queued for a slow reader; beyond that, its watch waits.
const WAITING: usize = 64;

/// Interval of looks for a change of what carrying out waits for, which is part of statuses and changes no tree.
const LOOK: Duration = Duration::from_secs(1);

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

/// The events of one watch, which ends when this is dropped.
pub type WatchEvents = Events<WatchEvent>;

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

        #[cfg(test)]
        impl AnyObserved {
            /// Kind of the resource.
            pub(super) fn kind(&self) -> crate::resources::Kind {
                match self {
                    $(Self::$kind(_) => crate::resources::Kind::$kind,)*
                }
            }
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
        let open = OpenWatch::new(self, &principal)?;
        let (sender, events) = events(WAITING);
        let (cases, only, sent) = (self.clone(), load_balancer, HashMap::new());
        let watcher = Watcher { cases, principal, only, sent, sender, _open: open };
        tokio::spawn(watcher.run(notices));
        Ok(events)
    }
}

/// Number of open watches, by organisation and project.
pub(super) type OpenWatches = HashMap<(String, String), usize>;

/// One of the watches that may be open at the same time.
pub(super) struct OpenWatch {
    all: Arc<Mutex<OpenWatches>>,
    project: (String, String),
    metrics: Arc<Metrics>,
}

impl OpenWatch {
    pub(super) fn new(cases: &UseCases, principal: &Principal) -> Result<Self, ApiError> {
        let all = Arc::clone(&cases.0.watches);
        let project = (principal.org_id.clone(), principal.project_id.clone());
        let limits = cases.limits();
        {
            let mut open = all.lock().unwrap_or_else(PoisonError::into_inner);
            let own = open.get(&project).copied().unwrap_or_default();
            let total: usize = open.values().sum();
            for (name, count, most) in
                [("watches", total, limits.watches), ("watches_per_project", own, limits.watches_per_project)]
            {
                if count >= most {
                    let text = format!("{name}: at most {most} at the same time");
                    return Err(ApiError::limit(name, text));
                }
            }
            open.insert(project.clone(), own + 1);
        }
        let metrics = Arc::clone(&cases.on().metrics);
        metrics.watches.inc();
        Ok(Self { all, project, metrics })
    }
}

impl Drop for OpenWatch {
    fn drop(&mut self) {
        let mut open = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        match open.get_mut(&self.project) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(open.remove(&self.project)),
        }
        self.metrics.watches.dec();
    }
}

struct Watcher {
    cases: UseCases,
    principal: Principal,
    only: Option<Uuid>,
    /// The version of each tree that was last sent. Trees are shared with the model, so this costs little.
    sent: HashMap<Uuid, TreeView>,
    sender: EventSender<WatchEvent>,
    _open: OpenWatch,
}

impl Watcher {
    async fn run(mut self, mut notices: broadcast::Receiver<ModelNotice>) {
        // A reader that went away ends the watch; nobody is left to notify.
        let _ = self.events(&mut notices).await;
    }

    async fn events(&mut self, notices: &mut broadcast::Receiver<ModelNotice>) -> Result<(), Gone> {
        let waiting_for = |watcher: &Self| watcher.cases.on().reconciliation.waiting_for();
        let mut waiting = waiting_for(self);
        self.everything(WatchChange::Snapshot).await?;
        self.send(WatchChange::Synced, None).await?;
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !self.is_over() {
            let notice = tokio::select! {
                notice = notices.recv() => notice,
                _ = look.tick() => {
                    let now = waiting_for(self);
                    if now != waiting {
                        waiting = now;
                        self.everything(WatchChange::Created).await?;
                    }
                    continue;
                }
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
        let before = self.sent.remove(&id);
        let differences = self.cases.0.differences.between(before.as_ref(), view.as_ref());
        for ResourceDifference { way, resource } in differences.iter() {
            let change = match way {
                DifferenceWay::New => new,
                DifferenceWay::Changed => WatchChange::Updated,
                DifferenceWay::Gone => WatchChange::Deleted,
            };
            self.send(change, Some(resource.clone())).await?;
        }
        self.sent.extend(view.map(|view| (id, view)));
        Ok(())
    }

    async fn send(&self, change: WatchChange, resource: Option<AnyObserved>) -> Result<(), Gone> {
        self.sender.send(WatchEvent { change, resource }).await
    }
}
