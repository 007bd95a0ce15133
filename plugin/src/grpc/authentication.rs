//! Principal of a call: found before the call, once.

use std::sync::Arc;

use tonic::body::Body;
use tonic::codegen::http::{Request, Response, header};
use tonic::codegen::{BoxFuture, Context, Poll, Service};
use tonic::{Request as GrpcRequest, Status};
use tower_layer::Layer;

use crate::auth::{Authenticator, Credentials, Principal};

/// Layer that puts the principal into each request, and refuses calls that have none.
#[derive(Clone)]
pub(super) struct AuthenticationLayer(pub(super) Arc<dyn Authenticator>);

impl<S> Layer<S> for AuthenticationLayer {
    type Service = Authentication<S>;

    fn layer(&self, inner: S) -> Authentication<S> {
        Authentication { inner, authenticator: Arc::clone(&self.0) }
    }
}

/// Service behind [`AuthenticationLayer`].
#[derive(Clone)]
pub(super) struct Authentication<S> {
    inner: S,
    authenticator: Arc<dyn Authenticator>,
}

impl<S, B> Service<Request<B>> for Authentication<S>
where
    S: Service<Request<B>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<Response<Body>, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // The service that was polled is the one to call; its clone waits for the next call.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let authenticator = Arc::clone(&self.authenticator);
        Box::pin(async move {
            match authenticator.authenticate(&credentials(&request)).await {
                Ok(principal) => {
                    request.extensions_mut().insert(principal);
                    inner.call(request).await
                }
                Err(refused) => Ok(Status::unauthenticated(refused.to_string()).into_http()),
            }
        })
    }
}

fn credentials<B>(request: &Request<B>) -> Credentials {
    let authorization = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    Credentials { authorization: authorization.map(str::to_owned) }
}

/// Principal that the layer found.
///
/// # Errors
/// `UNAUTHENTICATED` if the call did not come through it.
pub(super) fn principal_of<T>(request: &GrpcRequest<T>) -> Result<Principal, Status> {
    let principal = request.extensions().get::<Principal>().cloned();
    principal.ok_or_else(|| Status::unauthenticated("the call has no principal"))
}
