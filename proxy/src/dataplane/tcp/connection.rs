//! The life of a connection, from top to bottom: decide, open, copy, record.

use std::{io, net::SocketAddr, rc::Rc, time::Instant};

use tracing::Instrument as _;

use super::{
    connect::{self, ConnectError, Opened},
    header::{self, Client},
    relay::{self, RelayEnd, RelayResources, Transferred},
    stream::ResetOnDrop,
};
use crate::{
    dataplane::{
        account::{ConnectionAccount, HeaderRefusal},
        listen::{Accepted, ClientRefusal, ConnectionSlot, Permit, WorkerListener},
        trace::{ConnectionTrace, TraceOutcome},
    },
    proxy_protocol::{self, tlv_type},
};

/// An accepted connection and all its resources. Whatever ends it, being dropped included, releases all of
/// them.
#[derive(Debug)]
pub(super) struct Connection {
    client: ResetOnDrop,
    peer: SocketAddr,
    /// True if the peer is a proxy that states its client.
    is_proxy: bool,
    listener: Rc<WorkerListener>,
    account: ConnectionAccount,
    slot: ConnectionSlot,
    _permit: Permit,
    /// None unless connections are traced.
    trace: Option<Box<ConnectionTrace>>,
}

impl Connection {
    /// Decides whether a client is served. None, and reset, if the listener does not admit its address, its network
    /// has used up its share of the node, or the listener has reached its connection limit.
    pub(super) fn admit(accepted: Accepted) -> Option<Self> {
        let Accepted { stream, peer, is_proxy, listener, permit } = accepted;
        let client = ResetOnDrop::new(stream);
        let trace = ConnectionTrace::start(&listener, peer);
        let (account, others) = ConnectionAccount::open(&listener.shared.counters);
        let limit = listener.shared.limits.connections;
        let outcome = match permit {
            Ok(permit) if limit.is_none_or(|limit| others < limit) => {
                let slot = listener.connections.open();
                return Some(Self {
                    client,
                    peer,
                    is_proxy,
                    listener,
                    account,
                    slot,
                    _permit: permit,
                    trace,
                });
            }
            Ok(_) => {
                account.count_limit();
                log_limit(&listener);
                TraceOutcome::ConnectionLimit
            }
            Err(ClientRefusal::Share) => {
                account.count_share();
                log_share(&listener);
                TraceOutcome::Share
            }
            Err(ClientRefusal::Cidr) => {
                account.count_cidr();
                log_cidr(&listener, peer);
                TraceOutcome::Cidr
            }
            Err(ClientRefusal::Loop) => {
                account.count_loop();
                log_loop(&listener, peer);
                TraceOutcome::Loop
            }
        };
        if let Some(trace) = trace {
            trace.set_outcome(outcome);
        }
        None
    }

    /// Serves the client on a task of its own.
    pub(super) fn spawn(self, resources: Rc<RelayResources>) {
        let (key, connections) = (self.slot.key(), self.listener.connections.clone());
        let task = match self.trace.as_ref().map(|trace| trace.span()) {
            None => tokio::task::spawn_local(self.serve(resources)),
            Some(span) => tokio::task::spawn_local(self.serve(resources).instrument(span)),
        };
        connections.set_task(key, task.abort_handle());
    }

