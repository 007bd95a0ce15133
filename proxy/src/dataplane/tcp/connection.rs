//! The life of a connection, from top to bottom: decide, open, copy, record.

use std::{net::SocketAddr, rc::Rc, time::Instant};

use tokio::net::TcpStream;

use super::{
    account::Account,
    connect::{self, Opened, Unopened},
    post::Post,
    relay::{self, End, Tools},
    room::Place,
    roster::Seat,
    stream::ResetOnDrop,
};

/// An accepted connection and all that it takes up. Whatever ends it, being dropped among it, gives everything back.
#[derive(Debug)]
pub(super) struct Connection {
    client: ResetOnDrop,
    peer: SocketAddr,
    post: Rc<Post>,
    account: Account,
    seat: Seat,
    _place: Place,
}

impl Connection {
    /// Decides whether a client is served; None, and reset, if its listener has as many as it may.
    pub(super) fn admit(stream: TcpStream, peer: SocketAddr, post: &Rc<Post>, place: Place) -> Option<Self> {
        let client = ResetOnDrop::new(stream);
        let Some(account) = Account::open(&post.service) else {
            log_limit(post);
            return None;
        };
        let seat = post.roster.enter();
        Some(Self { client, peer, post: Rc::clone(post), account, seat, _place: place })
    }

    /// Its key on the roster.
    pub(super) fn key(&self) -> usize {
        self.seat.key()
    }

    /// Serves the client to the end.
    pub(super) async fn serve(mut self, tools: Rc<Tools>) {
        // Boxed, so that what opening needs is not held while the connection idles.
        let (mut backend, _assignment) = match Box::pin(connect::open(&self.post, self.peer)).await {
            Ok(Opened { stream, assignment }) => (ResetOnDrop::new(stream), assignment),
            Err(unopened) => return self.record_unopened(&unopened),
        };
        let (account, limits) = (&self.account, &self.post.service.limits);
        let report = |moved| account.moved(moved);
        let end = relay::relay(self.client.stream(), backend.stream(), limits, &tools, report).await;
        account.ended(end);
        if end == End::Closed {
            backend.close();
            self.client.close();
        }
    }

    fn record_unopened(&self, unopened: &Unopened) {
        self.account.no_backend();
        match unopened {
            Unopened::NoBackend => log_no_backend(&self.post),
            Unopened::Exhausted(error) => log_exhausted(&self.post, error),
        }
    }
}

fn log_limit(post: &Post) {
    let Some(suppressed) = post.throttles.limit.admit(Instant::now()) else { return };
    let limit = post.service.limits.connections;
    tracing::info!(
        listener = %post.service.id, name = post.service.name, limit, suppressed,
        "a client is reset: the listener has reached its connection limit"
    );
}

fn log_no_backend(post: &Post) {
    let Some(suppressed) = post.throttles.no_backend.admit(Instant::now()) else { return };
    tracing::info!(
        listener = %post.service.id, name = post.service.name, suppressed,
        "a client is reset: no backend is left that takes connections"
    );
}

fn log_exhausted(post: &Post, error: &std::io::Error) {
    let Some(suppressed) = post.throttles.exhausted.admit(Instant::now()) else { return };
    tracing::error!(
        listener = %post.service.id, name = post.service.name, %error, suppressed,
        "a client is reset: this node cannot make another socket; raise LimitNOFILE, or look for what fills its memory"
    );
}
