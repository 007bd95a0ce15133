//! Answers of backends on their way to clients: gathered over all sessions that are ready at the same time, and sent
//! together.

use std::{cell::RefCell, io, net::SocketAddr, rc::Rc, time::Instant};

use tokio::sync::Notify;

use super::{
    DatagramSocket,
    batch::{self, BATCH, Outbox, Sent},
    port::Port,
    refusal,
    session::UdpSession,
};
use crate::dataplane::listen::{Bandwidth, Way};

/// Answers of one thread that are not sent yet.
#[derive(Debug, Default)]
pub(super) struct Replies {
    pending: RefCell<Pending>,
    gathered: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    outbox: Outbox,
    /// One for each answer.
    sessions: Vec<AnswerOrigin>,
}

/// Session of an answer, and the socket that it has come by.
type AnswerOrigin = (Rc<UdpSession>, Rc<DatagramSocket>);

impl Replies {
    /// None yet, with the task that sends them. Needs the worker's runtime.
    pub(super) fn start() -> Rc<Self> {
        let replies = Rc::<Self>::default();
        tokio::task::spawn_local(Rc::clone(&replies).send_all());
        replies
    }

    /// Sends what was gathered. The task is woken by the first answer, and runs behind the sessions that were woken
    /// before: their answers go out with it.
    async fn send_all(self: Rc<Self>) {
        loop {
            self.gathered.notified().await;
            self.pending.borrow_mut().send();
        }
    }

    /// Receives answers for a session from its backend. True if there may be more.
    ///
    /// # Errors
    /// The kernel's; there is no datagram then.
    pub(super) fn receive(&self, session: &Rc<UdpSession>, socket: &Rc<DatagramSocket>) -> io::Result<bool> {
        let mut pending = self.pending.borrow_mut();
        let (number, may_have_more) = pending.outbox.receive(socket.get_ref())?;
        session.answered(socket, number);
        let origins = (0..number).map(|_| (Rc::clone(session), Rc::clone(socket)));
        pending.sessions.extend(origins);
        if pending.outbox.len() == BATCH {
            pending.send();
        } else {
            self.gathered.notify_one();
        }
        Ok(may_have_more)
    }
}

impl Pending {
    /// Sends all of them, or drops those that cannot be sent.
    fn send(&mut self) {
        let mut place = 0;
        for run in self.sessions.chunk_by(|(one, _), (other, _)| Rc::ptr_eq(one.port(), other.port())) {
            if let Some((first, _)) = run.first() {
                let listener = first.port().listener();
                match listener.shared.bandwidth.as_deref() {
                    None => self.send_run(first.port(), run, place),
                    Some(bandwidth) => {
                        if !self.send_within(bandwidth, first.port(), run, place) {
                            refusal::log_bandwidth(&listener);
                        }
                    }
                }
            }
            place += run.len();
        }
        self.sessions.clear();
        self.outbox.clear();
    }

    /// Sends answers as [`Self::send_run`] does, and drops those for which the bandwidth does not suffice. True: there is none.
    fn send_within(&self, bandwidth: &Bandwidth, port: &Port, run: &[AnswerOrigin], place: usize) -> bool {
        let now = Instant::now();
        let mut first = 0;
        for index in 0..run.len() {
            if !bandwidth.admit(Way::Down, self.outbox.datagram(place + index).len(), now) {
                self.send_run(port, run.get(first..index).unwrap_or_default(), place + first);
                first = index + 1;
            }
        }
        self.send_run(port, run.get(first..).unwrap_or_default(), place + first);
        first == 0
    }

    /// Sends answers that leave from the same port, the first of which is at `place`.
    fn send_run(&self, port: &Port, run: &[AnswerOrigin], place: usize) {
        let datagrams = run.iter().zip(place..);
        let datagrams = datagrams.map(|((it, _), place)| (it.client(), self.outbox.datagram(place)));
        let datagrams: Vec<(SocketAddr, &[u8])> = datagrams.collect();
        let mut next = 0;
        while let Some(rest) = datagrams.get(next..).filter(|rest| !rest.is_empty()) {
            let Sent { number, error } = batch::send_to(&port.socket, rest);
            let is_sent = |index: usize| index < number;
            // Behind one that could not be sent the others are tried, too: it may be the only one.
            let handled = (number + usize::from(error.is_some())).max(1);
            let sessions = run.iter().skip(next).zip(rest).enumerate().take(handled);
            for (index, ((session, socket), (_, datagram))) in sessions {
                session.count_out(socket, datagram.len(), is_sent(index));
            }
            next += handled;
        }
    }
}
