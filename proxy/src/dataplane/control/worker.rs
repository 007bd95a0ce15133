//! One worker: a thread with a runtime, listening sockets and connections of its own.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::TcpListener,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    task::AbortHandle,
    time::Instant,
};
use uuid::Uuid;

use super::{
    acceptor::{Acceptor, Floor},
    pool::{PoolSnapshot, WorkerPool},
    post::{Post, Throttles},
    roster::Roster,
    service::{Endpoint, Service},
};

/// What is to be in force, the same for all workers.
#[derive(Debug)]
pub(super) struct Order {
    /// The listeners that have endpoints.
    pub(super) services: HashMap<Uuid, Arc<Service>>,
    /// All endpoints, each with its listener.
    pub(super) owners: HashMap<Endpoint, Uuid>,
    /// How long connections of listeners that are not there any more may go on.
    pub(super) drain: Duration,
}

/// A listening socket that could not be put to work, and why.
pub(super) type Failure = (Endpoint, std::io::Error);

/// What a worker is told.
#[derive(Debug)]
pub(super) enum Command {
    /// Put this in force; the sockets are new ones, of this worker alone.
    Apply { order: Arc<Order>, sockets: Vec<(Endpoint, TcpListener)>, done: oneshot::Sender<Vec<Failure>> },
    /// Accept nothing more, and end when the connections have, or after this time.
    Shutdown { drain: Duration },
}

/// The state of one worker.
#[derive(Debug)]
pub(super) struct Worker {
    number: usize,
    floor: Rc<Floor>,
    pools: HashMap<Uuid, Rc<WorkerPool>>,
    posts: HashMap<Uuid, Rc<Post>>,
    acceptors: HashMap<Endpoint, Acceptor>,
    draining: HashMap<Uuid, Draining>,
}

/// Connections of a listener that has gone, and the task that will cut them.
#[derive(Debug)]
struct Draining {
    roster: Roster,
    deadline: AbortHandle,
}

impl Worker {
    pub(super) fn new(number: usize, floor: Floor) -> Self {
        Self {
            number,
            floor: Rc::new(floor),
            pools: HashMap::new(),
            posts: HashMap::new(),
            acceptors: HashMap::new(),
            draining: HashMap::new(),
        }
    }

    /// Does what it is told, until it is told to stop or nobody is left to tell it.
    pub(super) async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        while let Some(command) = commands.recv().await {
            match command {
                Command::Apply { order, sockets, done } => {
                    // Who asked may have gone; the order stands.
                    let _ = done.send(self.apply(&order, sockets).await);
                }
                Command::Shutdown { drain } => return self.shutdown(drain).await,
            }
        }
    }

    async fn apply(&mut self, order: &Order, sockets: Vec<(Endpoint, TcpListener)>) -> Vec<Failure> {
        let gone = self.renew_posts(order);
        let failures = self.open(order, sockets).await;
        self.reassign(order).await;
        self.drain(gone, order.drain);
        failures
    }

    /// Makes the posts of the order; returns those of listeners that are not in it.
    fn renew_posts(&mut self, order: &Order) -> HashMap<Uuid, Rc<Post>> {
        let mut old = std::mem::take(&mut self.posts);
        let old_pools = std::mem::take(&mut self.pools);
        for (id, service) in &order.services {
            let pool = service.pool.as_ref().map(|snapshot| self.pool(snapshot, &old_pools));
            let post = match old.remove(id) {
                Some(post) if Arc::ptr_eq(&post.service, service) => post,
                older => self.post(service, pool, older.as_deref()),
            };
            self.posts.insert(*id, post);
        }
        old
    }

    /// This worker's view of a pool: the one that is there, or a new one that takes over its turns.
    fn pool(&mut self, snapshot: &Arc<PoolSnapshot>, old: &HashMap<Uuid, Rc<WorkerPool>>) -> Rc<WorkerPool> {
        let pool = match self.pools.entry(snapshot.id()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(match old.get(&snapshot.id()) {
                Some(pool) if pool.is(snapshot) => Rc::clone(pool),
                older => Rc::new(WorkerPool::new(Arc::clone(snapshot), self.number, older.map(Rc::as_ref))),
            }),
        };
        Rc::clone(pool)
    }

    fn post(
        &mut self,
        service: &Arc<Service>,
        pool: Option<Rc<WorkerPool>>,
        older: Option<&Post>,
    ) -> Rc<Post> {
        let (roster, throttles) = match older {
            Some(older) => (older.roster.clone(), Rc::clone(&older.throttles)),
            None => (self.undrain(service.id), Rc::new(Throttles::default())),
        };
        Rc::new(Post { service: Arc::clone(service), pool, roster, throttles })
    }

    /// The roster of a listener that came, or came back before its connections were cut.
    fn undrain(&mut self, listener: Uuid) -> Roster {
        let Some(draining) = self.draining.remove(&listener) else { return Roster::default() };
        draining.deadline.abort();
        draining.roster
    }

    async fn open(&mut self, order: &Order, sockets: Vec<(Endpoint, TcpListener)>) -> Vec<Failure> {
        let mut failures = Vec::new();
        for (endpoint, socket) in sockets {
            let post = order.owners.get(&endpoint).and_then(|owner| self.posts.get(owner));
            let Some(post) = post.map(Rc::clone) else { continue };
            match Acceptor::start(socket, post, Rc::clone(&self.floor)) {
                Ok(acceptor) => self.replace(endpoint, acceptor).await,
                Err(error) => failures.push((endpoint, error)),
            }
        }
        failures
    }

    async fn replace(&mut self, endpoint: Endpoint, acceptor: Acceptor) {
        if let Some(old) = self.acceptors.insert(endpoint, acceptor) {
            old.close().await;
        }
    }

    /// Gives each listening socket to its listener, and closes those that have none.
    async fn reassign(&mut self, order: &Order) {
        for (endpoint, acceptor) in std::mem::take(&mut self.acceptors) {
            match order.owners.get(&endpoint).and_then(|owner| self.posts.get(owner)) {
                Some(post) => {
                    acceptor.reassign(Rc::clone(post));
                    self.acceptors.insert(endpoint, acceptor);
                }
                None => acceptor.close().await,
            }
        }
    }

    fn drain(&mut self, gone: HashMap<Uuid, Rc<Post>>, drain: Duration) {
        self.draining.retain(|_, draining| draining.roster.len() > 0);
        for (id, post) in gone {
            let roster = post.roster.clone();
            let task = tokio::task::spawn_local(cut_after(post, Instant::now() + drain));
            self.draining.insert(id, Draining { roster, deadline: task.abort_handle() });
        }
    }

    async fn shutdown(mut self, drain: Duration) {
        let deadline = Instant::now() + drain;
        for (_, acceptor) in std::mem::take(&mut self.acceptors) {
            acceptor.close().await;
        }
        let rosters = self.posts.values().map(|post| post.roster.clone());
        for roster in rosters.chain(self.draining.values().map(|draining| draining.roster.clone())) {
            if tokio::time::timeout_at(deadline, roster.emptied()).await.is_err() {
                roster.cut();
                roster.emptied().await;
            }
        }
    }
}

async fn cut_after(post: Rc<Post>, deadline: Instant) {
    if tokio::time::timeout_at(deadline, post.roster.emptied()).await.is_err() {
        tracing::info!(
            listener = %post.service.id, name = post.service.name, connections = post.roster.len(),
            "connections of a listener that is gone are reset: their time to drain is over"
        );
        post.roster.cut();
    }
}
