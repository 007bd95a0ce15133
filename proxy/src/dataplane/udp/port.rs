//! A listening socket, and what its sessions have in common.

use std::{
    cell::RefCell,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::Instant,
};

use super::{
    DatagramSocket,
    failed::FailedBackends,
    upstream::{self, Upstream, UpstreamError},
};
use crate::dataplane::{listen::WorkerListener, trace::ConnectionTrace};

/// A listening socket and the listener that it serves.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) socket: DatagramSocket,
    /// Address that it is bound to.
    pub(super) address: IpAddr,
    /// The same with its port, as far as the kernel says it.
    local: Option<SocketAddr>,
    listener: RefCell<Rc<WorkerListener>>,
}

impl Port {
    /// A listening socket without sessions.
    pub(super) fn new(socket: DatagramSocket, address: IpAddr, listener: Rc<WorkerListener>) -> Self {
        let (listener, local) = (RefCell::new(listener), socket.get_ref().local_addr().ok());
        Self { socket, address, local, listener }
    }

    /// The listener in force.
    pub(super) fn listener(&self) -> Rc<WorkerListener> {
        Rc::clone(&self.listener.borrow())
    }

    /// Serves this listener from now on.
    pub(super) fn reassign(&self, listener: Rc<WorkerListener>) {
        self.listener.replace(listener);
    }

    /// Selects a pool for the client of a session, and connects to a backend, as [`upstream::connect`] does. Without any system
    /// call for a moment after that has failed: a flood of clients would keep the thread busy with nothing else.
    pub(super) fn connect(
        &self,
        listener: &WorkerListener,
        trace: &ConnectionTrace,
        hops: u8,
        failed: &mut FailedBackends,
    ) -> Result<Upstream, UpstreamError> {
        let pool = listener.pools.choose(trace.peer()).ok_or(UpstreamError::NoBackend)?;
        trace.set_pool(pool.id());
        let (now, exhausted) = (Instant::now(), &listener.shared.share.exhausted);
        if exhausted.is_on(now) {
            return Err(UpstreamError::Paused);
        }
        if pool.unreachable.is_on(now) {
            return Err(UpstreamError::Unreachable);
        }
        let offset = listener.shared.ports.offset(|| self.local);
        let connected = upstream::connect(listener, pool, (trace.peer(), offset), hops, failed, now);
        match &connected {
            Err(UpstreamError::Exhausted(_)) => exhausted.begin(Instant::now()),
            Err(UpstreamError::Unreachable) => pool.unreachable.begin(Instant::now()),
            Err(UpstreamError::NoBackend | UpstreamError::Full | UpstreamError::Paused) | Ok(_) => {}
        }
        connected
    }
}
