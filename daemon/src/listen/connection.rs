//! One connection: its deadlines, and HTTP/1.1 or HTTP/2 on it.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_rustls::TlsAcceptor;

use super::admission::Phase;
use super::metrics::RefusedReason;
use super::service::{ConnectionService, HttpService, Peer};
use super::settings::ConnectionSettings;
use super::slots::{Slot, Slots};
use super::socket::{self, Stream};
use crate::errors::chain;
use crate::tls;

/// Time for a peer to close, once the connection takes no more requests.
const CLOSE: Duration = Duration::from_secs(1);

/// Everything that the connections of a listener share.
pub(super) struct Common<S> {
    pub(super) service: S,
    pub(super) settings: ConnectionSettings,
    pub(super) http: auto::Builder<TokioExecutor>,
    /// Configuration in force for handshakes; `None`: no TLS.
    pub(super) tls: Option<watch::Receiver<Arc<tls::Loaded>>>,
    pub(super) slots: Arc<Slots>,
    /// True when the listener stops.
    pub(super) stop: watch::Receiver<bool>,
}

/// Interval at which HTTP/2 connections are probed, and the time that a peer has to answer.
#[derive(Clone, Copy, Debug)]
pub struct Keepalive {
    /// Interval of PING frames.
    pub interval: Duration,
    /// A peer that has not acknowledged a PING after this is gone.
    pub timeout: Duration,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self { interval: Duration::from_secs(30), timeout: Duration::from_secs(20) }
    }
}

/// Builder of a listener's HTTP connections.
pub(super) fn http(
    settings: &ConnectionSettings,
    keepalive: Keepalive,
    http2_only: bool,
) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(settings.header_bytes)
        .max_concurrent_streams(settings.streams)
        .keep_alive_interval(keepalive.interval)
        .keep_alive_timeout(keepalive.timeout);
    // The connection's own deadlines bound the time for a request's head, and the time between two.
    builder
        .http1()
        .header_read_timeout(None)
        .max_buf_size(usize::try_from(settings.header_bytes).unwrap_or(usize::MAX));
    if http2_only { builder.http2_only() } else { builder }
}

/// Serves a connection to its end.
pub(super) async fn serve<S: HttpService>(
    common: Arc<Common<S>>,
    stream: Stream,
    address: Option<SocketAddr>,
    slot: Slot,
    displaced: oneshot::Receiver<()>,
) {
    let refused = tokio::select! {
        biased;
        _ = displaced => Err(RefusedReason::Displaced),
        served = begin(&common, stream, address, Arc::new(slot)) => served.unwrap_or(Ok(())),
    };
    if let Err(reason) = refused {
        common.slots.refuse::<()>(reason, address);
    }
}

/// Waits for the first byte, shakes hands where there is TLS, and serves requests. `None`: the listener stopped before there was
/// any HTTP.
async fn begin<S: HttpService>(
    common: &Common<S>,
    stream: Stream,
    address: Option<SocketAddr>,
    slot: Arc<Slot>,
) -> Option<Result<(), RefusedReason>> {
    let (start, settings) = (Instant::now(), &common.settings);
    let first_byte = timeout_at(start + settings.first_byte(), socket::first_byte(&stream));
    match unless(&common.stop, first_byte).await? {
        Err(_) => return Some(Err(RefusedReason::Silent)),
        Ok(Ok(true)) => {}
        // The peer has closed: nothing is refused. Probes that only connect do so.
        Ok(Ok(false) | Err(_)) => return Some(Ok(())),
    }
    let Some(tls) = &common.tls else {
        let peer = Peer { address, certificates: None };
        return Some(Box::pin(exchange(common, stream, peer, slot, start)).await);
    };
    let acceptor = TlsAcceptor::from(Arc::clone(&tls.borrow().config));
    let handshake = timeout_at(start + settings.handshake(), acceptor.accept(stream));
    match unless(&common.stop, handshake).await? {
        Err(_) => Some(Err(RefusedReason::Handshake)),
        Ok(Err(error)) => {
            tracing::debug!(%error, ?address, "TLS handshake failed");
            Some(Err(RefusedReason::Handshake))
        }
        Ok(Ok(stream)) => {
            let certificates = stream.get_ref().1.peer_certificates().map(Into::into);
            let peer = Peer { address, certificates };
            Some(Box::pin(exchange(common, stream, peer, slot, start)).await)
        }
    }
}

