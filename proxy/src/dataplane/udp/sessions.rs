//! The sessions of one listening socket. Work on many of them is done in turns, between which others have theirs: a
//! socket that is closed costs the kernel some microseconds, and there may be tens of thousands.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    rc::{Rc, Weak},
    time::{Duration, Instant},
};

use super::{session::UdpSession, upstream::Upstream, wheel::Wheel};
use crate::dataplane::{balance::PoolDivision, listen::WorkerListener, spec::Limits};

/// Idle timeout of the sessions of a listener without data timeouts.
const DEFAULT_IDLE: Duration = Duration::from_secs(60);

/// Time for which a backend that a session has left may answer what was asked before.
const HEARING: Duration = Duration::from_secs(5);

/// Most sessions at a time that receive from a backend which they have left: each takes a second port of the node meanwhile.
const MOST_HEARING: usize = 1_024;

/// Most sessions of each kind of work in one turn.
const TURN: usize = 256;

/// Room for sessions that is kept although it is not needed.
const KEPT_ROOM: usize = 1_024;

/// Sessions by their clients, and those that are about to go.
#[derive(Debug)]
pub(super) struct Sessions {
    by_client: HashMap<SocketAddr, Rc<UdpSession>>,
    wheel: Wheel<Weak<UdpSession>>,
    /// Sessions that the wheel has brought up, still to be looked at.
    due: Vec<Weak<UdpSession>>,
    /// Ended sessions, still to be dropped.
    ended: Vec<Rc<UdpSession>>,
    /// Sockets that sessions have left, which are still to be dropped.
    left: Vec<Upstream>,
    /// Sessions that receive from a backend which they have left, and until when. The first one ends first.
    hearing: VecDeque<(Instant, Weak<UdpSession>)>,
}

impl Sessions {
    /// None yet, of a listener with these limits.
    pub(super) fn new(limits: &Limits) -> Self {
        let wheel = Wheel::new(idle_timeout(limits), Instant::now());
        let (by_client, hearing) = (HashMap::new(), VecDeque::new());
        Self { by_client, wheel, due: Vec::new(), ended: Vec::new(), left: Vec::new(), hearing }
    }

    /// The session of a client.
    pub(super) fn get(&self, client: SocketAddr) -> Option<Rc<UdpSession>> {
        self.by_client.get(&client).map(Rc::clone)
    }

    /// Inserts a session; true if it is the first one.
    pub(super) fn insert(&mut self, session: &Rc<UdpSession>) -> bool {
        let is_first = self.by_client.is_empty();
        if is_first {
            // Its hand stood still.
            self.wheel = Wheel::new(self.wheel.timeout(), session.used());
        }
        self.wheel.insert(Rc::downgrade(session), session.used());
        self.by_client.insert(session.client(), Rc::clone(session));
        is_first
    }

    /// Drops the session of a client.
    pub(super) fn remove(&mut self, client: SocketAddr) {
        self.by_client.remove(&client);
    }

    /// Time of the next work on them; None while there is none.
    pub(super) fn next_step(&self) -> Option<Instant> {
        let wheel = (!self.by_client.is_empty()).then(|| self.wheel.next_step());
        let heard = self.hearing.front().map(|(until, _)| *until);
        wheel.into_iter().chain(heard).min()
    }

    /// One turn of what is to be done. True if there is more.
    pub(super) fn work(&mut self, now: Instant) -> bool {
        drop_some(&mut self.ended);
        drop_some(&mut self.left);
        if self.due.is_empty() && now >= self.wheel.next_step() {
            self.due = self.wheel.take_due(now);
        }
        self.expire_some(now);
        self.stop_hearing_some(now);
        let has_more = !(self.due.is_empty() && self.ended.is_empty() && self.left.is_empty());
        if !has_more {
            self.shrink();
        }
        has_more
    }

