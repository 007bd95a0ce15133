//! A client's turn: takes a place at a backend, for which it may have to wait in the queue of the pool.

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{io::Interest, net::TcpStream};
use uuid::Uuid;

use crate::dataplane::{
    account::Assignment,
    balance::{BackendState, ClientKeys, EjectedUse, WorkerPool},
    listen::WorkerListener,
    record::SelectedBy,
};

/// Interval at which is looked for what nothing tells of: whether a client that has sent something has gone since, and, for the
/// first one, whether a backend takes connections again by the passing of time.
const LOOK: Duration = Duration::from_millis(500);

/// Reason why a client gets no turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TurnError {
    /// No backend takes connections.
    NoBackend,
    /// All backends are at their limits, and there is no queue, or no place in it.
    Full,
    /// It has waited too long.
    Timeout,
    /// It has closed its connection, or one half of it, while it waited.
    ClientGone,
}

/// A backend while it is tried, with a place there.
#[derive(Debug)]
pub(super) struct PlacedAttempt {
    pub(super) place: usize,
    pub(super) id: Uuid,
    pub(super) address: SocketAddr,
    pub(super) selected: SelectedBy,
    pub(super) state: Arc<BackendState>,
    pub(super) assignment: Assignment,
}

impl PlacedAttempt {
    /// The next backend to try; None: none is left.
    pub(super) fn next(
        pool: &WorkerPool,
        keys: &ClientKeys,
        tried: &[usize],
        ejected: EjectedUse,
        now: Instant,
    ) -> Option<Self> {
        loop {
            let (place, member, selected) = pool.next(keys, tried, ejected, now)?;
            // Another worker may have taken the last place since: then it is not selected again.
            if let Some(assignment) = Assignment::reserve(member.load()) {
                let (id, address, state) = (member.id(), member.address(), Arc::clone(member.state()));
                return Some(Self { place, id, address, selected, state, assignment });
            }
        }
    }
}

/// A backend for a client, in the pool that is in force by then.
pub(super) struct Turn {
    pub(super) pool: Rc<WorkerPool>,
    pub(super) keys: ClientKeys,
    /// Places of the backends that were tried before.
    pub(super) tried: Vec<usize>,
    pub(super) attempt: PlacedAttempt,
}

impl Turn {
    fn take(pool: &Rc<WorkerPool>, client: SocketAddr, tried: &[usize]) -> Option<Self> {
        let keys = pool.keys_of_peer(client);
        let attempt = PlacedAttempt::next(pool, &keys, tried, ejected_use(pool), Instant::now())?;
        Some(Self { pool: Rc::clone(pool), keys, tried: tried.to_vec(), attempt })
    }
}

/// Use of ejected backends for the connections of a pool: none is an alternative to waiting, where clients may wait.
pub(super) fn ejected_use(pool: &WorkerPool) -> EjectedUse {
    if pool.queue().is_some() { EjectedUse::WithoutOthers } else { EjectedUse::WithoutPlaces }
}

/// Takes a place at a backend of a pool, or waits for one if all backends are at their limits.
pub(super) async fn take(
    listener: &WorkerListener,
    pool: &Rc<WorkerPool>,
    stream: &TcpStream,
    client: SocketAddr,
) -> Result<Turn, TurnError> {
    // Nobody overtakes those who wait.
    let may_take = pool.queue().is_none_or(|queue| queue.is_empty());
    if let Some(turn) = may_take.then(|| Turn::take(pool, client, &[])).flatten() {
        return Ok(turn);
    }
    wait(listener, stream, client, Rc::clone(pool), Vec::new()).await
}

/// Waits for a place at a backend that was not `tried`.
pub(super) async fn wait(
    listener: &WorkerListener,
    stream: &TcpStream,
    client: SocketAddr,
    mut pool: Rc<WorkerPool>,
    mut tried: Vec<usize>,
) -> Result<Turn, TurnError> {
    if !pool.has_backends(&tried) {
        return Err(TurnError::NoBackend);
    }
    let queue = pool.queue().filter(|_| pool.awaits_places(&tried)).map(Arc::clone).ok_or(TurnError::Full)?;
    let ticket = queue.enter().ok_or(TurnError::Full)?;
    let _counted = listener.shared.counters.wait();
    let deadline = tokio::time::Instant::now() + pool.queue_timeout();
    loop {
        let is_first = ticket.is_first();
        if is_first {
            // A place that is free from now on wakes it: it looks again.
            pool.await_places();
            if let Some(turn) = Turn::take(&pool, client, &tried) {
                return Ok(turn);
            }
            if !pool.has_backends(&tried) {
                return Err(TurnError::NoBackend);
            }
        }
        tokio::select! {
            biased;
            () = ticket.woken() => {}
            () = gone(stream) => return Err(TurnError::ClientGone),
            () = tokio::time::sleep(LOOK), if is_first => {}
            () = tokio::time::sleep_until(deadline) => return Err(TurnError::Timeout),
        }
        // The configuration may have changed meanwhile.
        let in_force = listener.connections.pools().pool(pool.id()).map(Rc::clone);
        let in_force = in_force.ok_or(TurnError::NoBackend)?;
        tried = in_force.places_of(&pool, &tried);
        pool = in_force;
        if pool.queue().is_none_or(|it| !Arc::ptr_eq(it, &queue)) {
            return Turn::take(&pool, client, &tried).ok_or(TurnError::Full);
        }
    }
}

/// Waits until a client has closed its half: while it waits it is taken for gone.
async fn gone(client: &TcpStream) {
    loop {
        match client.ready(Interest::READABLE).await {
            Ok(ready) if ready.is_read_closed() => return,
            Ok(_) => tokio::time::sleep(LOOK).await,
            // The runtime ends.
            Err(_) => std::future::pending::<()>().await,
        }
    }
}
