//! Watch: the current state, then changes.
//!
//! Level-triggered: a change of a tree renders its resources again, and those that differ from the last
//! version sent to this watcher are sent. A slow reader may miss intermediate values but always gets the
//! latest, and the state kept for it is bounded by what it watches.

use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fiberlb_proto::v1;
use fiberlb_proto::v1::watch_event::{Resource as Wire, Type};
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use uuid::Uuid;

use super::Api;
use super::edit::Exposed;
use super::principal::Principal;
use super::render::View;
use crate::catalog::ModelNotice;
use crate::metrics::Metrics;
use crate::resources::{Kind, each_kind};

/// Events queued for a slow reader; beyond that, its watch waits.
const WAITING: usize = 64;

/// The events of one watch.
pub(super) type Events = Pin<Box<ReceiverStream<Result<v1::WatchEvent, Status>>>>;

impl Api {
    pub(super) fn open_watch(&self, principal: Principal, load_balancer: &str) -> Result<Events, Status> {
        let only = match load_balancer {
            "" => None,
            id => Some(self.root(&principal, id)?.id()),
        };
        let open = Open::new(self)?;
        let (sender, receiver) = mpsc::channel(WAITING);
        let notices = self.0.model.subscribe();
        let watcher =
            Watcher { api: self.clone(), principal, only, sent: HashMap::new(), sender, _open: open };
        tokio::spawn(watcher.run(notices));
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }
}

/// One of the watches that may be open at the same time.
struct Open {
    count: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

impl Open {
    fn new(api: &Api) -> Result<Self, Status> {
        let (count, most) = (Arc::clone(&api.0.watches), api.0.limits.watches);
        if count.fetch_add(1, Ordering::Relaxed) >= most {
            count.fetch_sub(1, Ordering::Relaxed);
            return Err(Status::resource_exhausted(format!("watches: at most {most} at the same time")));
        }
        api.0.metrics.watches.inc();
        Ok(Self { count, metrics: Arc::clone(&api.0.metrics) })
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
    api: Api,
    principal: Principal,
    only: Option<Uuid>,
    /// The version of each tree that was last sent. Trees are shared with the model, so this costs little.
    sent: HashMap<Uuid, View>,
    sender: mpsc::Sender<Result<v1::WatchEvent, Status>>,
    _open: Open,
}

impl Watcher {
    async fn run(mut self, mut notices: broadcast::Receiver<ModelNotice>) {
        // A reader that went away ends the watch; nobody is left to notify.
        let _ = self.events(&mut notices).await;
    }

    async fn events(&mut self, notices: &mut broadcast::Receiver<ModelNotice>) -> Result<(), Gone> {
        self.everything(Type::Snapshot).await?;
        self.send(Type::Synced, None).await?;
        loop {
            let notice = tokio::select! {
                notice = notices.recv() => notice,
                () = self.sender.closed() => return Err(Gone),
            };
            match notice {
                Ok(ModelNotice::Specification(id) | ModelNotice::Observation(id)) => {
                    self.tree(id, Type::Created).await?;
                }
                Err(broadcast::error::RecvError::Lagged(_)) => self.everything(Type::Created).await?,
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            }
            if self.only.is_some_and(|id| !self.sent.contains_key(&id)) {
                return Ok(());
            }
        }
    }

    async fn everything(&mut self, new: Type) -> Result<(), Gone> {
        let ids: BTreeSet<Uuid> = match self.only {
            Some(id) => [id].into(),
            None => self.api.0.model.load_balancers().into_iter().chain(self.sent.keys().copied()).collect(),
        };
        for id in ids {
            self.tree(id, new).await?;
        }
        Ok(())
    }

    /// Sends the resources of a tree that differ from the last version sent.
    async fn tree(&mut self, id: Uuid, new: Type) -> Result<(), Gone> {
        if self.only.is_some_and(|only| only != id) {
            return Ok(());
        }
        let tree = self.api.0.model.tree(id).filter(|tree| self.principal.sees(&tree.load_balancer.spec));
        let view = tree.map(|tree| self.api.view(tree));
        let now = view.as_ref().map(render).unwrap_or_default();
        let before: HashMap<(Kind, Uuid), Wire> =
            self.sent.remove(&id).map(|view| render(&view).into_iter().collect()).unwrap_or_default();
        for (key, wire) in &now {
            match before.get(key) {
                Some(sent) if sent == wire => {}
                Some(_) => self.send(Type::Updated, Some(wire.clone())).await?,
                None => self.send(new, Some(wire.clone())).await?,
            }
        }
        let present: BTreeSet<(Kind, Uuid)> = now.iter().map(|(key, _)| *key).collect();
        for (_, wire) in before.into_iter().filter(|(key, _)| !present.contains(key)) {
            self.send(Type::Deleted, Some(wire)).await?;
        }
        self.sent.extend(view.map(|view| (id, view)));
        Ok(())
    }

    async fn send(&self, r#type: Type, resource: Option<Wire>) -> Result<(), Gone> {
        let event = v1::WatchEvent { r#type: r#type.into(), resource };
        self.sender.send(Ok(event)).await.map_err(|_| Gone)
    }
}

/// All resources of a tree, parents before their children.
fn render(view: &View) -> Vec<((Kind, Uuid), Wire)> {
    fn below<T: Exposed>(view: &View, all: &mut Vec<((Kind, Uuid), Wire)>) {
        let wires = T::of(&view.tree).values().map(|record| T::event(T::render(view, record)));
        all.extend(T::of(&view.tree).keys().map(|id| (T::KIND, *id)).zip(wires));
    }
    let root = (Kind::LoadBalancer, view.tree.id());
    let mut all = vec![(root, Wire::LoadBalancer(view.load_balancer()))];
    each_kind!(T => below::<T>(view, &mut all));
    all
}