/// Runs a future until `stop` is true; `None`: it was dropped then.
async fn unless<T>(stop: &watch::Receiver<bool>, future: impl Future<Output = T>) -> Option<T> {
    let mut stop = stop.clone();
    tokio::select! {
        output = future => Some(output),
        // An error means that the sender is gone: stop too.
        _ = stop.wait_for(|stop| *stop) => None,
    }
}

/// Serves requests until one side ends the connection.
async fn exchange<S: HttpService, Io>(
    common: &Common<S>,
    io: Io,
    peer: Peer,
    slot: Arc<Slot>,
    start: Instant,
) -> Result<(), RefusedReason>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut stop = common.stop.clone();
    let mut revoked = pin!(until_revoked(common.tls.clone(), peer.certificates.clone()));
    let address = peer.address;
    let service = ConnectionService { service: common.service.clone(), peer, slot: Arc::clone(&slot) };
    let mut http = pin!(common.http.serve_connection(TokioIo::new(io), service));
    let age = start + common.settings.age(fastrand::f64());
    let (mut is_old, mut lifetime) = (false, Lifetime::new(start, &common.settings));
    loop {
        tokio::select! {
            ended = &mut http => {
                if let Err(error) = ended {
                    tracing::debug!(error = chain(&*error), "connection ended early");
                }
                return lifetime.outcome(slot.phase());
            }
            // An error means that the sender is gone: stop too.
            _ = stop.wait_for(|stop| *stop), if !lifetime.is_stopping => {
                lifetime.stop(Instant::now());
                http.as_mut().graceful_shutdown();
            }
            certificate = &mut revoked => {
                tracing::warn!(certificate, ?address, "certificate was revoked; closing its connection");
                return Err(RefusedReason::Revoked);
            }
            () = sleep_until(age), if !is_old => {
                is_old = true;
                http.as_mut().graceful_shutdown();
            }
            () = sleep_until(lifetime.look_at) => match lifetime.look(slot.phase(), Instant::now()) {
                Verdict::Wait => {}
                Verdict::Close => http.as_mut().graceful_shutdown(),
                Verdict::Cut => return lifetime.outcome(slot.phase()),
            },
        }
    }
}

/// Resolves once the certificate that a peer has shown is revoked; never for a peer that has shown none.
async fn until_revoked(
    tls: Option<watch::Receiver<Arc<tls::Loaded>>>,
    certificates: Option<Arc<[CertificateDer<'static>]>>,
) -> String {
    match tls.zip(certificates) {
        Some((tls, certificates)) => tls::until_revoked(tls, certificates).await,
        None => std::future::pending().await,
    }
}

/// Deadlines of a connection that speaks HTTP. Pure: the caller has the clock.
#[derive(Clone, Copy, Debug)]
struct Lifetime {
    start: Instant,
    request: Duration,
    idle: Duration,
    /// Time at which it is to be looked at next.
    look_at: Instant,
    /// The listener stops.
    is_stopping: bool,
    /// A deadline has passed, and the peer has been told.
    is_closing: bool,
}

/// Fate of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It goes on.
    Wait,
    /// It takes no more requests, and its peer is told.
    Close,
    /// It ends now.
    Cut,
}

impl Lifetime {
    /// Deadlines of a connection that began at `start`.
    fn new(start: Instant, settings: &ConnectionSettings) -> Self {
        let (request, idle) = (settings.request(), settings.idle());
        let look_at = start + request.min(idle);
        Self { start, request, idle, look_at, is_stopping: false, is_closing: false }
    }

    /// Stops with the listener: without a request in progress it has a moment left.
    fn stop(&mut self, now: Instant) {
        self.is_stopping = true;
        self.look_at = now + CLOSE;
    }

