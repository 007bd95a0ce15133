//! Principal of a call: found before the call, once.

use std::sync::Arc;

use tonic::body::Body;
use tonic::codegen::http::{Request, Response, header};
use tonic::codegen::{BoxFuture, Context, Poll, Service};
use tonic::{Request as GrpcRequest, Status};
use tower_layer::Layer;
use tracing::Instrument as _;

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
                    let span = span(&request);
                    request.extensions_mut().insert(principal);
                    async move { inner.call(request).await }.instrument(span).await
                }
                Err(refused) => Ok(Status::unauthenticated(refused.to_string()).into_http()),
            }
        })
    }
}

/// Span of a call: whatever is logged on its behalf names the method and, once known, the object.
fn span<B>(request: &Request<B>) -> tracing::Span {
    let method = request.uri().path().trim_start_matches('/');
    tracing::info_span!("request", method, id = tracing::field::Empty)
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

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::io;
    use std::sync::{Mutex, PoisonError};

    use futures_util::future::FutureExt as _;
    use tonic::Code;

    use super::*;
    use crate::auth::Unauthenticated;

    /// Knows "secret" alone.
    struct Doorkeeper;

    impl Authenticator for Doorkeeper {
        fn authenticate<'a>(
            &'a self,
            credentials: &'a Credentials,
        ) -> futures_util::future::BoxFuture<'a, Result<Principal, Unauthenticated>> {
            async {
                // An issuer of tokens is elsewhere.
                tokio::task::yield_now().await;
                match credentials.authorization.as_deref() {
                    Some("secret") => Ok(Principal::default()),
                    _ => Err(Unauthenticated("who are you?".to_owned())),
                }
            }
            .boxed()
        }
    }

    /// Logs a line for each call, with the project of its principal.
    #[derive(Clone)]
    struct Logs;

    impl Service<Request<()>> for Logs {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = BoxFuture<Response<Body>, Infallible>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<()>) -> Self::Future {
            Box::pin(async move {
                let principal = request.extensions().get::<Principal>().unwrap();
                tracing::Span::current().record("id", "the-object");
                tracing::info!(own = principal.project_id, "called");
                Ok(Response::new(Body::empty()))
            })
        }
    }

    /// Lines of a log.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    async fn call(authorization: &str) -> Response<Body> {
        let mut service = AuthenticationLayer(Arc::new(Doorkeeper)).layer(Logs);
        let request = Request::builder().uri("http://plugin/fiberlb.v1.PoolService/GetPool");
        let request = request.header(header::AUTHORIZATION, authorization).body(()).unwrap();
        service.call(request).await.unwrap()
    }

    #[tokio::test]
    async fn a_caller_without_credentials_reaches_nothing() {
        let refused = call("guess").await;
        assert_eq!(refused.headers()["grpc-status"], i32::from(Code::Unauthenticated).to_string());
    }

    #[tokio::test]
    async fn what_is_logged_during_a_call_names_it() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        assert_eq!(call("secret").await.status(), 200);
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let span = r#"request{method="fiberlb.v1.PoolService/GetPool" id="the-object"}"#;
        assert!(text.contains(span) && text.contains("called"), "{text}");
    }
}
