//! The loop between a store and a northbound database, both in memory, under tokio's paused clock.

use std::sync::Mutex;

use fiberlb_northbound::Northbound;
use fiberlb_northbound::plan::OWNER_KEY;
use ovsdb::client::Client;
use ovsdb::client::double::{Double, Fate};
use ovsdb::error::DatabaseError;
use ovsdb::operation::Operation;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::*;
use crate::catalog::Model;
use crate::fleet::{Fleet, FleetSettings};
use crate::reconcile::examples::{
    INSTALLATION, balancer, columns, database, id, inserted, model, row, write,
};
use crate::resources::examples::NETWORK;
use crate::resources::{LoadBalancer, Tree};
use fiberlb_store::{SharedStore, Store, StoreFault};

mod deletion;
mod fenced;
mod forms;
mod outcomes;
mod refusals;

/// Longer than any wait of the loop.
const LONG: Duration = Duration::from_secs(120);

/// A store, a northbound database, and what the loop works with.
struct World {
    store: SharedStore,
    /// The purge's connection to the store.
    purge_store: SharedStore,
    model: Arc<Model>,
    database: Double<Northbound>,
    northbound: Client<Northbound>,
    events: Option<mpsc::UnboundedReceiver<Event<Change>>>,
    metrics: Arc<Metrics>,
}

/// A running loop.
struct Running {
    ended: JoinHandle<Ended>,
    stop: oneshot::Sender<()>,
}

impl World {
    async fn new() -> Self {
        let store = SharedStore::default();
        let model = model(Arc::new(store.clone())).await;
        let database = database();
        let (northbound, events) = database.client(Northbound::new(OWNER_KEY));
        let (purge_store, events, metrics) = (store.connection(), Some(events), Arc::default());
        Self { store, purge_store, model, database, northbound, events, metrics }
    }

    /// A world with a running loop that has applied the load balancer 1.
    async fn with_one() -> (Self, Running) {
        let mut world = Self::new().await;
        let running = world.start().await;
        world.add(1).await;
        (world, running)
    }

    /// Writes a new load balancer, and waits until it is applied.
    async fn add(&self, number: u8) {
        self.write(&balancer(number)).await;
        self.applied(number).await;
    }

    /// Starts the loop of a plugin that is alone on its store.
    async fn start(&mut self) -> Running {
        self.start_behind(None).await
    }

    async fn start_behind(&mut self, fence: Option<Fence>) -> Running {
        let store: Arc<dyn Store> = Arc::new(self.store.clone());
        let (model, northbound) = (Arc::clone(&self.model), self.northbound.clone());
        let settings = FleetSettings::default();
        let fleet = Fleet::load(INSTALLATION, Arc::clone(&model), northbound.clone(), store, settings, None);
        let fleet = Arc::new(fleet.await.unwrap());
        let purge_store = Arc::new(self.purge_store.clone());
        let writer = Arc::new(Writer::new(Arc::clone(&model), purge_store, Arc::clone(&self.metrics)));
        let planner = Planner { installation: INSTALLATION, model, northbound, fleet };
        let metrics = Arc::clone(&self.metrics);
        let reconciler = Reconciler::new(planner, fence, writer, metrics, ReconcileSettings::default());
        let (stop, stopped) = oneshot::channel();
        let mut events = self.events.take().unwrap();
        let ended = tokio::spawn(async move { reconciler.run(&mut events, stopped).await });
        // It has subscribed and seen what is there.
        tokio::task::yield_now().await;
        Running { ended, stop }
    }

    /// Writes a tree as the API does.
    async fn write(&self, tree: &Tree) {
        let revision = write(&self.store, &self.model, tree).await;
        self.model.reached(revision).await;
    }

    /// Waits for an observation of a load balancer.
    async fn observed(&self, id: Uuid, is_it: impl Fn(&Observation) -> bool) -> Arc<Observation> {
        let mut notices = self.model.subscribe();
        let observed = async {
            loop {
                let observation = self.model.observation(id);
                if is_it(&observation) {
                    return observation;
                }
                notices.recv().await.unwrap();
            }
        };
        timeout(LONG, observed).await.unwrap()
    }

    /// Waits until the tree in the model is applied.
    async fn applied(&self, number: u8) {
        let tree = self.model.tree(id(number)).unwrap();
        let is_applied = |it: &Observation| it.applied.as_ref().is_some_and(|it| Arc::ptr_eq(it, &tree));
        let observation = self.observed(id(number), |it| is_applied(it) && it.failure.is_none()).await;
        assert!(observation.failure.is_none());
        assert!(self.has_row(number));
    }

