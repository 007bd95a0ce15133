//! Requests as they arrive: what each may hold, and unfold to, is known before it is decoded, and large ones are worked on
//! apart from the rest.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use prost_reflect::MessageDescriptor;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{Body as HttpBody, BoxFuture, Bytes, Context, Poll, Service};
use tower_layer::Layer;
use tracing::{Instrument as _, Span};

use super::descriptors::input_of;
use super::entries::{Malformed, entries};
use super::shares::{Permits, Shares};
use crate::api::{ApiError, Limits};
use crate::auth::Principal;
use crate::metrics::Metrics;
use crate::wire::status;

/// Size above which a request is large: its bytes are counted, and it is worked on by a thread of its own. A resource alone has
/// some kilobytes at most.
const LARGE: usize = 64 << 10;
/// Bytes of gRPC's frame before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// Time for a request to arrive whole, after which a peer that sends slowly holds nothing any more.
const ARRIVAL: Duration = Duration::from_secs(20);
/// Longest time that a large request waits for those before it.
const WAIT: Duration = Duration::from_secs(30);

/// Layer that receives requests whole, and has large ones take turns.
#[derive(Clone)]
pub(super) struct RequestLayer(Arc<Gate>);

/// Limits on the requests of all connections.
struct Gate {
    message_bytes: usize,
    list_entries: usize,
    /// KiB of large requests that are held.
    held: Shares,
    /// Large requests that are worked on.
    turns: Shares,
    metrics: Arc<Metrics>,
}

/// Request that has arrived.
struct Arrived {
    body: Bytes,
    /// Of a large one.
    held: Option<Held>,
}

/// Bytes of a large request, until this is dropped.
struct Held {
    _bytes: Permits,
    metrics: Arc<Metrics>,
}

impl Held {
    fn new(bytes: Permits, metrics: &Arc<Metrics>) -> Self {
        metrics.large_requests.inc();
        Self { _bytes: bytes, metrics: Arc::clone(metrics) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.metrics.large_requests.dec();
    }
}

impl RequestLayer {
    /// Layer with these limits.
    pub(super) fn new(limits: &Limits, metrics: Arc<Metrics>) -> Self {
        let bytes = limits.large_request_bytes.max(limits.message_bytes.saturating_mul(2));
        Self(Arc::new(Gate {
            message_bytes: limits.message_bytes,
            list_entries: limits.list_entries,
            held: Shares::new(kib(bytes)),
            turns: Shares::new(u32::try_from(limits.large_requests).unwrap_or(u32::MAX)),
            metrics,
        }))
    }
}

impl Gate {
    /// Receives a request.
    ///
    /// # Errors
    /// It is larger than it may be, no message of its method, or did not come in time.
    async fn receive<B>(
        &self,
        principal: &Principal,
        input: &MessageDescriptor,
        body: B,
    ) -> Result<Arrived, Status>
    where
        B: HttpBody<Data = Bytes>,
    {
        let late = || Status::deadline_exceeded(format!("the request did not arrive within {ARRIVAL:?}"));
        let mut body = pin!(body);
        let (mut bytes, mut held, mut until) = (Vec::new(), None, Instant::now() + ARRIVAL);
        while let Some(frame) = timeout_at(until, body.frame()).await.map_err(|_| late())? {
            let frame = frame.map_err(|_| Status::cancelled("the request was given up by its sender"))?;
            let Some(data) = frame.data_ref() else { continue };
            let size = (bytes.len() + data.len()).max(announced(&bytes, data));
            if size > self.message_bytes.saturating_add(PREFIX) {
                return Err(status(exceeded("message_bytes", self.message_bytes, size - PREFIX)));
            }
            // Before it is read: what waits for its turn stays with its sender.
            if size > LARGE && held.is_none() {
                let bytes = turn("large_request_bytes", &self.held, principal, kib(size)).await?;
                held = Some(Held::new(bytes, &self.metrics));
                until = Instant::now() + ARRIVAL;
            }
            bytes.extend_from_slice(data);
        }
        // What is compressed is refused by the services, with the encodings that they take, and never decoded.
        if bytes.first().is_some_and(|compressed| *compressed != 0) {
            return Ok(Arrived { body: bytes.into(), held });
        }
        let message = bytes.get(PREFIX..).unwrap_or_default();
        let count = entries(input, message, self.list_entries).map_err(|Malformed| {
            Status::invalid_argument(format!("the request is no {} message", input.full_name()))
        })?;
        if count > self.list_entries {
            return Err(status(exceeded("list_entries", self.list_entries, count)));
        }
        Ok(Arrived { body: bytes.into(), held })
    }
}

/// Size of the first message of a body with its prefix, as far as it has come.
fn announced(first: &[u8], then: &[u8]) -> usize {
    let mut prefix = first.iter().chain(then).skip(1).take(PREFIX - 1);
    let length = [(); PREFIX - 1].map(|()| prefix.next().copied().unwrap_or_default());
    usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX).saturating_add(PREFIX)
}

