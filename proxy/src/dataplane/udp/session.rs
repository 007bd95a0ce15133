//! The life of a session: a client, its backend, and the datagrams between them.

use std::{
    cell::{Cell, RefCell},
    io,
    net::SocketAddr,
    rc::{Rc, Weak},
    time::{Duration, Instant},
};

use rustix::io::Errno;
use tokio::io::Interest;

use super::{
    DatagramSocket,
    admission::{Admission, Applicant},
    batch::{self, Sent},
    failed::FailedBackends,
    port::Port,
    refusal::{SessionRefusal, record_failure},
    replies::Replies,
    upstream::{Fault, Upstream},
};
use crate::dataplane::{
    account::SessionAccount,
    balance::PoolDivision,
    listen,
    record::{EndReason, ReachedBackend},
    trace::ConnectionTrace,
};

/// Most times that datagrams which came together go to another backend, for those that they met have failed.
const MAX_MOVES: usize = 2;

/// A backend that a session has left, and still receives from.
#[derive(Debug)]
struct LeftUpstream {
    upstream: Upstream,
    until: Instant,
}

/// A session and all its resources. Being dropped ends it, and releases all of them.
#[derive(Debug)]
pub(super) struct UdpSession {
    client: SocketAddr,
    /// Its answers leave from there.
    port: Rc<Port>,
    /// None between two backends.
    upstream: RefCell<Option<Upstream>>,
    /// The backend that it has left, while answers of it may be under way.
    left: RefCell<Option<Box<LeftUpstream>>>,
    /// Backends that have failed it since one has answered it.
    failed: RefCell<FailedBackends>,
    /// Time of its latest datagram.
    used: Cell<Instant>,
    account: SessionAccount,
    trace: ConnectionTrace,
    admission: Admission,
}

impl UdpSession {
    /// Decides whether a client gets a session. None, with its datagrams dropped, if it does not.
    pub(super) fn admit(
        port: &Rc<Port>,
        applicant: Applicant,
        is_budget_spent: bool,
        replies: &Rc<Replies>,
        now: Instant,
    ) -> Option<Rc<Self>> {
        let (listener, client) = (port.listener(), applicant.client);
        let trace = ConnectionTrace::start(&listener, client);
        let (account, others) = SessionAccount::open(&listener.shared.counters);
        let admitted = Admission::ask(port, &listener, applicant, others, is_budget_spent).and_then(|it| {
            let upstream = port.connect(&listener, &trace, it.hops(), &mut FailedBackends::default());
            Ok((it, upstream.map_err(SessionRefusal::Connect)?))
        });
        match admitted {
            Ok((admission, upstream)) => {
                let session = Rc::new(Self {
                    client,
                    port: Rc::clone(port),
                    upstream: RefCell::new(None),
                    left: RefCell::default(),
                    failed: RefCell::default(),
                    used: Cell::new(now),
                    account,
                    trace,
                    admission,
                });
                session.set_upstream(upstream, replies);
                Some(session)
            }
            Err(refusal) => {
                trace.set_reason(refusal.record(&listener, client, &account));
                None
            }
        }
    }

    /// The client.
    pub(super) fn client(&self) -> SocketAddr {
        self.client
    }

    /// Time of its latest datagram.
    pub(super) fn used(&self) -> Instant {
        self.used.get()
    }

    /// Notes that its client has sent, though nothing was forwarded.
    pub(super) fn touch(&self, now: Instant) {
        self.used.set(now);
    }

    /// Its listening socket.
    pub(super) fn port(&self) -> &Rc<Port> {
        &self.port
    }

    /// True if it was idle for the timeout; it is to be dropped then.
    pub(super) fn is_idle(&self, timeout: Duration, now: Instant) -> bool {
        let is_idle = now.saturating_duration_since(self.used.get()) >= timeout;
        if is_idle {
            self.trace.set_reason(EndReason::TimedOut);
        }
        is_idle
    }

    /// Leaves its backend, unless one of the pools keeps it: the next datagram goes to another one. Returns the socket, which
    /// is to be dropped, or kept by [`Self::hear`].
    pub(super) fn leave_unless_kept(&self, pools: &PoolDivision) -> Option<Upstream> {
        let keeps = |it: &Upstream| pools.keeps(it.backend, it.address);
        self.upstream.borrow_mut().take_if(|upstream| !keeps(upstream))
    }

    /// Takes the answers of a backend that it has left, for so long. Returns the one before, which is to be dropped.
    pub(super) fn hear(&self, upstream: Upstream, until: Instant) -> Option<Upstream> {
        self.left.replace(Some(Box::new(LeftUpstream { upstream, until }))).map(|before| before.upstream)
    }

