//! The data plane as its owner sees it: the configuration in force, and the workers that serve it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::process::{Resource, getrlimit};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::{
    cuts::Cuts,
    installed::{Installed, PreparedSpec, WorkerSockets},
    threads::WorkerThread,
    worker::{ActivationFailure, WorkerCommand, WorkerSpec},
};
use crate::{
    dataplane::{
        account::ListenerCounters,
        balance::Rotation,
        error::{ListenerError, StartError},
        listen::{ClientTables, ConnectionBudget},
        record::{ConnectionLog, NoLog},
        spec::DataplaneSpec,
        tcp::{MAX_BESIDE, MAX_PIPES},
    },
    shortage::Shortages,
};

/// Descriptors that are left to the rest of the process.
const RESERVED_DESCRIPTORS: usize = 1_024;

/// Descriptors of a connection.
const DESCRIPTORS_PER_CONNECTION: usize = 2;

/// Options of the data plane.
#[derive(Clone, Copy, Debug)]
pub struct DataplaneOptions {
    /// Number of worker threads; one per core that it may use.
    pub workers: usize,
    /// Most connections at a time, over all listeners. While there are as many, clients wait in the kernel's
    /// queues. They are shared out among the networks: half of them are reserved to all alike, and of the rest a
    /// network has at most as many as it leaves free; clients above that are reset.
    pub max_connections: usize,
}

impl DataplaneOptions {
    /// As many connections as the process's limit on open files (`ulimit -n`) allows, less what pipes, further attempts to
    /// connect and the rest of the process need; at least 64.
    #[must_use]
    pub fn for_this_process(workers: usize) -> Self {
        let limit = getrlimit(Resource::Nofile).current;
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        let shared = workers.saturating_mul(2 * MAX_PIPES + MAX_BESIDE);
        let free = limit.saturating_sub(RESERVED_DESCRIPTORS).saturating_sub(shared);
        Self { workers, max_connections: (free / DESCRIPTORS_PER_CONNECTION).max(64) }
    }
}

/// Outcome of applying one listener of a configuration.
#[derive(Debug)]
pub struct ListenerOutcome {
    /// The listener.
    pub id: Uuid,
    /// Served as specified, or the reason why not. A refused listener goes on with what it had: if its
    /// specification is wrong, as it was before; if a new address cannot be bound, as it is specified now on
    /// those addresses that it has already.
    pub result: Result<(), ListenerError>,
}

/// The data plane of this node.
///
/// Dropping it cuts all connections; [`Dataplane::shutdown`] drains them.
#[derive(Debug)]
pub struct Dataplane {
    workers: Vec<WorkerThread>,
    rotation: Rotation,
    installed: Installed,
    shortages: Arc<Shortages>,
    cuts: Arc<Cuts>,
}

impl Dataplane {
    /// Starts the workers, which serve nothing yet, and log no connections.
    ///
    /// # Errors
    /// As [`Self::start_with_log`].
    pub fn start(options: DataplaneOptions) -> Result<Self, StartError> {
        Self::start_with_log(options, Arc::new(NoLog))
    }

    /// Starts the workers, which serve nothing yet, and pass their connections to a log. Threads inherit the caller's network
    /// namespace, which does not matter to them.
    ///
    /// # Errors
    /// The number of workers is 0, or a thread or its event loop cannot be made.
    pub fn start_with_log(
        options: DataplaneOptions,
        log: Arc<dyn ConnectionLog>,
    ) -> Result<Self, StartError> {
        if options.workers == 0 {
            return Err(StartError::NoWorkers);
        }
        let budget = ConnectionBudget::new(options.max_connections);
        let (rotation, cuts) = (Rotation::default(), Arc::<Cuts>::default());
        let workers: Vec<WorkerThread> = (0..options.workers)
            .map(|number| WorkerThread::start(number, &budget, &cuts, rotation.flips()))
            .collect::<Result<_, _>>()?;
        let DataplaneOptions { workers: count, max_connections } = options;
        tracing::info!(workers = count, max_connections, "started the data plane");
        let shortages = Arc::<Shortages>::default();
        let tables = Arc::<ClientTables>::default();
        if let Some(worker) = workers.first() {
            worker.send(WorkerCommand::Sweep(Arc::clone(&tables)));
        }
        let installed = Installed::new(budget, tables, Arc::clone(&shortages), log);
        Ok(Self { workers, rotation, installed, shortages, cuts })
    }