    fn has_row(&self, number: u8) -> bool {
        self.northbound.read().load_balancer.get(&row(number)).is_some()
    }

    /// Number of transactions that were sent.
    fn sent(&self) -> usize {
        self.database.transactions().borrow().len()
    }

    /// Waits until so many transactions were sent.
    async fn sent_all(&self, count: usize) {
        let mut transactions = self.database.transactions();
        let sent = transactions.wait_for(|all| all.len() >= count);
        timeout(LONG, sent).await.unwrap().unwrap();
    }

    /// Decides the fate of transactions and returns the times at which they came.
    fn judge(&self, mut judge: impl FnMut(&[Operation]) -> Fate + Send + 'static) -> Times {
        let times = Times::default();
        let seen = Arc::clone(&times);
        self.database.judge(move |operations| {
            seen.lock().unwrap().push((Instant::now(), inserted(operations)));
            judge(operations)
        });
        times
    }
}

/// Times of transactions, each with the numbers of the load balancers that it inserts.
type Times = Arc<Mutex<Vec<(Instant, Vec<u8>)>>>;

/// A judge of whom the first transaction has this fate, and all others are answered.
fn first(fate: Fate) -> impl FnMut(&[Operation]) -> Fate + Send + 'static {
    let mut fate = Some(fate);
    move |_| fate.take().unwrap_or(Fate::Answered)
}

/// The same tree under another name.
fn renamed(tree: &Tree, name: &str) -> Tree {
    let mut spec = LoadBalancer::clone(&tree.load_balancer.spec);
    name.clone_into(&mut spec.common.name);
    let mut tree = tree.clone();
    tree.load_balancer = Arc::new(tree.load_balancer.changed(spec));
    tree
}

