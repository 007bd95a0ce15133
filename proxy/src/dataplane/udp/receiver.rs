//! Receives the datagrams of one endpoint on one worker, and keeps its sessions.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    rc::{Rc, Weak},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{io::Interest, sync::Notify, task::JoinHandle};

use super::{
    UdpResources,
    admission::Applicant,
    batch::{BATCH, Inbox},
    port::Port,
    session::UdpSession,
    wheel::Wheel,
};
use crate::dataplane::{
    listen::{ConnectionBudget, WorkerListener},
    spec::Limits,
};

/// Most batches that are received before the other tasks of the thread have their turn.
const MAX_BATCHES: usize = 2;

/// Most batches of datagrams that are dropped at the start.
const MAX_STALE_BATCHES: usize = 64;

/// Idle timeout of the sessions of a listener without data timeouts.
const DEFAULT_IDLE: Duration = Duration::from_secs(60);

/// A listening socket with its sessions and its tasks.
#[derive(Debug)]
pub(in crate::dataplane) struct Receiver {
    state: Rc<ReceiverState>,
    tasks: [JoinHandle<()>; 2],
}

#[derive(Debug)]
struct ReceiverState {
    port: Rc<Port>,
    budget: Arc<ConnectionBudget>,
    resources: Rc<UdpResources>,
    sessions: RefCell<Sessions>,
    /// The first session has come, or the idle timeout has changed.
    changed: Notify,
    is_v4: bool,
}

#[derive(Debug)]
struct Sessions {
    by_client: HashMap<SocketAddr, Rc<UdpSession>>,
    wheel: Wheel<Weak<UdpSession>>,
}

impl Receiver {
    /// Starts to receive. Needs the worker's runtime.
    ///
    /// What is in the queue already is dropped: while the sockets of the workers were being bound, one after the other,
    /// the kernel gave clients to those that were there, and gives them to others from now on.
    pub(in crate::dataplane) fn start(
        socket: std::net::UdpSocket,
        address: IpAddr,
        listener: Rc<WorkerListener>,
        budget: Arc<ConnectionBudget>,
        resources: &Rc<UdpResources>,
    ) -> io::Result<Self> {
        let socket = super::register(socket)?;
        let sessions = RefCell::new(Sessions::new(idle_timeout(&listener.shared.limits)));
        let port = Rc::new(Port::new(socket, address, listener));
        let (resources, changed) = (Rc::clone(resources), Notify::new());
        let is_v4 = address.is_ipv4();
        let state = Rc::new(ReceiverState { port, budget, resources, sessions, changed, is_v4 });
        state.drop_stale();
        let receiving = tokio::task::spawn_local(Rc::clone(&state).receive_all());
        let expiring = tokio::task::spawn_local(Rc::clone(&state).expire_all());
        Ok(Self { state, tasks: [receiving, expiring] })
    }

    /// Serves this listener from now on. Sessions stay if it is the same listener and admits their clients; those of
    /// backends that its pool does not keep move.
    pub(in crate::dataplane) fn reassign(&self, listener: Rc<WorkerListener>) {
        let before = self.state.port.listener();
        if Rc::ptr_eq(&before, &listener) {
            return;
        }
        let is_same = before.shared.id == listener.shared.id;
        self.state.sessions.borrow_mut().renew(&listener, is_same);
        self.state.port.reassign(listener);
        self.state.changed.notify_one();
    }

    /// Closes the socket, which ends its sessions: nothing can reach them any more.
    pub(in crate::dataplane) async fn close(self) {
        let Self { state, tasks } = self;
        for task in tasks {
            task.abort();
            let _ = task.await;
        }
        state.sessions.borrow_mut().by_client.clear();
    }
}

/// Idle timeout of sessions: the shorter one of the data timeouts.
fn idle_timeout(limits: &Limits) -> Duration {
    [limits.client_data, limits.backend_data].into_iter().flatten().min().unwrap_or(DEFAULT_IDLE)
}

impl ReceiverState {
    fn drop_stale(&self) {
        let mut inbox = self.resources.inbox.borrow_mut();
        for _ in 0..MAX_STALE_BATCHES {
            if inbox.receive(&self.port.socket, self.is_v4).is_err() {
                return;
            }
        }
    }