fn exceeded(limit: &'static str, most: usize, given: usize) -> ApiError {
    ApiError::limit(limit, format!("{limit}: at most {most}, this request has {given}"))
}

fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX)
}

/// Waits for a large request's share of a limit.
///
/// # Errors
/// Too many others are before it.
async fn turn(
    limit: &'static str,
    shares: &Shares,
    principal: &Principal,
    count: u32,
) -> Result<Permits, Status> {
    let permits = timeout(WAIT, shares.acquire(principal, count)).await.ok().flatten();
    permits.ok_or_else(|| {
        let text = format!(
            "{limit}: requests of more than {} KiB take turns, and this one has waited for {WAIT:?}: try again later",
            LARGE / 1024
        );
        status(ApiError::limit(limit, text))
    })
}

impl<S> Layer<S> for RequestLayer {
    type Service = RequestService<S>;

    fn layer(&self, inner: S) -> RequestService<S> {
        RequestService { inner, gate: Arc::clone(&self.0) }
    }
}

/// Service behind [`RequestLayer`].
#[derive(Clone)]
pub(super) struct RequestService<S> {
    inner: S,
    gate: Arc<Gate>,
}

impl<S, B> Service<Request<B>> for RequestService<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<Response<Body>, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The service that was polled is the one to call; its clone waits for the next call.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let Some(input) = input_of(request.uri().path()) else {
            return Box::pin(inner.call(request.map(Body::new)));
        };
        let gate = Arc::clone(&self.gate);
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let principal = head.extensions.get::<Principal>().cloned().unwrap_or_default();
            let Arrived { body, held } = match gate.receive(&principal, &input, body).await {
                Ok(arrived) => arrived,
                Err(refused) => return Ok(refused.into_http()),
            };
            let request = Request::from_parts(head, Body::new(Full::new(body)));
            let Some(held) = held else { return inner.call(request).await };
            match turn("large_requests", &gate.turns, &principal, 1).await {
                Ok(permits) => apart(inner, request, (held, permits)).await,
                Err(refused) => Ok(refused.into_http()),
            }
        })
    }
}

/// Carries a call out on a thread of its own, so that its work holds up no other call. When the caller is gone, it ends at the
/// next await. The permits are released when it has ended.
async fn apart<S>(
    mut inner: S,
    request: Request<Body>,
    permits: (Held, Permits),
) -> Result<Response<Body>, S::Error>
where
    S: Service<Request<Body>, Response = Response<Body>> + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    let (_caller, gone) = oneshot::channel::<()>();
    let (runtime, span) = (Handle::current(), Span::current());
    let work = async move {
        tokio::select! {
            biased;
            _ = gone => None,
            response = inner.call(request) => Some(response),
        }
    };
    let work = tokio::task::spawn_blocking(move || {
        let _permits = permits;
        runtime.block_on(work.instrument(span))
    });
    match work.await {
        Ok(Some(response)) => response,
        Ok(None) => Ok(Status::cancelled("the caller is gone").into_http()),
        Err(error) => {
            tracing::error!(%error, "a large request was not carried out");
            Ok(Status::internal("the request was not carried out: see the plugin's log").into_http())
        }
    }
}

#[cfg(test)]
mod tests;
