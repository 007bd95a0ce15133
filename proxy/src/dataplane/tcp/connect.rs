//! Connects to a backend for a client: one candidate after the other, a slow one beside the next ones, until one accepts,
//! the client is gone, or the search has taken too much.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    rc::Rc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncWriteExt as _, Interest},
    net::TcpStream,
};

use super::{
    attempt::{PendingAttempt, PendingCount},
    relay::FreshBackend,
    turn::{self, PlacedAttempt, Turn, TurnError},
};
use crate::{
    dataplane::{
        account::{Assignment, increment},
        balance::{ClientKeys, EjectedUse, WorkerPool},
        listen::{self, PortOffset, WorkerListener},
        record::ReachedBackend,
    },
    proxy_protocol::Version,
    shortage::NodeResource,
};

/// Most backends that are tried for one client. A client costs the network no more than so many SYNs, whatever
/// the pool.
const MAX_TRIES: usize = 16;

/// Most backends that are tried at the same time. For another one the first of them is given up.
const MAX_PENDING: usize = 3;

/// Longest time after which another backend is tried beside one that has not answered: the kernel asks that one again a
/// little later.
const MOST_FIRST_WAIT: Duration = Duration::from_millis(950);

/// Shortest time after which that is done, whatever part of its timeout it is.
const LEAST_FIRST_WAIT: Duration = Duration::from_millis(250);

/// Time after which no other backend is tried for a client. Those that are being tried then have all of their
/// time.
const MAX_SEARCH: Duration = Duration::from_secs(15);

/// A connection to a backend, counted as the backend's.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) stream: TcpStream,
    pub(super) assignment: Assignment,
    pub(super) backend: ReachedBackend,
    /// The pool that the backend is of.
    pub(super) pool: Rc<WorkerPool>,
    pub(super) fresh: FreshBackend,
}

/// Reason why no backend was reached.
#[derive(Debug)]
pub(super) enum ConnectError {
    /// No backend is eligible, or none of those that were tried has accepted.
    NoBackend,
    /// All backends are at their limits, and there is no queue, or no place in it.
    Full,
    /// It has waited too long for a place at a backend.
    QueueTimeout,
    /// The client has reset its connection, or no longer answers.
    ClientGone,
    /// This node cannot connect, for want of ports, descriptors or memory of its own.
    Exhausted(io::Error),
}

impl From<TurnError> for ConnectError {
    fn from(error: TurnError) -> Self {
        match error {
            TurnError::NoBackend => Self::NoBackend,
            TurnError::Full => Self::Full,
            TurnError::Timeout => Self::QueueTimeout,
            TurnError::ClientGone => Self::ClientGone,
        }
    }
}

/// A client that is to be connected.
#[derive(Clone, Copy)]
pub(super) struct ConnectingClient<'a> {
    pub(super) stream: &'a TcpStream,
    /// Its address.
    pub(super) client: SocketAddr,
    /// The pool that was selected for it.
    pub(super) pool: &'a Rc<WorkerPool>,
    /// Time of its acceptance.
    pub(super) accepted: Instant,
    /// Place of the port at which it was accepted.
    pub(super) offset: PortOffset,
}

/// Connects a client to a backend, and sends that one the header that `header` makes first, if its pool asks for one.
pub(super) async fn open(
    listener: &Rc<WorkerListener>,
    applicant: ConnectingClient<'_>,
    count: &PendingCount,
    header: impl FnMut(Version) -> Vec<u8>,
) -> Result<Opened, ConnectError> {
    tokio::select! {
        biased;
        result = search(listener, applicant, count, header) => result,
        () = broken(applicant.stream) => Err(ConnectError::ClientGone),
    }
}

/// Waits until the connection is broken. One half that is closed does not break it: the client may be waiting
/// for an answer.
async fn broken(client: &TcpStream) {
    if client.ready(Interest::ERROR).await.is_err() {
        // The runtime ends.
        std::future::pending::<()>().await;
    }
}

/// Tries the candidates in turn, each at most once.
async fn search(
    listener: &Rc<WorkerListener>,
    applicant: ConnectingClient<'_>,
    count: &PendingCount,
    mut header: impl FnMut(Version) -> Vec<u8>,
) -> Result<Opened, ConnectError> {
    let Turn { pool, keys, tried, attempt } =
        turn::take(listener, applicant.pool, applicant.stream, applicant.client).await?;
    let (started, pending) = (Instant::now(), Vec::with_capacity(1));
    let offset = applicant.offset;
    let mut search = Search {
        listener,
        count,
        pool,
        keys,
        offset,
        tried,
        pending,
        started,
        next_at: None,
        exhausted: None,
    };
    let mut next = Some(attempt);
    loop {
        while let Some(placed) = next {
            search.begin(placed)?;
            next = if search.pending.is_empty() { search.next() } else { None };
        }
        if search.pending.is_empty() {
            next = Some(search.wait(applicant).await?);
            continue;
        }
        match search.event().await {
            Some((attempt, Ok(mut stream))) => {
                // At once: a server may be the first to speak, and waits for it.
                let sent = match search.pool.header() {
                    Some(version) => stream.write_all(&header(version)).await,
                    None => Ok(()),
                };
                match sent {
                    Ok(()) => return Ok(search.opened(attempt, stream, applicant.accepted)),
                    Err(error) => search.fail(&attempt.placed, error)?,
                }
            }
            Some((attempt, Err(error))) => search.fail(&attempt.placed, error)?,
            None => {}
        }
        // The place of one that has failed is another one's by now.
        next = search.next();
    }
}