    async fn receive_all(self: Rc<Self>) {
        while self.port.socket.readable().await.map(drop).is_ok() {
            let mut batches = 0;
            while batches < MAX_BATCHES && self.receive() {
                batches += 1;
            }
            if batches == MAX_BATCHES {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Receives and forwards one batch. True if there may be more.
    fn receive(&self) -> bool {
        let mut inbox = self.resources.inbox.borrow_mut();
        let mut is_full = false;
        // A batch that is not full was ended by the want of more: the socket is to be awaited again.
        let _ = self.port.socket.try_io(Interest::READABLE, |socket| {
            inbox.receive(socket, self.is_v4)?;
            is_full = inbox.received().len() == BATCH;
            if is_full { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
        });
        self.forward(&inbox);
        is_full
    }

    /// Forwards a batch: datagrams that one client has sent in a row go together.
    fn forward(&self, inbox: &Inbox) {
        let (now, mut place) = (Instant::now(), 0);
        let mut datagrams: Vec<&[u8]> = Vec::new();
        for run in inbox.received().chunk_by(|one, other| one.client == other.client) {
            datagrams.clear();
            datagrams.extend((place..).take(run.len()).map(|place| inbox.datagram(place)));
            if let Some(first) = run.first() {
                self.forward_run(first.applicant(), &datagrams, now);
            }
            place += run.len();
        }
    }

    fn forward_run(&self, applicant: Applicant, datagrams: &[&[u8]], now: Instant) {
        let replies = &self.resources.replies;
        let session = self.sessions.borrow().by_client.get(&applicant.client).map(Rc::clone);
        let Some(session) = session.or_else(|| self.open(applicant, now)) else { return };
        if !session.forward(datagrams, replies, now) {
            self.sessions.borrow_mut().by_client.remove(&applicant.client);
        }
    }

    fn open(&self, applicant: Applicant, now: Instant) -> Option<Rc<UdpSession>> {
        let is_spent = self.budget.is_spent();
        let session = UdpSession::admit(&self.port, applicant, is_spent, &self.resources.replies, now)?;
        if self.sessions.borrow_mut().insert(&session) {
            self.changed.notify_one();
        }
        Some(session)
    }

    /// Ends sessions that are idle. Sleeps while there is none.
    async fn expire_all(self: Rc<Self>) {
        loop {
            let next = self.sessions.borrow().next_step();
            let Some(next) = next else {
                self.changed.notified().await;
                continue;
            };
            tokio::select! {
                () = tokio::time::sleep_until(next.into()) => self.sessions.borrow_mut().expire(Instant::now()),
                () = self.changed.notified() => {}
            }
        }
    }
}

impl Sessions {
    fn new(idle: Duration) -> Self {
        Self { by_client: HashMap::new(), wheel: Wheel::new(idle, Instant::now()) }
    }

    /// Inserts a session; true if it is the first one.
    fn insert(&mut self, session: &Rc<UdpSession>) -> bool {
        let is_first = self.by_client.is_empty();
        if is_first {
            // Its hand stood still.
            self.wheel = Wheel::new(self.wheel.timeout(), session.used());
        }
        self.wheel.insert(Rc::downgrade(session), session.used());
        self.by_client.insert(session.client(), Rc::clone(session));
        is_first
    }

    /// Time of the next look at them; None while there is none.
    fn next_step(&self) -> Option<Instant> {
        (!self.by_client.is_empty()).then(|| self.wheel.next_step())
    }

    /// Drops those that were idle for the timeout.
    fn expire(&mut self, now: Instant) {
        let timeout = self.wheel.timeout();
        for session in self.wheel.take_due(now).iter().filter_map(Weak::upgrade) {
            if session.is_idle(timeout, now) {
                self.by_client.remove(&session.client());
            } else {
                self.wheel.insert(Rc::downgrade(&session), session.used());
            }
        }
        if self.by_client.is_empty() {
            // Memory that a flood has left.
            self.by_client.shrink_to_fit();
        }
    }

    /// Takes over the sessions for a listener whose configuration has changed, or for another listener.
    fn renew(&mut self, listener: &WorkerListener, is_same: bool) {
        let shared = &listener.shared;
        self.by_client.retain(|client, session| {
            session.keep_only(listener.pool.as_deref());
            is_same && shared.clients.admit(client.ip())
        });
        let mut wheel = Wheel::new(idle_timeout(&shared.limits), Instant::now());
        for session in self.by_client.values() {
            wheel.insert(Rc::downgrade(session), session.used());
        }
        self.wheel = wheel;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_end_by_the_shorter_data_timeout() {
        let [client, backend] = [50, 20].map(Duration::from_secs);
        let idle = |client_data, backend_data| {
            idle_timeout(&Limits { client_data, backend_data, ..Limits::default() })
        };
        assert_eq!(idle(Some(client), Some(backend)), backend);
        assert_eq!(idle(Some(client), None), client);
        assert_eq!(idle(None, None), DEFAULT_IDLE);
    }
}
