//! Accepts the clients of one address on one worker.

use std::{
    cell::RefCell,
    io,
    rc::Rc,
    time::{Duration, Instant},
};

use rustix::io::Errno;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::{bind::BACKLOG, connection::Connection, post::Post, relay::Tools, room::Room};

/// How long accepting rests when the process has no descriptors, memory or room, at first and at most. The clients wait in the
/// kernel's queue meanwhile.
const FIRST_REST: Duration = Duration::from_millis(5);
const LONGEST_REST: Duration = Duration::from_millis(320);

/// What all connections of a worker share.
#[derive(Debug)]
pub(super) struct Floor {
    pub(super) tools: Rc<Tools>,
    pub(super) room: std::sync::Arc<Room>,
}

/// A listening socket with its task.
#[derive(Debug)]
pub(super) struct Acceptor {
    inner: Rc<Inner>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Inner {
    listener: TcpListener,
    post: RefCell<Rc<Post>>,
    floor: Rc<Floor>,
}

impl Acceptor {
    /// Starts to accept. Needs the worker's runtime.
    pub(super) fn start(
        listener: std::net::TcpListener,
        post: Rc<Post>,
        floor: Rc<Floor>,
    ) -> io::Result<Self> {
        let listener = TcpListener::from_std(listener)?;
        let inner = Rc::new(Inner { listener, post: RefCell::new(post), floor });
        let task = tokio::task::spawn_local(Rc::clone(&inner).accept_all());
        Ok(Self { inner, task })
    }

    /// Serves those that come from now on as `post` says.
    pub(super) fn reassign(&self, post: Rc<Post>) {
        self.inner.post.replace(post);
    }

    /// Closes the socket, after it has served those that were in its queue: they had been told that they are connected.
    pub(super) async fn close(self) {
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
        let mut rest = FIRST_REST;
        loop {
            match self.accept().await {
                Ok(()) => rest = FIRST_REST,
                Err(error) if concerns_one_client(&error) => {}
                Err(error) => {
                    self.log(&error);
                    tokio::time::sleep(rest).await;
                    rest = LONGEST_REST.min(rest * 2);
                }
            }
        }
    }

    async fn accept(&self) -> io::Result<()> {
        if self.floor.room.is_full() {
            return Err(io::Error::other("the process has as many connections as its descriptors allow"));
        }
        let (stream, peer) = self.listener.accept().await?;
        let post = Rc::clone(&self.post.borrow());
        begin(stream, peer, &post, &self.floor);
        Ok(())
    }

    fn serve_queue(self) {
        let Ok(listener) = self.listener.into_std() else { return };
        let post = self.post.into_inner();
        for _ in 0..BACKLOG {
            let Ok((stream, peer)) = listener.accept() else { return };
            let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
            if let Ok(stream) = stream {
                begin(stream, peer, &post, &self.floor);
            }
        }
    }

    fn log(&self, error: &io::Error) {
        let post = self.post.borrow();
        if let Some(suppressed) = post.throttles.exhausted.admit(Instant::now()) {
            tracing::error!(
                listener = %post.service.id, name = post.service.name, %error, suppressed,
                "clients wait: nothing can be accepted at the moment; raise LimitNOFILE"
            );
        }
    }
}

fn begin(stream: TcpStream, peer: std::net::SocketAddr, post: &Rc<Post>, floor: &Floor) {
    let Some(connection) = Connection::admit(stream, peer, post, floor.room.enter()) else { return };
    let key = connection.key();
    let task = tokio::task::spawn_local(connection.serve(Rc::clone(&floor.tools)));
    post.roster.settle(key, task.abort_handle());
}

/// Errors of accept(2) that are the new connection's, or nobody's: the next one may be fine. All others might come again at once.
fn concerns_one_client(error: &io::Error) -> bool {
    const LOST: [Errno; 10] = [
        Errno::CONNABORTED,
        Errno::CONNRESET,
        Errno::HOSTDOWN,
        Errno::HOSTUNREACH,
        Errno::INTR,
        Errno::NETDOWN,
        Errno::NETUNREACH,
        Errno::PERM,
        Errno::PROTO,
        Errno::TIMEDOUT,
    ];
    Errno::from_io_error(error).is_some_and(|errno| LOST.contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lack_of_descriptors_makes_accepting_rest_and_a_lost_client_does_not() {
        assert!(concerns_one_client(&Errno::CONNABORTED.into()));
        for lasting in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::INVAL] {
            assert!(!concerns_one_client(&lasting.into()));
        }
        assert!(!concerns_one_client(&io::Error::other("full")));
    }
}
