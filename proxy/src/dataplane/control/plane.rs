//! The data plane as its owner sees it: what is in force, and the workers that serve it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use rustix::process::{Resource, getrlimit};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::{
    configuration::Configuration,
    counters::ListenerCounters,
    error::{Refusal, StartError},
    installed::{Installed, Prepared, Sockets},
    relay::MAX_PIPES,
    room::Room,
    rotation::Rotation,
    threads::WorkerThread,
    worker::{Command, Failure, Order},
};

/// Descriptors that are left to the rest of the process.
const RESERVED_DESCRIPTORS: usize = 1_024;

/// A connection has two.
const DESCRIPTORS_PER_CONNECTION: usize = 2;

/// How the data plane is run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Number of worker threads; one per core that it may use.
    pub workers: usize,
    /// The most connections at a time, over all listeners. When there are as many, clients wait in the kernel's queues.
    pub max_connections: usize,
}

impl Options {
    /// As many connections as the process's limit on open files (`ulimit -n`) allows, less what pipes and the rest of the process
    /// need; at least 64.
    #[must_use]
    pub fn for_this_process(workers: usize) -> Self {
        let limit = getrlimit(Resource::Nofile).current;
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        let pipes = workers.saturating_mul(2 * MAX_PIPES);
        let free = limit.saturating_sub(RESERVED_DESCRIPTORS).saturating_sub(pipes);
        Self { workers, max_connections: (free / DESCRIPTORS_PER_CONNECTION).max(64) }
    }
}

/// What has become of one listener of a configuration.
#[derive(Debug)]
pub struct ListenerOutcome {
    /// The listener.
    pub id: Uuid,
    /// Served as asked, or why not. A refused listener goes on with what it had: if its configuration is wrong, as it was before;
    /// if a new address cannot be listened on, as it is asked now on those addresses that it has already.
    pub result: Result<(), Refusal>,
}

/// The TCP proxy of this node.
///
/// Dropping it cuts all connections; [`Dataplane::shutdown`] lets them end.
#[derive(Debug)]
pub struct Dataplane {
    workers: Vec<WorkerThread>,
    rotation: Rotation,
    installed: Installed,
}

impl Dataplane {
    /// Starts the workers, which serve nothing yet. Threads inherit the caller's network namespace, and do not care.
    ///
    /// # Errors
    /// No worker is asked for, or a thread or its event loop cannot be made.
    pub fn start(options: Options) -> Result<Self, StartError> {
        if options.workers == 0 {
            return Err(StartError::NoWorkers);
        }
        let room = Room::new(options.max_connections);
        let workers = (0..options.workers)
            .map(|number| WorkerThread::start(number, &room))
            .collect::<Result<_, _>>()?;
        let Options { workers: count, max_connections } = options;
        tracing::info!(workers = count, max_connections, "the data plane runs");
        Ok(Self { workers, rotation: Rotation::default(), installed: Installed::default() })
    }

    /// Puts a configuration in force, and returns when every worker serves it. Addresses that stay keep their sockets, and
    /// connections go on as they began. The outcomes are in the order of the listeners.
    pub async fn apply(&mut self, configuration: &Configuration) -> Vec<ListenerOutcome> {
        let prepared = self.installed.prepare(configuration, &self.rotation, self.workers.len());
        let Prepared { order, sockets, refusals } = prepared;
        let Published { failed, worker_gone } = self.publish(&Arc::new(order), sockets).await;
        let mut failed = self.installed.forget_failed(failed);
        self.rotation.keep_only(&backends(configuration));
        let outcomes = configuration.listeners.iter().zip(refusals).map(|(listener, refusal)| {
            let gone = || worker_gone.then_some(Refusal::WorkerGone);
            let refusal = refusal.or_else(|| failed.remove(&listener.id)).or_else(gone);
            ListenerOutcome { id: listener.id, result: refusal.map_or(Ok(()), Err) }
        });
        outcomes.collect()
    }

    async fn publish(&self, order: &Arc<Order>, sockets: Vec<Sockets>) -> Published {
        let mut published = Published::default();
        let mut answers = Vec::new();
        for (worker, sockets) in self.workers.iter().zip(sockets) {
            let (done, answer) = oneshot::channel();
            worker.tell(Command::Apply { order: Arc::clone(order), sockets, done });
            answers.push(answer);
        }
        for answer in answers {
            match answer.await {
                Ok(failed) => published.failed.extend(failed),
                Err(_) => published.worker_gone = true,
            }
        }
        published
    }

    /// Takes a backend into rotation or out of it, on all workers, for every connection that is decided from now on.
    pub fn set_health(&self, backend: Uuid, up: bool) {
        self.rotation.set_health(backend, up);
    }

    /// The rotation, for those who tell it of health without having the data plane.
    #[must_use]
    pub fn rotation(&self) -> Rotation {
        self.rotation.clone()
    }

    /// The counters of all listeners, and of those that have gone and still have connections.
    #[must_use]
    pub fn counters(&self) -> HashMap<Uuid, ListenerCounters> {
        self.installed.counters()
    }

    /// Accepts nothing more, lets connections end for at most `drain`, resets the rest, and ends the workers.
    pub async fn shutdown(self, drain: Duration) {
        for worker in &self.workers {
            worker.shut_down(drain);
        }
        for worker in self.workers {
            worker.ended().await;
        }
    }
}

#[derive(Debug, Default)]
struct Published {
    failed: Vec<Failure>,
    worker_gone: bool,
}

fn backends(configuration: &Configuration) -> HashSet<Uuid> {
    configuration.pools.iter().flat_map(|pool| &pool.backends).map(|backend| backend.id).collect()
}
