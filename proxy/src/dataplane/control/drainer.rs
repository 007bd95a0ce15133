//! Cuts the connections of backends that are gone, by the drain timeouts of their pools: a task on each worker.

use std::{cell::RefCell, rc::Rc, time::Duration};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use uuid::Uuid;

use crate::dataplane::listen::{OpenConnections, WorkerListener};

/// Least time between two reviews, each of which looks at all backends with connections: health may change at any pace.
const PACE: Duration = Duration::from_millis(100);

/// Listeners whose backends are watched.
type Watched = RefCell<Vec<Rc<WorkerListener>>>;

/// The task, as its worker sees it.
#[derive(Debug)]
pub(super) struct Drainer {
    watched: Rc<Watched>,
    wake: Rc<Notify>,
}

impl Drainer {
    /// Starts the task on this worker. `flips` tells of changes of health. Needs the worker's runtime.
    pub(super) fn start(flips: watch::Receiver<()>) -> Self {
        let (watched, wake) = (Rc::<Watched>::default(), Rc::<Notify>::default());
        tokio::task::spawn_local(run(Rc::clone(&watched), Rc::clone(&wake), flips));
        Self { watched, wake }
    }

    /// The connections of a new listener.
    pub(super) fn connections(&self) -> OpenConnections {
        OpenConnections::new(Rc::clone(&self.wake))
    }

    /// Watches those of these listeners, and of no others, that have anything to watch.
    pub(super) fn watch<'a>(&self, listeners: impl Iterator<Item = &'a Rc<WorkerListener>>) {
        let watched = listeners.filter(|listener| listener.connections.is_watched()).map(Rc::clone);
        *self.watched.borrow_mut() = watched.collect();
        self.wake.notify_one();
    }
}

async fn run(watched: Rc<Watched>, wake: Rc<Notify>, mut flips: watch::Receiver<()>) {
    let mut flips_end = false;
    loop {
        let now = Instant::now();
        let next = cut_due(&watched.borrow(), now);
        tokio::select! {
            () = wake.notified() => {}
            flip = flips.changed(), if !flips_end => flips_end = flip.is_err(),
            () = reached(next) => {}
        }
        tokio::time::sleep_until(now + PACE).await;
    }
}

async fn reached(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Cuts what is due; returns when the next connections are.
fn cut_due(listeners: &[Rc<WorkerListener>], now: Instant) -> Option<Instant> {
    let review = |listener: &Rc<WorkerListener>| {
        let cut = |backend, connections| log_cut(listener, backend, connections, now);
        listener.connections.cut_due(now, cut)
    };
    listeners.iter().filter_map(review).min()
}

fn log_cut(listener: &WorkerListener, backend: Uuid, connections: usize, now: Instant) {
    let Some(suppressed) = listener.throttles.gone.admit(now.into_std()) else { return };
    tracing::info!(
        listener = %listener.shared.id, name = listener.shared.name, %backend, connections, suppressed,
        "resetting connections: their backend is gone, and the drain timeout of its pool is over"
    );
}
