//! Calls as they come from a connection: the client's deadline, and plain answers to what is not gRPC.

use std::time::Duration;

use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version, header};
use tonic::codegen::{BoxFuture, Context, Poll, Service};
use tower_layer::Layer;

/// Header with the time that the client still has.
const TIMEOUT: &str = "grpc-timeout";
/// Most digits of a timeout.
const DIGITS: usize = 8;
/// Answer to HTTP/1.1, which cannot carry gRPC.
const NO_GRPC: &str = "this is a gRPC API: it needs HTTP/2\n";

/// Content type of gRPC, as such and with the format of its messages.
const GRPC: [&str; 2] = ["application/grpc", "application/grpc+proto"];
/// Answer to another content type.
const NO_PROTO: &str = "this is a gRPC API: its content type is application/grpc\n";

/// Layer that ends calls at the deadline of their client, and answers HTTP/1.1 and other content types.
#[derive(Clone, Copy)]
pub(super) struct CallLayer;

impl<S> Layer<S> for CallLayer {
    type Service = CallService<S>;

    fn layer(&self, inner: S) -> CallService<S> {
        CallService { inner }
    }
}

/// Service behind [`CallLayer`].
#[derive(Clone)]
pub(super) struct CallService<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for CallService<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<Response<Body>, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if request.version() < Version::HTTP_2 {
            return Box::pin(async { Ok(plain(StatusCode::HTTP_VERSION_NOT_SUPPORTED, NO_GRPC)) });
        }
        if !is_grpc(request.headers()) {
            return Box::pin(async { Ok(plain(StatusCode::UNSUPPORTED_MEDIA_TYPE, NO_PROTO)) });
        }
        let timeout = timeout_of(request.headers());
        let response = self.inner.call(request);
        match timeout {
            None => Box::pin(response),
            Some(timeout) => Box::pin(async move {
                match tokio::time::timeout(timeout, response).await {
                    Ok(response) => response,
                    Err(_) => Ok(Status::deadline_exceeded("the client's deadline has passed").into_http()),
                }
            }),
        }
    }
}

/// True for a content type of gRPC, with or without parameters.
fn is_grpc(headers: &HeaderMap) -> bool {
    let given = headers.get(header::CONTENT_TYPE).and_then(|given| given.to_str().ok()).unwrap_or_default();
    let (given, _) = given.split_once(';').unwrap_or((given, ""));
    GRPC.iter().any(|grpc| given.trim_end().eq_ignore_ascii_case(grpc))
}

fn plain(status: StatusCode, body: &str) -> Response<Body> {
    let mut response = Response::new(Body::new(body.to_owned()));
    *response.status_mut() = status;
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    response
}

/// Time that a client still has; `None` if it does not say, or says nonsense.
fn timeout_of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 3600)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::convert::Infallible;

    use tonic::Code;

    use super::*;

    fn timeout(text: &'static str) -> Option<Duration> {
        timeout_of(&HeaderMap::from_iter([(TIMEOUT.parse().unwrap(), HeaderValue::from_static(text))]))
    }

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        assert_eq!(timeout("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(timeout("99999999S"), Some(Duration::from_secs(99_999_999)));
        assert_eq!(timeout("5m"), Some(Duration::from_millis(5)));
        assert_eq!(timeout("7u"), Some(Duration::from_micros(7)));
        for nonsense in ["", "m", "5", "5x", "-5m", "123456789S", "+5m"] {
            assert_eq!(timeout(nonsense), None, "{nonsense}");
        }
        assert_eq!(timeout_of(&HeaderMap::new()), None);
    }

    /// Never answers.
    #[derive(Clone)]
    pub(in crate::grpc) struct Silent;

    impl Service<Request<()>> for Silent {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = BoxFuture<Response<Body>, Infallible>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<()>) -> Self::Future {
            Box::pin(std::future::pending())
        }
    }

    async fn call(version: Version, content_type: &str) -> Response<Body> {
        let request = Request::builder().version(version).header(TIMEOUT, "5m");
        let request = request.header(header::CONTENT_TYPE, content_type).body(()).unwrap();
        CallLayer.layer(Silent).call(request).await.unwrap()
    }

    #[tokio::test]
    async fn a_call_ends_at_its_clients_deadline() {
        let late = call(Version::HTTP_2, "application/grpc").await;
        assert_eq!(late.headers()["grpc-status"], i32::from(Code::DeadlineExceeded).to_string());
    }

    #[tokio::test]
    async fn what_cannot_be_grpc_is_told_so() {
        let old = call(Version::HTTP_11, "application/grpc").await;
        assert_eq!(old.status(), StatusCode::HTTP_VERSION_NOT_SUPPORTED);
        for taken in ["application/grpc+proto", "Application/gRPC", "application/grpc; charset=utf-8"] {
            assert_eq!(call(Version::HTTP_2, taken).await.status(), StatusCode::OK, "{taken}");
        }
        for other in ["", "application/json", "application/grpc+json", "application/grpc-web", "text/plain"] {
            let answer = call(Version::HTTP_2, other).await;
            assert_eq!(answer.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{other}");
        }
    }
}
