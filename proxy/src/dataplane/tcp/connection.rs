//! The life of a connection, from top to bottom: decide, open, copy, record.

use std::{io, net::SocketAddr, rc::Rc};

use tracing::Instrument as _;

use super::{
    TcpResources,
    connect::{self, ConnectError, ConnectingClient, Opened},
    header::{self, Client},
    relay::{self, FreshBackend, RelayEnd, RelayResources, Transferred},
    stream::ResetOnDrop,
};
use crate::{
    dataplane::{
        account::{ConnectionAccount, increment},
        listen::{
            Accepted, ClientPlace, ClientRefusal, ConnectionSlot, Permit, RefusalReason, WorkerListener,
            log_refusal, record_limit,
        },
        record::EndReason,
        trace::ConnectionTrace,
    },
    proxy_protocol::{self, tlv_type},
};

/// An accepted connection and all its resources. Whatever ends it, being dropped included, releases all of
/// them.
#[derive(Debug)]
pub(super) struct Connection {
    client: ResetOnDrop,
    /// True if the peer is a proxy that states its client.
    is_proxy: bool,
    listener: Rc<WorkerListener>,
    account: ConnectionAccount,
    slot: ConnectionSlot,
    _permit: Permit,
    /// Its part of what its client may have. None: no limit needs it, or the client is not stated yet.
    place: Option<Box<ClientPlace>>,
    trace: ConnectionTrace,
}

impl Connection {
    /// Decides whether a client is served. None, and reset, if the listener does not admit its address, its network
    /// has used up its share of the node, or a limit of the listener is reached.
    pub(super) fn admit(accepted: Accepted) -> Option<Self> {
        let Accepted { stream, peer, is_proxy, listener, permit } = accepted;
        let client = ResetOnDrop::new(stream);
        let trace = ConnectionTrace::start(&listener, peer);
        let (account, others) = ConnectionAccount::open(&listener.shared.counters);
        let limit = listener.shared.limits.connections;
        let reason = match permit {
            Ok(permit) if limit.is_none_or(|limit| others < limit) => {
                // Whom a proxy states is judged when it has done so.
                let place = if is_proxy { Ok(None) } else { listener.shared.admit_client(peer.ip()) };
                match place {
                    Ok(place) => {
                        let slot = listener.connections.open();
                        return Some(Self {
                            client,
                            is_proxy,
                            listener,
                            account,
                            slot,
                            _permit: permit,
                            place,
                            trace,
                        });
                    }
                    Err(refusal) => {
                        record_limit(&listener, peer, refusal);
                        refusal.into()
                    }
                }
            }
            Ok(_) => {
                account.count_limit();
                log_refusal(&listener, peer, RefusalReason::ConnectionLimit);
                EndReason::ConnectionLimit
            }
            Err(ClientRefusal::Share) => {
                account.count_share();
                log_refusal(&listener, peer, RefusalReason::Share);
                EndReason::Share
            }
            Err(ClientRefusal::Cidr) => {
                account.count_cidr();
                log_refusal(&listener, peer, RefusalReason::Cidr);
                EndReason::AllowedCidrs
            }
            Err(ClientRefusal::Loop) => {
                account.count_loop();
                log_refusal(&listener, peer, RefusalReason::Loop);
                EndReason::Loop
            }
        };
        trace.set_reason(reason);
        None
    }