    /// Drops those that were idle for the timeout, among the next ones that are due.
    fn expire_some(&mut self, now: Instant) {
        let timeout = self.wheel.timeout();
        let rest = self.due.len().saturating_sub(TURN);
        for session in self.due.drain(rest..).filter_map(|it| it.upgrade()) {
            let client = session.client();
            // One that has ended may still be there, beside another one of its client.
            if self.by_client.get(&client).is_none_or(|current| !Rc::ptr_eq(current, &session)) {
                continue;
            }
            if session.is_idle(timeout, now) {
                self.by_client.remove(&client);
            } else {
                self.wheel.insert(Rc::downgrade(&session), session.used());
            }
        }
    }

    /// Ends the time for answers of backends that sessions have left.
    fn stop_hearing_some(&mut self, now: Instant) {
        for _ in 0..TURN {
            if self.hearing.front().is_none_or(|(until, _)| *until > now) {
                return;
            }
            let session = self.hearing.pop_front().and_then(|(_, session)| session.upgrade());
            self.left.extend(session.and_then(|session| session.stop_hearing(now)));
        }
    }

    /// Releases memory that a flood has taken.
    fn shrink(&mut self) {
        (self.due, self.ended, self.left) = (Vec::new(), Vec::new(), Vec::new());
        self.hearing.shrink_to_fit();
        let (sessions, room) = (self.by_client.len(), self.by_client.capacity());
        if room > KEPT_ROOM && room / 8 > sessions {
            self.by_client.shrink_to(KEPT_ROOM.max(2 * sessions));
        }
    }

    /// Takes over the sessions of a listener for its new configuration, or for another listener, which gets none.
    /// Parts of the configuration that are as before are skipped.
    pub(super) fn renew(&mut self, before: &WorkerListener, listener: &WorkerListener) {
        let (old, new) = (&before.shared, &listener.shared);
        if old.id != new.id {
            self.end_all();
        }
        if !old.has_pools(&new.pools) {
            self.leave_backends(&listener.pools, Instant::now());
        }
        if old.clients != new.clients {
            let Self { by_client, ended, .. } = self;
            by_client.retain(|client, session| {
                let is_admitted = new.clients.admit(client.ip());
                if !is_admitted {
                    ended.push(Rc::clone(session));
                }
                is_admitted
            });
        }
        if self.wheel.timeout() != idle_timeout(&new.limits) {
            self.set_timeout(idle_timeout(&new.limits));
        }
    }

    /// Takes sessions from backends that the pools do not keep. Answers that are under way from there still come, for a while.
    fn leave_backends(&mut self, pools: &PoolDivision, now: Instant) {
        let until = now + HEARING;
        for session in self.by_client.values() {
            let Some(upstream) = session.leave_unless_kept(pools) else { continue };
            if upstream.is_awaited() && self.hearing.len() < MOST_HEARING {
                self.hearing.push_back((until, Rc::downgrade(session)));
                self.left.extend(session.hear(upstream, until));
            } else {
                self.left.push(upstream);
            }
        }
    }

    fn set_timeout(&mut self, timeout: Duration) {
        self.wheel = Wheel::new(timeout, Instant::now());
        self.due.clear();
        for session in self.by_client.values() {
            self.wheel.insert(Rc::downgrade(session), session.used());
        }
    }

    /// Ends all of them.
    pub(super) fn end_all(&mut self) {
        self.ended.extend(self.by_client.drain().map(|(_, session)| session));
    }

    /// Drops some that have ended; false if there is none.
    pub(super) fn drop_ended(&mut self) -> bool {
        drop_some(&mut self.ended);
        !self.ended.is_empty()
    }
}

fn drop_some<T>(items: &mut Vec<T>) {
    items.truncate(items.len().saturating_sub(TURN));
}

/// Idle timeout of sessions: the shorter one of the data timeouts.
fn idle_timeout(limits: &Limits) -> Duration {
    [limits.client_data, limits.backend_data].into_iter().flatten().min().unwrap_or(DEFAULT_IDLE)
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

    #[test]
    fn a_turn_drops_a_bounded_number() {
        let mut items = vec![(); 2 * TURN + 1];
        let mut left = || {
            drop_some(&mut items);
            items.len()
        };
        assert_eq!([left(), left(), left(), left()], [TURN + 1, 1, 0, 0]);
    }
}