    /// Looks at the connection, in its current phase.
    fn look(&mut self, phase: Option<Phase>, now: Instant) -> Verdict {
        // One that is not idle may become so at any moment, and has its idle time then.
        let soonest = now + self.idle;
        let (deadline, is_busy) = match phase {
            None => (now, false),
            Some(Phase::Pending) => (self.start + self.request, false),
            Some(Phase::Idle(since)) => (since + self.idle, false),
            Some(Phase::Busy(_)) => (soonest, true),
        };
        if self.is_stopping {
            self.look_at = now + CLOSE;
            return if is_busy { Verdict::Wait } else { Verdict::Cut };
        }
        if deadline > now {
            self.is_closing = false;
            self.look_at = deadline.min(soonest);
            return Verdict::Wait;
        }
        self.look_at = now + CLOSE;
        if std::mem::replace(&mut self.is_closing, true) { Verdict::Cut } else { Verdict::Close }
    }

    /// Outcome of a connection that ends in a phase.
    fn outcome(&self, phase: Option<Phase>) -> Result<(), RefusedReason> {
        match phase {
            Some(Phase::Pending) if self.is_closing => Err(RefusedReason::NoRequest),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lifetime(request_s: u64, idle_s: u64) -> (Lifetime, impl Fn(u64) -> Instant) {
        let settings = ConnectionSettings { request_ms: request_s * 1000, idle_s, ..Default::default() };
        let start = Instant::now();
        (Lifetime::new(start, &settings), move |seconds| start + Duration::from_secs(seconds))
    }

    #[test]
    fn a_connection_without_a_request_is_closed_and_then_cut() {
        let (mut lifetime, at) = lifetime(10, 60);
        assert_eq!(lifetime.look_at, at(10));
        assert_eq!(lifetime.outcome(Some(Phase::Pending)), Ok(()), "the peer ended it in time");
        assert_eq!(lifetime.look(Some(Phase::Pending), at(10)), Verdict::Close);
        assert_eq!(lifetime.look(Some(Phase::Pending), lifetime.look_at), Verdict::Cut);
        assert_eq!(lifetime.outcome(Some(Phase::Pending)), Err(RefusedReason::NoRequest));
    }

    #[test]
    fn an_idle_connection_has_its_time_whenever_it_became_idle() {
        let (mut lifetime, at) = lifetime(10, 60);
        assert_eq!(lifetime.look(Some(Phase::Busy(1)), at(10)), Verdict::Wait);
        assert_eq!(lifetime.look_at, at(70));
        assert_eq!(lifetime.look(Some(Phase::Idle(at(15))), at(70)), Verdict::Wait);
        assert_eq!(lifetime.look_at, at(75));
        assert_eq!(lifetime.look(Some(Phase::Idle(at(15))), at(75)), Verdict::Close);
        assert_eq!(
            lifetime.look(Some(Phase::Busy(1)), at(76)),
            Verdict::Wait,
            "a request came at the last moment"
        );
        assert_eq!(lifetime.look(Some(Phase::Idle(at(77))), at(137)), Verdict::Close);
        assert_eq!(lifetime.look(Some(Phase::Idle(at(77))), at(138)), Verdict::Cut);
        assert_eq!(lifetime.outcome(Some(Phase::Idle(at(77)))), Ok(()));
    }

    #[test]
    fn idle_times_below_the_time_for_a_request_hold_too() {
        let (mut lifetime, at) = lifetime(600, 1);
        assert_eq!(lifetime.look_at, at(1));
        assert_eq!(lifetime.look(Some(Phase::Pending), at(1)), Verdict::Wait);
        assert_eq!(lifetime.look_at, at(2));
        assert_eq!(lifetime.look(Some(Phase::Idle(at(1))), at(2)), Verdict::Close);
    }

    #[test]
    fn a_stop_spares_requests_in_progress_alone() {
        for (phase, verdict) in [(Phase::Pending, Verdict::Cut), (Phase::Busy(2), Verdict::Wait)] {
            let (mut lifetime, at) = lifetime(10, 60);
            lifetime.stop(at(1));
            assert_eq!(lifetime.look_at, at(1) + CLOSE);
            assert_eq!(lifetime.look(Some(phase), at(2)), verdict);
        }
    }
}
