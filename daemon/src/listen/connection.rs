//! One connection: its deadlines, and HTTP/1.1 or HTTP/2 on it.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_rustls::TlsAcceptor;

use super::admission::Phase;
use super::metrics::RefusedReason;
use super::places::{Place, Places};
use super::service::{ConnectionService, HttpService, Peer};
use super::settings::ConnectionSettings;
use super::socket::{self, Stream};
use crate::errors::chain;
use crate::tls;

/// Time for a peer to take its leave, once the connection takes no more requests.
const LEAVE: Duration = Duration::from_secs(1);

/// Everything that the connections of a listener share.
pub(super) struct Common<S> {
    pub(super) service: S,
    pub(super) settings: ConnectionSettings,
    pub(super) http: auto::Builder<TokioExecutor>,
    /// Configuration in force for handshakes; `None`: no TLS.
    pub(super) tls: Option<watch::Receiver<Arc<tls::Loaded>>>,
    pub(super) places: Arc<Places>,
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
    place: Place,
    displaced: oneshot::Receiver<()>,
) {
    let refused = tokio::select! {
        biased;
        _ = displaced => Err(RefusedReason::Displaced),
        served = begin(&common, stream, address, Arc::new(place)) => served.unwrap_or(Ok(())),
    };
    if let Err(reason) = refused {
        common.places.refuse::<()>(reason, address);
    }
}

/// Waits for the first byte, shakes hands where there is TLS, and serves requests. `None`: the listener stopped before there was
/// any HTTP.
async fn begin<S: HttpService>(
    common: &Common<S>,
    stream: Stream,
    address: Option<SocketAddr>,
    place: Arc<Place>,
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
        return Some(Box::pin(exchange(common, stream, peer, place, start)).await);
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
            Some(Box::pin(exchange(common, stream, peer, place, start)).await)
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
    place: Arc<Place>,
    start: Instant,
) -> Result<(), RefusedReason>
where
    Io: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (settings, mut stop) = (&common.settings, common.stop.clone());
    let service = ConnectionService { service: common.service.clone(), peer, place: Arc::clone(&place) };
    let mut http = pin!(common.http.serve_connection(TokioIo::new(io), service));
    let age = start + settings.age(fastrand::f64());
    let (mut is_old, mut is_stopping, mut is_leaving) = (false, false, false);
    let mut look = start + settings.request().min(settings.idle());
    loop {
        tokio::select! {
            ended = &mut http => {
                if let Err(error) = ended {
                    tracing::debug!(error = chain(&*error), "connection ended early");
                }
                let has_run_out = is_leaving && place.phase() == Some(Phase::Pending);
                return if has_run_out { Err(RefusedReason::NoRequest) } else { Ok(()) };
            }
            // An error means that the sender is gone: stop too.
            _ = stop.wait_for(|stop| *stop), if !is_stopping => {
                is_stopping = true;
                http.as_mut().graceful_shutdown();
                look = Instant::now() + LEAVE;
            }
            () = sleep_until(age), if !is_old => {
                is_old = true;
                http.as_mut().graceful_shutdown();
            }
            () = sleep_until(look) => {
                let now = Instant::now();
                let Some(phase) = place.phase() else { return Err(RefusedReason::Displaced) };
                match next_look(phase, start, settings, now) {
                    _ if is_stopping && !matches!(phase, Phase::Busy(_)) => return Ok(()),
                    Look::Again(at) => {
                        is_leaving = false;
                        look = if is_stopping { now + LEAVE } else { at };
                    }
                    Look::Leave if !is_leaving => {
                        is_leaving = true;
                        http.as_mut().graceful_shutdown();
                        look = now + LEAVE;
                    }
                    Look::Leave if phase == Phase::Pending => return Err(RefusedReason::NoRequest),
                    Look::Leave => return Ok(()),
                }
            }
        }
    }
}

/// Outcome of a look at a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    /// Nothing is due before this time.
    Again(Instant),
    /// It had its time.
    Leave,
}

/// Looks at a connection that began at `start`. One that is not idle may become so at any moment, and has its idle time then.
fn next_look(phase: Phase, start: Instant, settings: &ConnectionSettings, now: Instant) -> Look {
    let soonest_idle = now + settings.idle();
    let due = match phase {
        Phase::Pending => start + settings.request(),
        Phase::Idle(since) => since + settings.idle(),
        Phase::Busy(_) => soonest_idle,
    };
    if due <= now { Look::Leave } else { Look::Again(due.min(soonest_idle)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_and_idle_connections_have_their_time_and_busy_ones_all_of_it() {
        let settings = ConnectionSettings { request_ms: 10_000, idle_s: 60, ..Default::default() };
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let look = |phase, now| next_look(phase, start, &settings, at(now));
        assert_eq!(look(Phase::Pending, 9), Look::Again(at(10)));
        assert_eq!(look(Phase::Pending, 10), Look::Leave);
        assert_eq!(look(Phase::Idle(at(5)), 10), Look::Again(at(65)));
        assert_eq!(look(Phase::Idle(at(5)), 65), Look::Leave);
        assert_eq!(look(Phase::Busy(1), 1000), Look::Again(at(1060)));
        let settings = ConnectionSettings { request_ms: 600_000, ..settings };
        assert_eq!(next_look(Phase::Pending, start, &settings, at(1)), Look::Again(at(61)));
    }
}