    /// Ends that when it is time. Returns the socket, which is to be dropped.
    pub(super) fn stop_hearing(&self, now: Instant) -> Option<Upstream> {
        self.left.borrow_mut().take_if(|left| left.until <= now).map(|left| left.upstream)
    }

    /// Admits datagrams that have come with so many hops left; false if they are to be dropped.
    pub(super) fn pass(&self, hops: u8) -> bool {
        match self.admission.pass(hops) {
            Ok(false) => true,
            Ok(true) => {
                let mut upstream = self.upstream.borrow_mut();
                // Without a socket that takes it the next one does.
                drop(upstream.take_if(|it| it.set_hops(self.admission.hops()).is_err()));
                true
            }
            Err(refusal) => {
                refusal.record(&self.port.listener(), self.client, &self.account);
                false
            }
        }
    }

    /// Sends datagrams of the client to the backend, and to another one if that one has failed. False: there is no
    /// backend left, the datagrams are dropped, and the session is to be dropped, too.
    pub(super) fn forward(self: &Rc<Self>, datagrams: &[&[u8]], replies: &Rc<Replies>, now: Instant) -> bool {
        let mut outgoing = Outgoing { rest: datagrams, moves: 0, is_retry: false };
        while !outgoing.rest.is_empty() {
            let Some(socket) = self.socket(replies) else {
                self.account.count_dropped(outgoing.rest.len());
                return false;
            };
            let Sent { number, error } = batch::send(&*socket, outgoing.rest);
            let (sent, rest) = outgoing.rest.split_at(number.min(outgoing.rest.len()));
            self.count_in(sent, now);
            outgoing = Outgoing { rest, is_retry: outgoing.is_retry && number == 0, ..outgoing };
            if let Some(error) = error {
                self.handle(error, &socket, &mut outgoing);
            }
        }
        true
    }

    /// Decides on what was not sent after an error.
    fn handle(&self, error: Errno, socket: &DatagramSocket, outgoing: &mut Outgoing<'_>) {
        let fault = Fault::of(error);
        let dropped = match fault {
            Fault::Backend => {
                self.fail(&error.into());
                outgoing.moves += 1;
                if outgoing.moves <= MAX_MOVES { 0 } else { outgoing.rest.len() }
            }
            Fault::Size if !outgoing.is_retry => {
                // It may be that of a datagram which was sent before.
                outgoing.is_retry = true;
                0
            }
            Fault::Size | Fault::Datagram => 1,
            Fault::Full => outgoing.rest.len(),
        };
        if fault != Fault::Backend {
            batch::drain_errors(socket);
        }
        self.account.count_dropped(dropped);
        outgoing.rest = outgoing.rest.get(dropped..).unwrap_or_default();
    }

    fn count_in(&self, sent: &[&[u8]], now: Instant) {
        if sent.is_empty() {
            return;
        }
        self.used.set(now);
        let bytes = sent.iter().map(|datagram| datagram.len()).sum();
        self.account.add_in(sent.len(), bytes);
        if let Some(upstream) = &*self.upstream.borrow() {
            upstream.ask(sent.len());
            upstream.assignment.add_bytes(bytes, 0);
        }
        self.trace.add_bytes(bytes, 0);
    }

    /// Counts an answer from this socket that was sent to the client, or dropped.
    pub(super) fn count_out(&self, socket: &Rc<DatagramSocket>, bytes: usize, is_sent: bool) {
        if !is_sent {
            return self.account.count_dropped(1);
        }
        self.account.add_out(bytes);
        let (current, left) = (self.upstream.borrow(), self.left.borrow());
        let left = left.iter().map(|left| &left.upstream);
        if let Some(upstream) = current.iter().chain(left).find(|it| it.has(socket)) {
            upstream.assignment.add_bytes(0, bytes);
        }
        self.trace.add_bytes(0, bytes);
    }

    /// The socket towards its backend, or towards another one if it has none, or the one that it has is down.
    fn socket(self: &Rc<Self>, replies: &Rc<Replies>) -> Option<Rc<DatagramSocket>> {
        let current = self.upstream.borrow().as_ref().filter(|it| it.is_up()).map(|it| Rc::clone(&it.socket));
        if current.is_some() {
            return current;
        }
        self.upstream.take();
        let listener = self.port.listener();
        match self.port.connect(&listener, &self.trace, self.admission.hops(), &mut self.failed.borrow_mut())
        {
            Ok(upstream) => Some(self.set_upstream(upstream, replies)),
            Err(error) => {
                self.trace.set_reason(SessionRefusal::Connect(error).record(
                    &listener,
                    self.client,
                    &self.account,
                ));
                None
            }
        }
    }

