//! Random sequences of writes, observations, publications, changes of leader and restarts: what users are shown never
//! goes back.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::datapath::{Carrier, Decision};
use crate::resources::examples::{BACKENDS, LISTENER, LOAD_BALANCER, tree};
use crate::resources::{Backend, Listener, LoadBalancer, Record, Resource, every_kind, transaction};
use crate::status::{ApplyFailure, Carried, HasStatus, Liveness, Observation, PlacedNode, Proxied, Statuses};
use fiberlb_store::MemoryStore;

/// One thing that happens.
#[derive(Clone, Debug)]
enum Step {
    /// A resource is changed.
    Write(u8),
    /// The leader plans; what it plans it observes later.
    Plan,
    /// The leader applies what it planned last; so many generations of the listener behind, proxies serve it, or none.
    Apply { served: Option<u64> },
    /// The leader cannot carry the listener.
    Refuse,
    /// The leader fails.
    Fail,
    /// The leader publishes.
    Publish,
    /// Another plugin leads; the former one has published before, or not, and reads what is published.
    Elect { orderly: bool },
    /// A plugin stops in order, and starts again.
    Restart(bool),
    /// A plugin that follows has missed changes, and reads everything anew.
    Reload,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..4u8).prop_map(Step::Write),
        4 => Just(Step::Plan),
        4 => prop::option::of(0..3u64).prop_map(|served| Step::Apply { served }),
        1 => Just(Step::Refuse),
        1 => Just(Step::Fail),
        3 => Just(Step::Publish),
        1 => any::<bool>().prop_map(|orderly| Step::Elect { orderly }),
        2 => any::<bool>().prop_map(Step::Restart),
        1 => Just(Step::Reload),
    ];
    prop::collection::vec(step, 1..60)
}

/// A plugin, with the generations that it has shown, by resource: stored and observed.
struct Replica {
    model: Arc<Model>,
    shown: BTreeMap<Uuid, (u64, u64)>,
    /// It lost the lead before it had published, and alone knows what it has shown.
    has_lost: bool,
}

struct Site {
    store: Arc<MemoryStore>,
    leader: Replica,
    follower: Replica,
    publisher: Publisher,
    planned: Option<Arc<Tree>>,
}

async fn plugin(store: &Arc<MemoryStore>) -> Arc<Model> {
    let model = Arc::new(Model::load(&**store).await.unwrap());
    let (followed, source) = (Arc::clone(&model), Arc::clone(store));
    tokio::spawn(async move { followed.follow(&*source).await });
    model
}

async fn publisher(store: &Arc<MemoryStore>, model: &Arc<Model>) -> Publisher {
    Publisher::new(Arc::clone(model), Arc::clone(store) as _, None).await.unwrap()
}

impl Site {
    async fn new() -> Self {
        let store = Arc::new(MemoryStore::default());
        store.commit(transaction(None, Some(&tree())).unwrap()).await.unwrap();
        let replica = |model| Replica { model, shown: BTreeMap::new(), has_lost: false };
        let (leader, follower) = (replica(plugin(&store).await), replica(plugin(&store).await));
        leader.model.lead(true);
        let publisher = publisher(&store, &leader.model).await;
        Self { store, leader, follower, publisher, planned: None }
    }

    fn tree(&self) -> Arc<Tree> {
        self.leader.model.tree(LOAD_BALANCER).unwrap()
    }

    async fn step(&mut self, step: &Step) {
        match step {
            Step::Write(which) => self.write(*which).await,
            Step::Plan => self.planned = Some(self.tree()),
            Step::Apply { served } => {
                if let Some(applied) = self.planned.clone() {
                    let carried = Arc::new(carried(&applied, *served));
                    self.observe(Observation { applied: Some(applied), carried, ..Observation::default() });
                }
            }
            Step::Refuse => {
                let refused = [(LISTENER, "no".to_owned())].into();
                let carried = Arc::new(Carried { refused, ..Carried::default() });
                self.planned = Some(self.tree());
                let applied = self.planned.clone();
                self.observe(Observation { applied, carried, ..Observation::default() });
            }
            Step::Fail => {
                let failure = Some(ApplyFailure {
                    reason: "refused".to_owned(),
                    next_attempt_at: 1,
                    scope: crate::status::FailureScope::Changes,
                });
                let before = self.leader.model.observation(LOAD_BALANCER);
                self.observe(Observation { failure, ..Observation::clone(&before) });
            }
            Step::Publish => self.publisher.publish().await.unwrap(),
            Step::Elect { orderly } => {
                if *orderly {
                    self.publisher.publish().await.unwrap();
                } else {
                    self.leader.has_lost = true;
                }
                self.leader.model.lead(false);
                std::mem::swap(&mut self.leader, &mut self.follower);
                self.follower.model.reload(&*self.store).await.unwrap();
                self.lead().await;
            }
            Step::Restart(leader) => {
                self.publisher.publish().await.unwrap();
                let restarted = if *leader { &mut self.leader } else { &mut self.follower };
                restarted.model = plugin(&self.store).await;
                if std::mem::take(&mut restarted.has_lost) {
                    restarted.shown.clear();
                }
                if *leader {
                    self.lead().await;
                }
            }
            Step::Reload => self.follower.model.reload(&*self.store).await.unwrap(),
        }
        self.catch_up().await;
    }