    /// Applies a configuration, and returns when every worker serves it. Endpoints that stay keep their
    /// sockets, and connections go on as they began. The outcomes are in the order of the listeners.
    pub async fn apply(&mut self, spec: &DataplaneSpec) -> Vec<ListenerOutcome> {
        let (workers, now) = (self.workers.len(), Instant::now());
        let prepared = self.installed.prepare(spec, &self.rotation, workers, now);
        let PreparedSpec { worker_spec, sockets, errors } = prepared;
        let Published { failed, is_worker_gone } = self.publish(&Arc::new(worker_spec), sockets).await;
        let mut failed = self.installed.forget_failed(failed);
        self.rotation.retain(&backends(spec));
        let outcomes = spec.listeners.iter().zip(errors).map(|(listener, error)| {
            let gone = || is_worker_gone.then_some(ListenerError::WorkerGone);
            let error = error.or_else(|| failed.remove(&listener.id)).or_else(gone);
            ListenerOutcome { id: listener.id, result: error.map_or(Ok(()), Err) }
        });
        outcomes.collect()
    }

    async fn publish(&self, spec: &Arc<WorkerSpec>, sockets: Vec<WorkerSockets>) -> Published {
        let mut published = Published::default();
        let mut answers = Vec::new();
        for (worker, sockets) in self.workers.iter().zip(sockets) {
            let (done, answer) = oneshot::channel();
            worker.send(WorkerCommand::Apply { spec: Arc::clone(spec), sockets, done });
            answers.push(answer);
        }
        for answer in answers {
            match answer.await {
                Ok(failed) => published.failed.extend(failed),
                Err(_) => published.is_worker_gone = true,
            }
        }
        published
    }

    /// Takes a backend into rotation or out of it, on all workers, for every connection that is decided from
    /// now on.
    pub fn set_health(&self, backend: Uuid, up: bool) {
        self.rotation.set_health(backend, up);
    }

    /// The rotation, for reporting health without access to the data plane.
    #[must_use]
    pub fn rotation(&self) -> Rotation {
        self.rotation.clone()
    }

    /// The workers' pulse, for a watchdog.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        Pulse(self.workers.iter().map(WorkerThread::commands).collect())
    }

    /// Shortages of the node. Others of the process may record theirs there too.
    #[must_use]
    pub fn shortages(&self) -> Arc<Shortages> {
        Arc::clone(&self.shortages)
    }

    /// The counters of all listeners, and of removed ones that still have connections.
    #[must_use]
    pub fn counters(&self) -> HashMap<Uuid, ListenerCounters> {
        self.installed.counters()
    }

    /// Connections that the node itself has cut, by reason.
    #[must_use]
    pub fn cuts(&self) -> Arc<Cuts> {
        Arc::clone(&self.cuts)
    }

    /// Connections at this moment of listeners that are gone.
    #[must_use]
    pub fn draining(&self) -> u64 {
        self.installed.draining()
    }

    /// Stops accepting, drains connections for at most `drain`, resets the rest, and ends the workers.
    pub async fn shutdown(self, drain: Duration) {
        for worker in &self.workers {
            worker.shut_down(drain);
        }
        let mut connections = 0;
        for worker in self.workers {
            connections += worker.ended().await;
        }
        if connections > 0 {
            tracing::info!(
                connections,
                "reset the connections that were left at the drain deadline of the stop"
            );
        }
    }
}

/// The workers' pulse: shows that none of them is stuck.
#[derive(Clone, Debug)]
pub struct Pulse(Vec<mpsc::UnboundedSender<WorkerCommand>>);

impl Pulse {
    /// Waits until each worker has answered. One that has ended, as it does at a shutdown, is not waited for.
    pub async fn beat(&self) {
        let answers = self.0.iter().filter_map(|worker| {
            let (done, answer) = oneshot::channel();
            worker.send(WorkerCommand::Ping { done }).ok().map(|()| answer)
        });
        for answer in answers.collect::<Vec<_>>() {
            // An error: it has ended meanwhile.
            let _ = answer.await;
        }
    }

    /// Waits until one of the workers has ended, as it does at a shutdown, and by a panic.
    pub async fn lost(&self) {
        futures_util::future::select_all(self.0.iter().map(|worker| Box::pin(worker.closed()))).await;
    }
}

#[derive(Debug, Default)]
struct Published {
    failed: Vec<ActivationFailure>,
    is_worker_gone: bool,
}

fn backends(spec: &DataplaneSpec) -> HashSet<Uuid> {
    spec.pools.iter().flat_map(|pool| &pool.backends).map(|backend| backend.id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_worker_that_ends_is_noticed_while_others_live() {
        let dataplane = Dataplane::start(DataplaneOptions { workers: 2, max_connections: 1 }).unwrap();
        let pulse = dataplane.pulse();
        assert!(tokio::time::timeout(Duration::from_millis(10), pulse.lost()).await.is_err());
        pulse.beat().await;
        dataplane.workers[1].shut_down(Duration::ZERO);
        pulse.lost().await;
        pulse.beat().await;
    }
}