    fn set_upstream(self: &Rc<Self>, mut upstream: Upstream, replies: &Rc<Replies>) -> Rc<DatagramSocket> {
        let backend = ReachedBackend {
            id: upstream.backend,
            address: upstream.reached(),
            selected: upstream.selected,
            tries: upstream.tries,
            connected_after: self.trace.started().elapsed(),
        };
        self.trace.set_backend(backend);
        let socket = Rc::clone(&upstream.socket);
        let task = relay_replies(Rc::downgrade(self), Rc::clone(&socket), Rc::clone(replies));
        upstream.task = Some(tokio::task::spawn_local(task).abort_handle());
        self.upstream.replace(Some(upstream));
        socket
    }

    /// Leaves a backend that has failed.
    fn fail(&self, error: &io::Error) {
        let Some(upstream) = self.upstream.take() else { return };
        upstream.assignment.count_failure(error);
        record_failure(&self.port.listener(), upstream.backend, upstream.address, error);
        self.failed.borrow_mut().insert(upstream.backend);
    }

    /// Takes an error that the kernel has for a socket, which is its backend's if it is the current one.
    fn receive_error(&self, error: &io::Error, socket: &Rc<DatagramSocket>) {
        if Errno::from_io_error(error).map(Fault::of) != Some(Fault::Backend) {
            return;
        }
        if self.upstream.borrow().as_ref().is_some_and(|it| it.has(socket)) {
            self.fail(error);
        }
        drop(self.left.borrow_mut().take_if(|left| left.upstream.has(socket)));
    }

    /// Records that so many answers have come from this socket at this moment.
    pub(super) fn answered(&self, socket: &Rc<DatagramSocket>, datagrams: usize) {
        self.used.set(Instant::now());
        let upstream = self.upstream.borrow();
        let Some(upstream) = upstream.as_ref().filter(|it| it.has(socket)) else { return };
        upstream.answer(datagrams);
        self.failed.borrow_mut().clear();
        if upstream.state.is_watched() {
            listen::record_success(&self.port.listener(), upstream.backend, &upstream.state);
        }
    }
}

impl Drop for UdpSession {
    fn drop(&mut self) {
        let upstream = self.upstream.borrow();
        let backend = upstream.as_ref().map(|upstream| &upstream.assignment);
        self.account.count_duration(self.trace.started().elapsed(), backend);
    }
}

/// Datagrams that are being sent.
struct Outgoing<'a> {
    rest: &'a [&'a [u8]],
    moves: usize,
    /// True if the first of the rest has been tried before.
    is_retry: bool,
}

/// Takes the answers of a backend for as long as the session has it.
async fn relay_replies(session: Weak<UdpSession>, socket: Rc<DatagramSocket>, replies: Rc<Replies>) {
    while let Ok(guard) = socket.ready(Interest::READABLE | Interest::ERROR).await {
        let ready = guard.ready();
        drop(guard);
        let Some(session) = session.upgrade() else { return };
        let received = if ready.is_error() {
            // Receiving takes the error; this is for the next one to be noticed.
            let _ = socket.try_io(Interest::ERROR, |_| Err::<(), _>(io::ErrorKind::WouldBlock.into()));
            let received = replies.receive(&session, &socket);
            batch::drain_errors(&*socket);
            received
        } else {
            receive_ready(&session, &socket, &replies)
        };
        if let Err(error) = &received {
            session.receive_error(error, &socket);
        }
        drop(session);
        let is_done = match &received {
            Ok(may_have_more) => !may_have_more,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        };
        if !is_done {
            tokio::task::yield_now().await;
        }
    }
}

/// Receives answers from a socket that is said to have some. True if there may be more.
fn receive_ready(
    session: &Rc<UdpSession>,
    socket: &Rc<DatagramSocket>,
    replies: &Replies,
) -> io::Result<bool> {
    let mut received = Ok(false);
    let _ = socket.try_io(Interest::READABLE, |_| {
        received = replies.receive(session, socket);
        match &received {
            // A batch that is not full was ended by the want of more: the socket is to be awaited again.
            Ok(false) => Err(io::ErrorKind::WouldBlock.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(io::ErrorKind::WouldBlock.into()),
            Ok(true) | Err(_) => Ok(()),
        }
    });
    received
}
