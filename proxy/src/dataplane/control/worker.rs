//! One worker: a thread with a runtime, listening sockets and connections of its own.

use std::{
    cell::Cell,
    collections::{HashMap, HashSet, hash_map::Entry},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot, watch},
    task::AbortHandle,
    time::Instant,
};
use uuid::Uuid;

use super::{
    binding::Binding,
    cuts::{CutLog, CutReason, Cuts},
    drainer::Drainer,
    installed::WorkerSockets,
};
use crate::dataplane::{
    account::ListenerThrottles,
    balance::{PoolDivision, PoolSnapshot, WorkerPool},
    listen::{
        ClientTables, ConnectionBudget, Endpoint, Handler, OpenConnections, SharedListener, WorkerListener,
    },
    spec::Protocol,
    tcp,
    udp::UdpResources,
};

/// Configuration of the workers, the same for all of them.
#[derive(Debug)]
pub(super) struct WorkerSpec {
    /// The listeners that have endpoints.
    pub(super) listeners: HashMap<Uuid, Arc<SharedListener>>,
    /// All endpoints, each with its listener.
    pub(super) owners: HashMap<Endpoint, Uuid>,
    /// Networks that leave the node: connections of their listeners are cut at once.
    pub(super) leaving: HashSet<Uuid>,
    /// Drain deadline for connections of removed listeners.
    pub(super) drain: Duration,
    /// Log of the listeners whose connections are cut.
    pub(super) cut_log: Arc<CutLog>,
}

/// A listening socket that could not be activated, with the error.
pub(super) type ActivationFailure = (Endpoint, std::io::Error);

/// Command to a worker.
#[derive(Debug)]
pub(super) enum WorkerCommand {
    /// Applies a configuration; the sockets are new ones, of this worker alone.
    Apply { spec: Arc<WorkerSpec>, sockets: WorkerSockets, done: oneshot::Sender<Vec<ActivationFailure>> },
    /// Drops clients that need no place any more from these tables, again and again.
    Sweep(Arc<ClientTables>),
    /// Answers, to show that the worker still takes commands.
    Ping { done: oneshot::Sender<()> },
    /// Stops accepting, and ends when the connections have, or after this time.
    Shutdown { drain: Duration },
}

/// State of one worker.
#[derive(Debug)]
pub(super) struct Worker {
    number: usize,
    budget: Arc<ConnectionBudget>,
    cuts: Arc<Cuts>,
    handlers: Handlers,
    pools: HashMap<Uuid, Rc<WorkerPool>>,
    listeners: HashMap<Uuid, Rc<WorkerListener>>,
    bindings: HashMap<Endpoint, Binding>,
    draining: HashMap<Uuid, DrainingListener>,
    udp: Rc<UdpResources>,
    drainer: Drainer,
}

/// Connections of a removed listener, and the task that cuts them at the drain deadline.
#[derive(Debug)]
struct DrainingListener {
    listener: Rc<WorkerListener>,
    deadline: AbortHandle,
}

/// Handlers of the protocols that have connections.
struct Handlers {
    tcp: Handler,
}

impl Handlers {
    /// The handler of connections in a protocol, if it has any.
    fn of(&self, protocol: Protocol) -> Option<Handler> {
        match protocol {
            Protocol::Tcp => Some(Rc::clone(&self.tcp)),
            Protocol::Udp => None,
        }
    }
}

impl std::fmt::Debug for Handlers {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Handlers").finish_non_exhaustive()
    }
}

impl Worker {
    /// A worker that serves nothing yet. `flips` tells of changes of backends' health. Needs its runtime.
    pub(super) fn new(
        number: usize,
        budget: Arc<ConnectionBudget>,
        cuts: Arc<Cuts>,
        flips: watch::Receiver<()>,
    ) -> Self {
        Self {
            number,
            budget,
            cuts,
            handlers: Handlers { tcp: tcp::handler(Rc::default()) },
            pools: HashMap::new(),
            listeners: HashMap::new(),
            bindings: HashMap::new(),
            udp: UdpResources::start(),
            draining: HashMap::new(),
            drainer: Drainer::start(flips),
        }
    }