/// True if another backend may be tried for a client, after so many, and so long.
fn may_try(tried: usize, elapsed: Duration) -> bool {
    tried < MAX_TRIES && elapsed < MAX_SEARCH
}

/// Time after which another backend is tried beside one that has not answered: a part of its timeout.
fn first_wait(timeout: Option<Duration>) -> Duration {
    timeout.map_or(MOST_FIRST_WAIT, |timeout| {
        (timeout / 5).clamp(LEAST_FIRST_WAIT, MOST_FIRST_WAIT).min(timeout)
    })
}

/// A search for a backend that accepts a client.
struct Search<'a> {
    listener: &'a Rc<WorkerListener>,
    count: &'a PendingCount,
    pool: Rc<WorkerPool>,
    keys: ClientKeys,
    offset: PortOffset,
    /// Places of the backends that have failed, or were given up.
    tried: Vec<usize>,
    /// The first one first.
    pending: Vec<PendingAttempt>,
    started: Instant,
    /// Time at which another backend is tried beside those that are pending.
    next_at: Option<Instant>,
    /// Want of something of the node.
    exhausted: Option<io::Error>,
}

impl Search<'_> {
    /// Begins an attempt, beside those that are pending.
    fn begin(&mut self, mut placed: PlacedAttempt) -> Result<(), ConnectError> {
        placed.address = self.offset.above(placed.address);
        let (now, place) = (Instant::now(), placed.place);
        let is_beside = !self.pending.is_empty();
        if is_beside && (self.pending.len() >= MAX_PENDING || self.count.is_high()) {
            let first = self.pending.remove(0);
            self.tried.push(first.placed.place);
            self.give_up(first);
        }
        let delays_ack = self.pool.header().is_some() || self.listener.clients_speak_first.get();
        match PendingAttempt::begin(&self.listener.shared, placed, self.count, delays_ack, now) {
            Ok(attempt) => {
                self.pending.push(attempt);
                self.next_at = now.checked_add(first_wait(self.listener.shared.limits.backend_connect));
                Ok(())
            }
            Err(error) => {
                self.tried.push(place);
                self.exhaust(error)
            }
        }
    }

    /// Waits for the end of an attempt. None: it is time to try another backend beside those that are pending.
    async fn event(&mut self) -> Option<(PendingAttempt, io::Result<TcpStream>)> {
        let deadline = self.pending.iter().filter_map(PendingAttempt::deadline).min();
        let wake = [self.next_at, deadline].into_iter().flatten().min();
        let ended = poll_fn(|cx| poll_any(&mut self.pending, cx));
        let ended = match wake {
            Some(wake) => tokio::time::timeout_at(wake.into(), ended).await.ok(),
            None => Some(ended.await),
        };
        if let Some((index, result)) = ended {
            return Some((self.pending.remove(index), result));
        }
        let now = Instant::now();
        if let Some(index) = self.pending.iter().position(|attempt| attempt.is_overdue(now)) {
            return Some((self.pending.remove(index), Err(io::ErrorKind::TimedOut.into())));
        }
        self.next_at = None;
        None
    }

    /// The next backend to try at once. One that is ejected is none as long as another one may accept.
    fn next(&self) -> Option<PlacedAttempt> {
        let now = Instant::now();
        if !self.may_go_on(now) {
            return None;
        }
        let ejected = if self.pending.is_empty() { turn::ejected_use(&self.pool) } else { EjectedUse::Never };
        let pending = self.pending.iter().map(|attempt| attempt.placed.place);
        let excluded: Vec<usize> = self.tried.iter().copied().chain(pending).collect();
        PlacedAttempt::next(&self.pool, &self.keys, &excluded, ejected, now)
    }

    fn may_go_on(&self, now: Instant) -> bool {
        let is_short = self.exhausted.as_ref().is_some_and(|error| !is_want_of_ports(error));
        let tries = self.tried.len() + self.pending.len();
        !is_short && may_try(tries, now.saturating_duration_since(self.started))
    }

    /// Waits for a place at a backend that was not tried, if clients may wait for one.
    async fn wait(&mut self, applicant: ConnectingClient<'_>) -> Result<PlacedAttempt, ConnectError> {
        let may_come = self.pool.queue().is_some() && self.pool.awaits_places(&self.tried);
        let may_wait = may_come && self.may_go_on(Instant::now());
        let tried = std::mem::take(&mut self.tried);
        let waited = if may_wait {
            let pool = Rc::clone(&self.pool);
            turn::wait(self.listener, applicant.stream, applicant.client, pool, tried).await
        } else {
            Err(TurnError::NoBackend)
        };
        match waited {
            Ok(Turn { pool, keys, tried, attempt }) => {
                (self.pool, self.keys, self.tried) = (pool, keys, tried);
                Ok(attempt)
            }
            Err(TurnError::NoBackend) => {
                Err(self.exhausted.take().map_or(ConnectError::NoBackend, ConnectError::Exhausted))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Records that an attempt has failed.
    fn fail(&mut self, placed: &PlacedAttempt, error: io::Error) -> Result<(), ConnectError> {
        self.tried.push(placed.place);
        if NodeResource::of_error(&error).is_some() {
            return self.exhaust(error);
        }
        record_failure(self.listener, &self.pool, placed, &error);
        Ok(())
    }

    /// Records that the node could not make an attempt. Ports are short towards one backend; all else is towards the others
    /// too, but for those that are pending.
    fn exhaust(&mut self, error: io::Error) -> Result<(), ConnectError> {
        if let Some(resource) = NodeResource::of_error(&error) {
            self.listener.shared.shortages.record(resource);
        }
        if self.pending.is_empty() && !is_want_of_ports(&error) {
            return Err(ConnectError::Exhausted(error));
        }
        self.exhausted = Some(error);
        Ok(())
    }

    /// Ends the search with a connection.
    fn opened(mut self, attempt: PendingAttempt, stream: TcpStream, accepted: Instant) -> Opened {
        let PendingAttempt { placed, delays_ack, .. } = attempt;
        let fresh = FreshBackend { delays_ack, is_written: self.pool.header().is_some() };
        let connected = Instant::now();
        self.pool.remember(&self.keys, placed.id, connected);
        listen::record_success(self.listener, placed.id, &placed.state);
        let backend = ReachedBackend {
            id: placed.id,
            address: placed.address,
            selected: placed.selected,
            tries: u8::try_from(self.tried.len() + self.pending.len() + 1).unwrap_or(u8::MAX),
            connected_after: connected.saturating_duration_since(accepted),
        };
        for attempt in std::mem::take(&mut self.pending) {
            self.give_up(attempt);
        }
        Opened { stream, assignment: placed.assignment, backend, pool: self.pool, fresh }
    }

    /// Gives an attempt up for another one, which is no failure. What becomes of it still tells a passive health check
    /// whether the backend answers in its time.
    fn give_up(&self, attempt: PendingAttempt) {
        if self.pool.checks_passively() && !self.count.is_high() {
            let (listener, pool) = (Rc::clone(self.listener), Rc::clone(&self.pool));
            tokio::task::spawn_local(observe(listener, pool, attempt));
        }
    }
}

fn poll_any(pending: &mut [PendingAttempt], cx: &mut Context<'_>) -> Poll<(usize, io::Result<TcpStream>)> {
    for (index, attempt) in pending.iter_mut().enumerate() {
        if let Poll::Ready(result) = attempt.poll(cx) {
            return Poll::Ready((index, result));
        }
    }
    Poll::Pending
}

fn is_want_of_ports(error: &io::Error) -> bool {
    NodeResource::of_error(error) == Some(NodeResource::Ports)
}

/// Waits for the end of an attempt that no client needs any more.
async fn observe(listener: Rc<WorkerListener>, pool: Rc<WorkerPool>, mut attempt: PendingAttempt) {
    match attempt.ended().await {
        Ok(_closed) => listen::record_success(&listener, attempt.placed.id, &attempt.placed.state),
        Err(error) if NodeResource::of_error(&error).is_none() => {
            record_failure(&listener, &pool, &attempt.placed, &error);
        }
        Err(_) => {}
    }
}

fn record_failure(listener: &WorkerListener, pool: &WorkerPool, attempt: &PlacedAttempt, error: &io::Error) {
    increment(&listener.shared.counters.connect_failures);
    attempt.assignment.count_failure(error);
    listen::record_failure(listener, Some(pool), attempt.id, attempt.address, error);
    if let Some(suppressed) = listener.throttles.connect.admit(Instant::now()) {
        tracing::info!(
            listener = %listener.shared.id,
            name = listener.shared.name,
            backend = %attempt.id,
            address = %attempt.address,
            %error,
            suppressed,
            "backend does not accept a connection; trying the next one"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_backend_is_tried_before_the_kernel_asks_a_slow_one_again_and_none_has_no_time() {
        let wait = |millis: Option<u64>| first_wait(millis.map(Duration::from_millis)).as_millis();
        assert_eq!([None, Some(5_000), Some(60_000), Some(3_000)].map(wait), [950, 950, 950, 600]);
        assert_eq!([Some(1_000), Some(250), Some(100), Some(0)].map(wait), [250, 250, 100, 0]);
    }

    #[test]
    fn a_search_has_a_bound_of_number_and_one_of_time() {
        assert!(may_try(0, Duration::ZERO));
        assert!(may_try(MAX_TRIES - 1, MAX_SEARCH - Duration::from_millis(1)));
        assert!(!may_try(MAX_TRIES, Duration::ZERO));
        assert!(!may_try(1, MAX_SEARCH));
    }
}