#[tokio::test(start_paused = true)]
async fn a_write_is_carried_out_once() {
    let (world, _running) = World::with_one().await;
    // What it tells of itself then is no news.
    sleep(LONG).await;
    assert_eq!(world.sent(), 1);
    assert_eq!((world.metrics.queue_length.get(), world.metrics.repairs.get()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn many_writes_within_the_batching_window_are_one_transaction() {
    let mut world = World::new().await;
    let _running = world.start().await;
    for number in 1..=50 {
        world.write(&balancer(number)).await;
    }
    for number in 1..=50 {
        world.applied(number).await;
    }
    assert_eq!(world.sent(), 1);
    assert_eq!(inserted(&world.database.transactions().borrow()[0]).len(), 50);
    world.add(51).await;
    assert_eq!(world.sent(), 2, "a later one is another");
}

#[tokio::test(start_paused = true)]
async fn several_writes_of_one_load_balancer_within_the_window_are_one_change_to_the_last() {
    let mut world = World::new().await;
    let _running = world.start().await;
    world.write(&balancer(1)).await;
    for name in ["a", "b", "c"] {
        world.write(&renamed(&world.model.tree(id(1)).unwrap(), name)).await;
    }
    world.applied(1).await;
    assert_eq!(world.sent(), 1);
    assert_eq!(world.northbound.read().load_balancer.get(&row(1)).unwrap().name, "c");
}

#[tokio::test(start_paused = true)]
async fn more_than_fit_one_transaction_take_several() {
    let mut world = World::new().await;
    for number in 1..=201 {
        world.write(&balancer(number)).await;
    }
    let _running = world.start().await;
    for number in 1..=201 {
        world.applied(number).await;
    }
    let sizes: Vec<_> = world.database.transactions().borrow().iter().map(|it| inserted(it).len()).collect();
    assert_eq!(sizes, [200, 1]);
}

#[tokio::test(start_paused = true)]
async fn where_nothing_is_missing_nothing_is_sent() {
    let (mut world, running) = World::with_one().await;
    running.stop.send(()).unwrap();
    assert_eq!(running.ended.await.unwrap(), Ended::Stopped);
    // Another plugin begins with the same store and the same rows, and knows of no observation.
    world.model = model(Arc::new(world.store.clone())).await;
    let (northbound, events) = world.database.client(Northbound::new(OWNER_KEY));
    (world.northbound, world.events) = (northbound, Some(events));
    let _running = world.start().await;
    world.applied(1).await;
    sleep(LONG).await;
    assert_eq!(world.sent(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_another_client_removes_or_changes_is_put_right_and_counted() {
    let (world, _running) = World::with_one().await;
    world.database.write(&[Operation::delete("Load_Balancer", row(1))]).unwrap();
    assert!(!world.has_row(1));
    world.sent_all(2).await;
    assert!(world.has_row(1));
    let by_hand = columns([("name", json!("by hand"))]);
    world.database.write(&[Operation::update("Load_Balancer", row(1), by_hand)]).unwrap();
    world.sent_all(3).await;
    assert_eq!(world.northbound.read().load_balancer.get(&row(1)).unwrap().name, "");
    sleep(LONG).await;
    assert_eq!((world.sent(), world.metrics.repairs.get()), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn rows_of_nobody_go_and_foreign_ones_stay() {
    let mut world = World::new().await;
    let owned = |owner: String| columns([("external_ids", json!(["map", [[OWNER_KEY, owner]]]))]);
    let (ours, foreign) = (Uuid::from_u128(0x51), Uuid::from_u128(0x52));
    let other = plan::Installation(Uuid::from_u128(8));
    let rows = [(ours, INSTALLATION.load_balancer(id(1))), (foreign, other.load_balancer(id(1)))];
    let insert =
        |(uuid, owner): (Uuid, Owner)| Operation::insert("Load_Balancer", uuid, owned(owner.to_string()));
    world.database.write(&rows.map(insert)).unwrap();
    let _running = world.start().await;
    world.sent_all(1).await;
    sleep(LONG).await;
    let nb = world.northbound.read();
    assert!(nb.load_balancer.get(&ours).is_none() && nb.load_balancer.get(&foreign).is_some());
    assert_eq!(world.sent(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_connection_keys_wait_without_a_failure() {
    let mut world = World::new().await;
    world.database.stop();
    let _running = world.start().await;
    world.write(&balancer(1)).await;
    sleep(LONG).await;
    assert_eq!((world.sent(), world.metrics.queue_length.get()), (0, 1));
    let observation = world.model.observation(id(1));
    assert!(observation.applied.is_none() && observation.failure.is_none());
    world.database.start();
    world.applied(1).await;
    assert_eq!(world.sent(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_reconnect_has_everything_compared() {
    let mut world = World::new().await;
    let _running = world.start().await;
    for number in 1..=3 {
        world.write(&balancer(number)).await;
    }
    world.applied(3).await;
    world.database.stop();
    // Nobody tells what happens while there is no connection.
    world.database.write(&[Operation::delete("Load_Balancer", row(2))]).unwrap();
    world.write(&balancer(4)).await;
    sleep(LONG).await;
    world.database.start();
    world.applied(4).await;
    world.sent_all(2).await;
    assert!((1..=4).all(|number| world.has_row(number)));
    assert_eq!(world.sent(), 2, "one transaction for all of it");
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_for_the_transaction_in_flight() {
    let mut world = World::new().await;
    let times = world.judge(first(Fate::Unanswered { applied: true }));
    let running = world.start().await;
    world.write(&balancer(1)).await;
    world.sent_all(1).await;
    running.stop.send(()).unwrap();
    assert_eq!(running.ended.await.unwrap(), Ended::Stopped);
    let waited = times.lock().unwrap()[0].0.elapsed();
    assert!(waited >= Duration::from_secs(10), "{waited:?}");
}

proptest::proptest! {
    #[test]
    fn transactions_are_as_long_as_they_may_be(sizes in proptest::collection::vec(0..100_u64, 0..40), most in 1..150_u64) {
        let keys: Vec<WorkKey> = (0..).take(sizes.len()).map(|number| WorkKey::LoadBalancer(Uuid::from_u128(number))).collect();
        let size = |key: &WorkKey| match key {
            WorkKey::LoadBalancer(id) => sizes[usize::try_from(id.as_u128()).unwrap()],
            WorkKey::Network(_) => 0,
        };
        let parts = split(keys.clone(), size, most);
        let sum = |part: &[WorkKey]| part.iter().map(size).sum::<u64>();
        proptest::prop_assert_eq!(parts.concat(), keys);
        proptest::prop_assert!(parts.iter().all(|part| part.len() < 2 || sum(part) <= most));
        proptest::prop_assert!(parts.windows(2).all(|two| sum(&two[0]) + size(&two[1][0]) > most), "two had fitted");
    }
}
