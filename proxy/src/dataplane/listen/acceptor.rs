//! Accepts the clients of one endpoint on one worker.

use std::{
    cell::RefCell,
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use fiberlb_daemon::listen::concerns_one_connection;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::{
    admission::{ConnectionBudget, Permit},
    bind::BACKLOG,
    listener::WorkerListener,
    share::ClientRefusal,
};
use crate::shortage::NodeResource;

/// Backoff of accepting while the process has no descriptors, memory or budget: the first pause, and the
/// longest. The clients wait in the kernel's queue meanwhile.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(320);

/// An accepted client.
#[derive(Debug)]
pub(in crate::dataplane) struct Accepted {
    pub(in crate::dataplane) stream: TcpStream,
    pub(in crate::dataplane) peer: SocketAddr,
    /// True if the peer is a proxy that states its client.
    pub(in crate::dataplane) is_proxy: bool,
    /// The listener as it was when the client was accepted.
    pub(in crate::dataplane) listener: Rc<WorkerListener>,
    /// Its part of the node's connections, or the reason why it has none.
    pub(in crate::dataplane) permit: Result<Permit, ClientRefusal>,
}

/// Starts to serve an accepted client. Must not block.
pub(in crate::dataplane) type Handler = Rc<dyn Fn(Accepted)>;

/// A listening socket with its task.
#[derive(Debug)]
pub(in crate::dataplane) struct Acceptor {
    inner: Rc<Inner>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Inner {
    socket: TcpListener,
    /// Address that it is bound to.
    address: IpAddr,
    listener: RefCell<Rc<WorkerListener>>,
    budget: Arc<ConnectionBudget>,
}

impl Acceptor {
    /// Starts to accept. Needs the worker's runtime.
    pub(in crate::dataplane) fn start(
        socket: std::net::TcpListener,
        address: IpAddr,
        listener: Rc<WorkerListener>,
        budget: Arc<ConnectionBudget>,
    ) -> io::Result<Self> {
        let socket = TcpListener::from_std(socket)?;
        let inner = Rc::new(Inner { socket, address, listener: RefCell::new(listener), budget });
        let task = tokio::task::spawn_local(Rc::clone(&inner).accept_all());
        Ok(Self { inner, task })
    }

    /// Hands clients to this listener from now on.
    pub(in crate::dataplane) fn reassign(&self, listener: Rc<WorkerListener>) {
        self.inner.listener.replace(listener);
    }

    /// Closes the socket, after the clients in its queue are served: to them the connection is established.
    pub(in crate::dataplane) async fn close(self) {
        let Self { inner, task } = self;
        task.abort();
        let _ = task.await;
        if let Some(inner) = Rc::into_inner(inner) {
            inner.serve_queue();
        }
    }
}

impl Inner {
    async fn accept_all(self: Rc<Self>) {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.accept().await {
                Ok(()) => pause = FIRST_PAUSE,
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    self.log(&error);
                    tokio::time::sleep(pause).await;
                    pause = LONGEST_PAUSE.min(pause * 2);
                }
            }
        }
    }

    async fn accept(&self) -> io::Result<()> {
        if self.budget.is_spent() {
            return Err(io::Error::other(
                "the node has as many connections as settings and descriptors allow",
            ));
        }
        let (stream, peer) = self.socket.accept().await?;
        let listener = Rc::clone(&self.listener.borrow());
        serve(stream, peer, listener, self.address);
        Ok(())
    }

    fn serve_queue(self) {
        let Ok(socket) = self.socket.into_std() else { return };
        let listener = self.listener.into_inner();
        for _ in 0..BACKLOG {
            let Ok((stream, peer)) = socket.accept() else { return };
            let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
            if let Ok(stream) = stream {
                serve(stream, peer, Rc::clone(&listener), self.address);
            }
        }
    }

    fn log(&self, error: &io::Error) {
        let listener = self.listener.borrow();
        listener.shared.shortages.record(NodeResource::of_error(error).unwrap_or(NodeResource::Connections));
        if let Some(suppressed) = listener.throttles.exhausted.admit(Instant::now()) {
            tracing::error!(
                listener = %listener.shared.id, name = listener.shared.name, %error, suppressed,
                "accepting is paused, clients wait; raise LimitNOFILE"
            );
        }
    }
}

fn serve(stream: TcpStream, peer: SocketAddr, listener: Rc<WorkerListener>, address: IpAddr) {
    let Some(handler) = listener.handler.as_ref().map(Rc::clone) else { return };
    let is_proxy = listener.shared.proxies.contain(peer.ip());
    let permit = if is_proxy {
        // Whom it states is judged when it has done so.
        listener.shared.admit_peer(peer.ip(), address)
    } else {
        listener.shared.admit(peer.ip(), address)
    };
    handler(Accepted { stream, peer, is_proxy, listener, permit });
}