    /// Waits until both plugins show all that is stored.
    async fn catch_up(&self) {
        let revision = self.store.snapshot("").await.unwrap().revision();
        self.leader.model.reached(revision).await;
        self.follower.model.reached(revision).await;
    }

    async fn lead(&mut self) {
        self.catch_up().await;
        self.leader.model.lead(true);
        self.publisher = publisher(&self.store, &self.leader.model).await;
        self.planned = None;
    }

    fn observe(&self, observation: Observation) {
        self.leader.model.observe(LOAD_BALANCER, observation);
    }

    async fn write(&self, which: u8) {
        fn change<T: Resource>(tree: &mut Tree, id: Uuid) {
            let record = T::find_mut(tree, id).unwrap();
            *record = Arc::new(record.changed(record.spec.clone()));
        }
        let before = self.tree();
        let mut after = Tree::clone(&before);
        match which {
            0 => change::<LoadBalancer>(&mut after, LOAD_BALANCER),
            1 => change::<Listener>(&mut after, LISTENER),
            number => change::<Backend>(&mut after, BACKENDS[usize::from(number) - 2]),
        }
        self.store.commit(transaction(Some(&before), Some(&after)).unwrap()).await.unwrap();
    }
}

/// The listener on proxies, of which one serves it, so many generations behind; or on OVN.
fn carried(tree: &Tree, behind: Option<u64>) -> Carried {
    let mut carried = Carried::default();
    if let Some(behind) = behind {
        let generation = tree.listeners[&LISTENER].generation.saturating_sub(behind);
        let decision = Decision { carrier: Carrier::Proxy, reason: "a limit".into() };
        carried.decisions = [(LISTENER, decision)].into();
        let results = [("n1".to_owned(), Ok(generation))].into();
        carried.view.proxied = [(LISTENER, Proxied { results, ..Proxied::default() })].into();
        carried.view.nodes = vec![PlacedNode {
            id: "n1".to_owned(),
            port_name: "port".to_owned(),
            hosts: Vec::new(),
            liveness: Liveness::Alive,
            draining: false,
            trouble: None,
        }];
    }
    carried
}

impl Replica {
    /// Shows all resources, and checks that no generation has gone back.
    fn show(&mut self, after: &Step) {
        fn of<T: HasStatus>(statuses: &Statuses<'_>, tree: &Tree) -> Vec<(Uuid, (u64, u64))> {
            let records = T::records(tree);
            let seen = |record: &Arc<Record<T>>| {
                (record.generation, T::status(statuses, record).observed_generation)
            };
            records.map(|record| (record.id, seen(record))).collect()
        }
        let tree = self.model.tree(LOAD_BALANCER).unwrap();
        let observation = self.model.observation(LOAD_BALANCER);
        let statuses = Statuses::new(&tree, &observation, None);
        let mut now = Vec::new();
        every_kind!(T => now.extend(of::<T>(&statuses, &tree)));
        for (id, (generation, observed)) in now {
            let before = self.shown.insert(id, (generation, observed)).unwrap_or_default();
            assert!(
                before.0 <= generation && before.1 <= observed,
                "{id} after {after:?}: {before:?} {observed}"
            );
            assert!(observed <= generation);
        }
    }
}

proptest! {
    #[test]
    fn generations_never_go_back(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut site = Site::new().await;
            for step in &steps {
                site.step(step).await;
                site.leader.show(step);
                site.follower.show(step);
            }
        });
    }
}