    /// Serves the client to the end.
    #[expect(
        clippy::manual_async_fn,
        reason = "an async fn has room for its arguments twice, as long as it lives"
    )]
    fn serve(mut self, resources: Rc<RelayResources>) -> impl Future<Output = ()> {
        async move {
            // Boxed, so that what opening needs is not held while the connection idles.
            let Some(mut backend) = Box::pin(self.open(&resources)).await else { return };
            let (account, limits, trace) = (&self.account, &self.listener.shared.limits, &self.trace);
            let report = |Transferred { up, down }| {
                account.add_bytes(up, down);
                if let Some(trace) = trace {
                    trace.add_bytes(up, down);
                }
            };
            let (client, backend_stream) = (self.client.stream(), backend.stream());
            let end = relay::relay(client, backend_stream, limits, &resources, report).await;
            self.record_end(end);
            if end == RelayEnd::Closed {
                backend.close();
                self.client.close();
            }
        }
    }

    /// Learns who the client is, and connects it to a backend. None: the reason is recorded.
    async fn open(&mut self, resources: &RelayResources) -> Option<ResetOnDrop> {
        let client = self.identify(resources).await?;
        let header = self.header_for_backend(&client);
        let stream = self.client.stream();
        match connect::open(&self.listener, stream, client.address(), &header).await {
            Ok(Opened { stream, assignment, backend }) => {
                if let Some(trace) = &self.trace {
                    trace.set_backend(backend);
                }
                self.account.assign(assignment);
                if let Some(pool) = &self.listener.pool {
                    self.slot.assign(backend, pool);
                }
                return Some(ResetOnDrop::new(stream));
            }
            Err(ConnectError::ClientGone) => self.record_end(RelayEnd::Reset),
            Err(ConnectError::NoBackend) => self.record_no_backend(None),
            Err(ConnectError::Exhausted(error)) => self.record_no_backend(Some(&error)),
        }
        None
    }

    /// The client: the peer, or the one that the peer states, if the listener admits it.
    async fn identify(&mut self, resources: &RelayResources) -> Option<Client> {
        if !self.is_proxy {
            return Some(Client::peer(self.peer));
        }
        let listener = Rc::clone(&self.listener);
        let header = match header::receive(self.client.stream(), &listener.shared.limits, resources).await {
            Ok(header) => header,
            Err(refusal) => {
                self.account.count_header(refusal);
                log_header(&listener, self.peer, refusal);
                self.trace_outcome(TraceOutcome::Header);
                return None;
            }
        };
        let client = Client::stated(self.peer, header);
        if let Some(trace) = &self.trace {
            trace.set_stated_client(client.address());
        }
        if client.is_admitted(&listener.shared.clients) {
            return Some(client);
        }
        self.account.count_cidr();
        log_cidr(&listener, client.address());
        self.trace_outcome(TraceOutcome::Cidr);
        None
    }

    /// The header that backends of the pool are sent first; empty: none.
    fn header_for_backend(&mut self, client: &Client) -> Vec<u8> {
        let Some(version) = self.listener.pool.as_ref().and_then(|pool| pool.header()) else {
            return Vec::new();
        };
        let header = client.header(version, &self.listener.shared.frontends, self.client.stream());
        if let (Some(trace), Some(id)) = (&self.trace, header.tlvs.find(tlv_type::UNIQUE_ID)) {
            trace.set_unique_id(id);
        }
        proxy_protocol::encode(version, &header)
    }

    fn record_end(&self, end: RelayEnd) {
        self.trace_outcome(match end {
            RelayEnd::Closed => TraceOutcome::Closed,
            RelayEnd::Reset => {
                self.account.count_reset();
                TraceOutcome::Reset
            }
            RelayEnd::TimedOut => {
                self.account.count_timeout();
                TraceOutcome::TimedOut
            }
        });
    }

    /// Records that no backend was reached; `exhausted`: for want of something of this node.
    fn record_no_backend(&self, exhausted: Option<&io::Error>) {
        self.account.count_no_backend();
        self.trace_outcome(match exhausted {
            None => {
                log_no_backend(&self.listener);
                TraceOutcome::NoBackend
            }
            Some(error) => {
                log_exhausted(&self.listener, error);
                TraceOutcome::Exhausted
            }
        });
    }

    fn trace_outcome(&self, outcome: TraceOutcome) {
        if let Some(trace) = &self.trace {
            trace.set_outcome(outcome);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.slot.is_abandoned() {
            self.account.count_backend_gone();
            self.trace_outcome(TraceOutcome::BackendGone);
        }
    }
}

fn log_limit(listener: &WorkerListener) {
    let Some(suppressed) = listener.throttles.limit.admit(Instant::now()) else { return };
    let limit = listener.shared.limits.connections;
    tracing::info!(
        listener = %listener.shared.id, name = listener.shared.name, limit, suppressed,
        "client reset: the listener has reached its connection limit"
    );
}

fn log_share(listener: &WorkerListener) {
    let Some(suppressed) = listener.throttles.share.admit(Instant::now()) else { return };
    tracing::warn!(
        listener = %listener.shared.id, name = listener.shared.name, suppressed,
        "client reset: its network has used up its share of this node's connections"
    );
}

fn log_cidr(listener: &WorkerListener, peer: SocketAddr) {
    let Some(suppressed) = listener.throttles.cidr.admit(Instant::now()) else { return };
    tracing::info!(
        listener = %listener.shared.id, name = listener.shared.name, %peer, suppressed,
        "client reset: its address is not among those that the listener allows"
    );
}

fn log_header(listener: &WorkerListener, peer: SocketAddr, refusal: HeaderRefusal) {
    let Some(suppressed) = listener.throttles.header.admit(Instant::now()) else { return };
    tracing::info!(
        listener = %listener.shared.id, name = listener.shared.name, %peer, reason = refusal.as_str(), suppressed,
        "client reset: it is a trusted proxy, and has not begun with a valid header of PROXY protocol"
    );
}

fn log_loop(listener: &WorkerListener, peer: SocketAddr) {
    let Some(suppressed) = listener.throttles.looped.admit(Instant::now()) else { return };
    tracing::warn!(
        listener = %listener.shared.id, name = listener.shared.name, %peer, suppressed,
        "client reset: it is this node itself, since a backend leads back to the listener"
    );
}

fn log_no_backend(listener: &WorkerListener) {
    let Some(suppressed) = listener.throttles.no_backend.admit(Instant::now()) else { return };
    tracing::info!(
        listener = %listener.shared.id, name = listener.shared.name, suppressed,
        "client reset: no backend has accepted its connection"
    );
}

fn log_exhausted(listener: &WorkerListener, error: &io::Error) {
    let Some(suppressed) = listener.throttles.exhausted.admit(Instant::now()) else { return };
    tracing::error!(
        listener = %listener.shared.id, name = listener.shared.name, %error, suppressed,
        "client reset: this node cannot make another connection to its backends, for want of something of its own"
    );
}
