//! Receives the datagrams of one endpoint on one worker, and keeps its sessions.

use std::{
    cell::RefCell,
    io,
    net::IpAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{io::Interest, sync::Notify, task::JoinHandle};

use super::{
    UdpResources, admission::Applicant, batch::Inbox, port::Port, refusal, session::UdpSession,
    sessions::Sessions,
};
use crate::dataplane::listen::{ConnectionBudget, Way, WorkerListener};

/// Most batches that are received before the other tasks of the thread have their turn.
const MAX_BATCHES: usize = 2;

/// Most batches of datagrams that are dropped at the start.
const MAX_STALE_BATCHES: usize = 64;

/// Backoff of receiving after an error of the kernel: the first pause, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(320);

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
    /// The first session has come, or the listener has changed.
    changed: Notify,
    is_v4: bool,
}

impl Receiver {
    /// Starts to receive. Needs the worker's runtime.
    ///
    /// Datagrams in the queue are dropped first: while the sockets of the workers were being bound, one after the other,
    /// the kernel gave clients to those that were there, and gives them to others from now on.
    pub(in crate::dataplane) fn start(
        socket: std::net::UdpSocket,
        address: IpAddr,
        listener: Rc<WorkerListener>,
        budget: Arc<ConnectionBudget>,
        resources: &Rc<UdpResources>,
    ) -> io::Result<Self> {
        let socket = super::register(socket)?;
        let sessions = RefCell::new(Sessions::new(&listener.shared.limits));
        let port = Rc::new(Port::new(socket, address, listener));
        let (resources, changed) = (Rc::clone(resources), Notify::new());
        let is_v4 = address.is_ipv4();
        let state = Rc::new(ReceiverState { port, budget, resources, sessions, changed, is_v4 });
        state.drop_stale();
        let receiving = tokio::task::spawn_local(Rc::clone(&state).receive_all());
        let working = tokio::task::spawn_local(Rc::clone(&state).work_all());
        Ok(Self { state, tasks: [receiving, working] })
    }

    /// Serves this listener from now on. Sessions stay if it is the same listener and admits their clients; those of
    /// backends that its pool does not keep move.
    pub(in crate::dataplane) fn reassign(&self, listener: Rc<WorkerListener>) {
        let before = self.state.port.listener();
        if Rc::ptr_eq(&before, &listener) {
            return;
        }
        self.state.sessions.borrow_mut().renew(&before, &listener);
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
        state.sessions.borrow_mut().end_all();
        while state.sessions.borrow_mut().drop_ended() {
            tokio::task::yield_now().await;
        }
    }
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
        let mut pause = FIRST_PAUSE;
        while self.port.socket.readable().await.map(drop).is_ok() {
            match self.receive_batches() {
                Ok(may_have_more) => {
                    pause = FIRST_PAUSE;
                    if may_have_more {
                        tokio::task::yield_now().await;
                    }
                }
                Err(error) => {
                    refusal::record_receiving(&self.port.listener(), &error);
                    tokio::time::sleep(pause).await;
                    pause = LONGEST_PAUSE.min(pause * 2);
                }
            }
        }
    }

    /// Receives and forwards a bounded number of batches. True if there may be more.
    fn receive_batches(&self) -> io::Result<bool> {
        for _ in 0..MAX_BATCHES {
            if !self.receive()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Receives and forwards one batch. True if there may be more.
    fn receive(&self) -> io::Result<bool> {
        let mut inbox = self.resources.inbox.borrow_mut();
        let mut received = Ok(false);
        let _ = self.port.socket.try_io(Interest::READABLE, |socket| {
            received = inbox.receive(socket, self.is_v4);
            match &received {
                // A batch that is not full was ended by the want of more: the socket is to be awaited again.
                Ok(false) => Err(io::ErrorKind::WouldBlock.into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    Err(io::ErrorKind::WouldBlock.into())
                }
                Ok(true) | Err(_) => Ok(()),
            }
        });
        self.forward(&inbox);
        received
            .or_else(|error| if error.kind() == io::ErrorKind::WouldBlock { Ok(false) } else { Err(error) })
    }

    /// Forwards a batch: datagrams that one client has sent in a row go together.
    fn forward(&self, inbox: &Inbox) {
        let (now, mut place) = (Instant::now(), 0);
        let mut datagrams: Vec<&[u8]> = Vec::new();
        for run in inbox.received().chunk_by(|one, other| one.applicant() == other.applicant()) {
            datagrams.clear();
            datagrams.extend((place..).take(run.len()).map(|place| inbox.datagram(place)));
            if let Some(first) = run.first() {
                self.forward_run(first.applicant(), &mut datagrams, now);
            }
            place += run.len();
        }
    }

    fn forward_run(&self, applicant: Applicant, datagrams: &mut Vec<&[u8]>, now: Instant) {
        let replies = &self.resources.replies;
        let session = self.sessions.borrow().get(applicant.client);
        let Some(session) = session.or_else(|| self.open(applicant, now)) else { return };
        if !session.pass(applicant.hops) {
            return;
        }
        let listener = self.port.listener();
        if let Some(bandwidth) = &listener.shared.bandwidth {
            let before = datagrams.len();
            datagrams.retain(|datagram| bandwidth.admit(Way::Up, datagram.len(), now));
            if datagrams.len() < before {
                refusal::log_bandwidth(&listener);
                session.touch(now);
            }
        }
        if !session.forward(datagrams, replies, now) {
            self.sessions.borrow_mut().remove(applicant.client);
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

    /// Works on the sessions when it is time: ends those that are idle, and drops what has ended.
    async fn work_all(self: Rc<Self>) {
        loop {
            let has_more = self.sessions.borrow_mut().work(Instant::now());
            let next = self.sessions.borrow().next_step();
            match next {
                _ if has_more => tokio::task::yield_now().await,
                Some(next) => {
                    let _ = tokio::time::timeout_at(next.into(), self.changed.notified()).await;
                }
                None => self.changed.notified().await,
            }
        }
    }
}
