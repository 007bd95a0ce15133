//! Requests of a connection: each learns its peer, and keeps the connection busy until its response has been sent.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper::{Request, Response};
use rustls_pki_types::CertificateDer;

use super::slots::{RequestGuard, Slot};

/// Any error of a service or of a body.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Peer of a connection: an extension of each of its requests.
#[derive(Clone, Debug)]
pub struct Peer {
    /// TCP address; `None` on a socket file.
    pub address: Option<SocketAddr>,
    /// Verified client certificate and its chain; `None` without TLS, and where clients show none.
    pub certificates: Option<Arc<[CertificateDer<'static>]>>,
}

/// Service that a listener serves: hyper's `Service` with the bounds that a connection needs. A tower service becomes one by
/// `hyper_util::service::TowerToHyperService`.
pub trait HttpService:
    Service<
        Request<Incoming>,
        Response = Response<Self::ResponseBody>,
        Error: Into<BoxError>,
        Future: Send + 'static,
    > + Clone
    + Send
    + Sync
    + 'static
{
    /// Body of its responses.
    type ResponseBody: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static;
}

impl<S, B> HttpService for S
where
    S: Service<Request<Incoming>, Response = Response<B>, Error: Into<BoxError>, Future: Send + 'static>
        + Clone
        + Send
        + Sync
        + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
{
    type ResponseBody = B;
}

/// A listener's service on one connection.
pub(super) struct ConnectionService<S> {
    pub(super) service: S,
    pub(super) peer: Peer,
    pub(super) slot: Arc<Slot>,
}

impl<S: HttpService> Service<Request<Incoming>> for ConnectionService<S> {
    type Response = Response<GuardedBody<S::ResponseBody>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let guard = self.slot.request();
        request.extensions_mut().insert(self.peer.clone());
        let response = self.service.call(request);
        Box::pin(async move {
            let response = response.await.map_err(Into::into)?;
            Ok(response.map(|body| GuardedBody { body, _guard: guard }))
        })
    }
}

/// Body of a response that keeps its connection busy.
pub(super) struct GuardedBody<B> {
    body: B,
    _guard: RequestGuard,
}

impl<B: Body + Unpin> Body for GuardedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