    /// Serves the client on a task of its own.
    pub(super) fn spawn(self, resources: Rc<TcpResources>) {
        let (key, connections) = (self.slot.key(), self.listener.connections.clone());
        let task = match self.trace.span() {
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
    fn serve(mut self, resources: Rc<TcpResources>) -> impl Future<Output = ()> {
        async move {
            // Boxed, so that what opening needs is not held while the connection idles.
            let Some((mut backend, fresh)) = Box::pin(self.open(&resources)).await else { return };
            let (account, limits, trace) = (&self.account, &self.listener.shared.limits, &self.trace);
            let report = |Transferred { up, down }| {
                account.add_bytes(up, down);
                trace.add_bytes(up, down);
            };
            let (client, backend_stream) = (self.client.stream(), backend.stream());
            let bandwidth = self.listener.shared.bandwidth.as_ref();
            let fresh = (fresh, &self.listener.clients_speak_first);
            let end =
                relay::relay(client, backend_stream, fresh, limits, bandwidth, &resources.relay, report)
                    .await;
            self.record_end(end);
            if end == RelayEnd::Closed {
                backend.close();
                self.client.close();
            }
        }
    }

    /// Learns who the client is, and connects it to a backend. None: the reason is recorded.
    async fn open(&mut self, resources: &TcpResources) -> Option<(ResetOnDrop, FreshBackend)> {
        let client = self.identify(&resources.relay).await?;
        let stream = &*self.client.stream();
        let Some(pool) = self.listener.pools.choose(client.address()) else {
            self.record_no_backend(client.address(), None);
            return None;
        };
        self.trace.set_pool(pool.id());
        let offset = self.listener.shared.ports.offset(|| stream.local_addr().ok());
        let (client_address, accepted) = (client.address(), self.trace.started());
        let applicant = ConnectingClient { stream, client: client_address, pool, accepted, offset };
        let (frontends, trace) = (&self.listener.shared.frontends, &self.trace);
        let header = |version| {
            let header = client.header(version, frontends, offset, stream);
            if let Some(id) = header.tlvs.find(tlv_type::UNIQUE_ID) {
                trace.set_unique_id(id);
            }
            proxy_protocol::encode(version, &header)
        };
        match connect::open(&self.listener, applicant, &resources.attempts, header).await {
            Ok(Opened { stream, assignment, backend, pool, fresh }) => {
                self.trace.set_backend(backend);
                self.account.assign(assignment);
                self.slot.assign(backend.id, &pool);
                return Some((ResetOnDrop::new(stream), fresh));
            }
            Err(ConnectError::ClientGone) => self.record_end(RelayEnd::ClientReset),
            Err(ConnectError::Full) => {
                increment(&self.listener.shared.counters.refused_by_backend_limit);
                log_refusal(&self.listener, client.address(), RefusalReason::BackendsFull);
                self.trace.set_reason(EndReason::BackendsFull);
            }
            Err(ConnectError::QueueTimeout) => {
                increment(&self.listener.shared.counters.queue_timeouts);
                log_refusal(&self.listener, client.address(), RefusalReason::QueueTimeout);
                self.trace.set_reason(EndReason::QueueTimeout);
            }
            Err(ConnectError::NoBackend) => self.record_no_backend(client.address(), None),
            Err(ConnectError::Exhausted(error)) => self.record_no_backend(client.address(), Some(&error)),
        }
        None
    }

    /// The client: the peer, or the one that the peer states, if the listener admits it.
    async fn identify(&mut self, resources: &RelayResources) -> Option<Client> {
        if !self.is_proxy {
            return Some(Client::peer(self.trace.peer()));
        }
        let listener = Rc::clone(&self.listener);
        let header = match header::receive(self.client.stream(), &listener.shared.limits, resources).await {
            Ok(header) => header,
            Err(refusal) => {
                self.account.count_header(refusal);
                log_refusal(&listener, self.trace.peer(), RefusalReason::Header(refusal));
                self.trace.set_reason(EndReason::ProxyHeader);
                return None;
            }
        };
        let client = Client::stated(self.trace.peer(), header);
        self.trace.set_stated_client(client.address());
        if !client.is_admitted(&listener.shared.clients) {
            self.account.count_cidr();
            log_refusal(&listener, client.address(), RefusalReason::Cidr);
            self.trace.set_reason(EndReason::AllowedCidrs);
            return None;
        }
        if client.is_proxy() {
            return Some(client);
        }
        match listener.shared.admit_client(client.address().ip()) {
            Ok(place) => self.place = place,
            Err(refusal) => {
                record_limit(&listener, client.address(), refusal);
                self.trace.set_reason(refusal.into());
                return None;
            }
        }
        Some(client)
    }

    fn record_end(&self, end: RelayEnd) {
        self.trace.set_reason(match end {
            RelayEnd::Closed => EndReason::Closed,
            RelayEnd::ClientReset => {
                self.account.count_client_reset();
                EndReason::ClientReset
            }
            RelayEnd::BackendReset => {
                self.account.count_backend_reset();
                EndReason::BackendReset
            }
            RelayEnd::TimedOut => {
                self.account.count_timeout();
                EndReason::TimedOut
            }
            RelayEnd::HalfClosed => {
                self.account.count_half_closed();
                EndReason::HalfClosed
            }
        });
    }

    /// Records that no backend was reached; `exhausted`: for want of something of this node.
    fn record_no_backend(&self, client: SocketAddr, exhausted: Option<&io::Error>) {
        self.trace.set_reason(match exhausted {
            None => {
                self.account.count_no_backend();
                log_refusal(&self.listener, client, RefusalReason::NoBackend);
                EndReason::NoBackend
            }
            Some(error) => {
                self.account.count_exhausted();
                log_refusal(&self.listener, client, RefusalReason::Exhausted(error));
                EndReason::NodeExhausted
            }
        });
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.slot.is_abandoned() {
            self.account.count_backend_gone();
            self.trace.set_reason(EndReason::BackendGone);
        }
        self.account.count_duration(|| self.trace.started().elapsed());
    }
}