    /// Carries out commands until one ends the worker, or no sender is left. Returns the number of connections that it had
    /// to cut.
    pub(super) async fn run(mut self, mut commands: mpsc::UnboundedReceiver<WorkerCommand>) -> usize {
        while let Some(command) = commands.recv().await {
            match command {
                WorkerCommand::Apply { spec, sockets, done } => {
                    // The caller may be gone; the configuration stands.
                    let _ = done.send(self.apply(&spec, sockets).await);
                }
                WorkerCommand::Sweep(tables) => drop(tokio::task::spawn_local(tables.sweep_all())),
                // The caller may be gone.
                WorkerCommand::Ping { done } => drop(done.send(())),
                WorkerCommand::Shutdown { drain } => return self.shutdown(drain).await,
            }
        }
        0
    }

    async fn apply(&mut self, spec: &WorkerSpec, sockets: WorkerSockets) -> Vec<ActivationFailure> {
        let removed = self.renew_listeners(spec);
        let failures = self.activate(spec, sockets).await;
        self.reassign(spec).await;
        self.drain(removed, spec).await;
        let draining = self.draining.values().map(|draining| &draining.listener);
        self.drainer.watch(self.listeners.values().chain(draining));
        failures
    }

    /// Renews the listeners; returns those that are removed.
    fn renew_listeners(&mut self, spec: &WorkerSpec) -> HashMap<Uuid, Rc<WorkerListener>> {
        let mut old = std::mem::take(&mut self.listeners);
        let old_pools = std::mem::take(&mut self.pools);
        for (id, shared) in &spec.listeners {
            let pools =
                shared.pools.iter().map(|(snapshot, weight)| (self.pool(snapshot, &old_pools), *weight));
            let pools: Vec<(Rc<WorkerPool>, u16)> = pools.collect();
            let listener = match old.remove(id) {
                Some(listener) if Arc::ptr_eq(&listener.shared, shared) => listener,
                older => self.listener(shared, PoolDivision::new(pools), older.as_deref()),
            };
            self.listeners.insert(*id, listener);
        }
        let draining = self.draining.values().map(|draining| &draining.listener);
        draining.chain(old.values()).for_each(|listener| self.follow(&listener.connections));
        old
    }

    /// Puts the newest snapshots of their pools in force for the connections of a removed listener: they may be the first ones
    /// in a queue, in which others wait.
    fn follow(&self, connections: &OpenConnections) {
        let before = connections.pools();
        if before.pools().any(|pool| self.pools.contains_key(&pool.id())) {
            connections.set_pools(&Rc::new(before.renewed(|id| self.pools.get(&id))));
        }
    }

