//! Clients of the API that write and read without a pause, each through a plugin of its choice for each call, and note what
//! came of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::clock::Clock;
use crate::history::{Action, Event, Outcome, Version};
use crate::objects::{Object, ObjectParents, Services};

/// Pause of a client after a call.
const PAUSE: Duration = Duration::from_millis(60);
/// Objects that live at the same time: few, so that clients meet at them.
const ALIVE: usize = 8;
/// Calls about an object after which it is deleted, so that its history can be judged.
const CALLS: usize = 150;

/// State shared by all clients.
#[derive(Debug)]
pub struct Board {
    clock: Clock,
    parents: ObjectParents,
    replicas: Vec<Services>,
    objects: Mutex<BTreeMap<Object, Known>>,
    history: Mutex<Vec<Event>>,
    next: AtomicU32,
}

/// Knowledge of an object, shared by all clients.
#[derive(Debug, Clone, Default)]
struct Known {
    version: Option<Version>,
    calls: usize,
    /// A delete was invoked.
    is_ending: bool,
}

/// Clients that run.
#[derive(Debug)]
pub struct Clients {
    board: Arc<Board>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Clients {
    /// Starts so many, which choose by a seed.
    #[must_use]
    pub fn start(
        count: usize,
        seed: u64,
        clock: Clock,
        parents: ObjectParents,
        replicas: Vec<Services>,
    ) -> Self {
        let board = Board {
            clock,
            parents,
            replicas,
            objects: Mutex::default(),
            history: Mutex::default(),
            next: AtomicU32::new(0),
        };
        let (board, (stop, stopped)) = (Arc::new(board), watch::channel(false));
        let client = |number: usize| {
            let (board, stopped) = (Arc::clone(&board), stopped.clone());
            let rng = Rng::with_seed(seed.wrapping_add(u64::try_from(number).unwrap_or_default()));
            tokio::spawn(async move { board.work(number, rng, stopped).await })
        };
        let tasks = (0..count).map(client).collect();
        Self { board, stop, tasks }
    }

    /// Lets the calls under way end, and makes no more.
    pub async fn stop(self) -> Arc<Board> {
        self.stop.send_replace(true);
        for task in self.tasks {
            // One that panicked has said so, and what it had noted counts.
            let _ = task.await;
        }
        self.board
    }
}

impl Board {
    /// All that was noted until now.
    #[must_use]
    pub fn history(&self) -> Vec<Event> {
        lock(&self.history).clone()
    }

    /// Reads each object once from each plugin, when all is quiet. `client` is one that makes no calls of its own.
    pub async fn read_all(&self, client: usize) {
        let objects: Vec<Object> = lock(&self.objects).keys().cloned().collect();
        for object in objects {
            for replica in 0..self.replicas.len() {
                self.call(client, replica, &object, Action::LastRead, "").await;
            }
        }
    }

    /// Makes an object through a plugin, and tells whether that was acknowledged.
    pub async fn create_through(&self, client: usize, replica: usize, rng: &mut Rng) -> bool {
        let (object, action) = self.new_object(client, rng);
        matches!(self.call(client, replica, &object, action, "").await, Outcome::Seen(_))
    }

    async fn work(&self, client: usize, mut rng: Rng, mut stopped: watch::Receiver<bool>) {
        while !*stopped.borrow() {
            let replica = rng.usize(0..self.replicas.len());
            let (object, action, etag) = self.choose(client, &mut rng);
            self.call(client, replica, &object, action, &etag).await;
            // A pause ends early when there is something to be told.
            let _ = tokio::time::timeout(PAUSE, stopped.changed()).await;
        }
    }

    /// The next call: what, to what, and the etag with it.
    fn choose(&self, client: usize, rng: &mut Rng) -> (Object, Action, String) {
        let objects = lock(&self.objects);
        let alive: Vec<(&Object, &Known)> = objects.iter().filter(|(_, known)| !known.is_ending).collect();
        let chosen = rng.choice(&alive).filter(|_| alive.len() >= ALIVE || rng.u8(0..4) > 0);
        let Some((object, known)) = chosen.map(|(object, known)| ((*object).clone(), (*known).clone()))
        else {
            drop(objects);
            let (object, action) = self.new_object(client, rng);
            return (object, action, String::new());
        };
        drop(objects);
        let version = known.version.filter(|_| rng.bool());
        let (expected, etag) = version.map(|version| (version.value, version.etag)).unzip();
        let action = match rng.u8(0..100) {
            _ if known.calls > CALLS => Action::Delete { expected: None },
            0..3 => Action::Delete { expected },
            3..55 => Action::Update { value: self.new_value(client), expected },
            _ => return (object, Action::Read, String::new()),
        };
        let etag = if known.calls > CALLS { None } else { etag };
        (object, action, etag.unwrap_or_default())
    }

    fn new_object(&self, client: usize, rng: &mut Rng) -> (Object, Action) {
        let id = uuid::Builder::from_random_bytes(rng.u128(..).to_be_bytes()).into_uuid();
        let object = if rng.bool() { Object::LoadBalancer { id } } else { self.new_backend(id) };
        (object, Action::Create { value: self.new_value(client) })
    }

    fn new_backend(&self, id: Uuid) -> Object {
        let [_, _, high, low] = self.next.fetch_add(1, Ordering::Relaxed).to_be_bytes();
        // Not the ends of the network, and not where VIPs are chosen.
        let address = format!("10.1.{}.{}", 1 + high % 100, low);
        Object::Backend { id, address }
    }

    fn new_value(&self, client: usize) -> String {
        format!("c{client}-{}", self.next.fetch_add(1, Ordering::Relaxed))
    }

    async fn call(
        &self,
        client: usize,
        replica: usize,
        object: &Object,
        action: Action,
        etag: &str,
    ) -> Outcome {
        let Some(services) = self.replicas.get(replica) else {
            return Outcome::Refused { why: "there is no such plugin".to_owned() };
        };
        let invoked = self.clock.micros();
        let outcome = services.act(&self.parents, object, &action, etag).await;
        let returned = self.clock.micros();
        self.learn(object, &action, &outcome);
        let event = Event {
            client,
            replica,
            object: object.name(),
            action,
            invoked,
            returned,
            outcome: outcome.clone(),
        };
        lock(&self.history).push(event);
        outcome
    }

    fn learn(&self, object: &Object, action: &Action, outcome: &Outcome) {
        let mut objects = lock(&self.objects);
        let known = objects.entry(object.clone()).or_default();
        known.calls += 1;
        known.is_ending |=
            matches!(action, Action::Delete { .. }) && !matches!(outcome, Outcome::Refused { .. });
        // A create that was refused made nothing.
        known.is_ending |= matches!((action, outcome), (Action::Create { .. }, Outcome::Refused { .. }));
        if let Outcome::Seen(version) = outcome {
            let is_newer = known.version.as_ref().is_none_or(|old| old.generation < version.generation);
            known.version = Some(version.clone()).filter(|_| is_newer).or(known.version.take());
        }
    }
}

/// Locks it. The data is consistent between any two calls, so a poisoned lock is usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