    /// A pool on this worker: the one that is there, or a new one that takes over its state.
    fn pool(&mut self, snapshot: &Arc<PoolSnapshot>, old: &HashMap<Uuid, Rc<WorkerPool>>) -> Rc<WorkerPool> {
        let pool = match self.pools.entry(snapshot.id()) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(match old.get(&snapshot.id()) {
                Some(pool) if pool.is_of(snapshot) => Rc::clone(pool),
                older => Rc::new(WorkerPool::new(Arc::clone(snapshot), self.number, older.map(Rc::as_ref))),
            }),
        };
        Rc::clone(pool)
    }

    fn listener(
        &mut self,
        shared: &Arc<SharedListener>,
        pools: PoolDivision,
        older: Option<&WorkerListener>,
    ) -> Rc<WorkerListener> {
        let (connections, throttles) = match older {
            Some(older) => (older.connections.clone(), Rc::clone(&older.throttles)),
            None => (self.undrain(shared.id), Rc::new(ListenerThrottles::default())),
        };
        let pools = Rc::new(pools);
        connections.set_pools(&pools);
        let handler = self.handlers.of(shared.protocol);
        Rc::new(WorkerListener {
            shared: Arc::clone(shared),
            pools,
            connections,
            throttles,
            clients_speak_first: Cell::new(false),
            handler,
        })
    }

    /// The connections of a listener that is new, or that has returned before its connections were cut.
    fn undrain(&mut self, listener: Uuid) -> OpenConnections {
        let Some(draining) = self.draining.remove(&listener) else { return self.drainer.connections() };
        draining.deadline.abort();
        draining.listener.connections.clone()
    }

    async fn activate(&mut self, spec: &WorkerSpec, sockets: WorkerSockets) -> Vec<ActivationFailure> {
        let mut failures = Vec::new();
        for (endpoint, socket) in sockets {
            let listener = spec.owners.get(&endpoint).and_then(|owner| self.listeners.get(owner));
            let Some(listener) = listener.map(Rc::clone) else { continue };
            let (address, budget) = (endpoint.address.ip(), Arc::clone(&self.budget));
            match Binding::start(socket, address, listener, budget, &self.udp) {
                Ok(binding) => self.replace(endpoint, binding).await,
                Err(error) => failures.push((endpoint, error)),
            }
        }
        failures
    }

    async fn replace(&mut self, endpoint: Endpoint, binding: Binding) {
        if let Some(old) = self.bindings.insert(endpoint, binding) {
            old.close().await;
        }
    }

    /// Assigns each listening socket to its listener, and closes those that have none.
    async fn reassign(&mut self, spec: &WorkerSpec) {
        for (endpoint, binding) in std::mem::take(&mut self.bindings) {
            match spec.owners.get(&endpoint).and_then(|owner| self.listeners.get(owner)) {
                Some(listener) => {
                    binding.reassign(Rc::clone(listener));
                    self.bindings.insert(endpoint, binding);
                }
                None => binding.close().await,
            }
        }
    }

    async fn drain(&mut self, removed: HashMap<Uuid, Rc<WorkerListener>>, spec: &WorkerSpec) {
        self.draining.retain(|_, draining| draining.listener.connections.len() > 0);
        let deadline = Instant::now() + spec.drain;
        for (id, listener) in removed {
            let (cuts, log) = (Arc::clone(&self.cuts), Arc::clone(&spec.cut_log));
            let task = tokio::task::spawn_local(cut_after(Rc::clone(&listener), deadline, cuts, log));
            self.draining.insert(id, DrainingListener { listener, deadline: task.abort_handle() });
        }
        let leaving =
            |_: &Uuid, it: &mut DrainingListener| spec.leaving.contains(&it.listener.shared.network);
        for (_, DrainingListener { listener, deadline }) in self.draining.extract_if(leaving) {
            deadline.abort();
            self.cuts.cut_listener(CutReason::NetworkGone, &listener, &spec.cut_log);
            listener.connections.drained().await;
        }
    }

    async fn shutdown(mut self, drain: Duration) -> usize {
        let deadline = Instant::now() + drain;
        for (_, binding) in std::mem::take(&mut self.bindings) {
            binding.close().await;
        }
        let current = self.listeners.values().map(|listener| listener.connections.clone());
        let removed = self.draining.values().map(|draining| draining.listener.connections.clone());
        let mut cut = 0;
        for connections in current.chain(removed) {
            if tokio::time::timeout_at(deadline, connections.drained()).await.is_err() {
                cut += self.cuts.cut(CutReason::Stopping, &connections);
                connections.drained().await;
            }
        }
        cut
    }
}

async fn cut_after(listener: Rc<WorkerListener>, deadline: Instant, cuts: Arc<Cuts>, log: Arc<CutLog>) {
    if tokio::time::timeout_at(deadline, listener.connections.drained()).await.is_err() {
        cuts.cut_listener(CutReason::ListenerGone, &listener, &log);
    }
}
