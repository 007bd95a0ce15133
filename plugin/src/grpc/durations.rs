//! Durations of calls, by method and how they ended.

use std::sync::Arc;
use std::time::Instant;

use tonic::Code;
use tonic::codegen::http::{Request, Response, StatusCode};
use tonic::codegen::{BoxFuture, Context, Poll, Service};
use tower_layer::Layer;

use super::descriptors::input_of;
use crate::metrics::Metrics;

/// Method of calls that are not of the public API.
const OTHER: &str = "other";

/// Layer that times calls until their answer, or the stream that is one, begins.
#[derive(Clone)]
pub(super) struct DurationLayer(pub(super) Arc<Metrics>);

impl<S> Layer<S> for DurationLayer {
    type Service = DurationService<S>;

    fn layer(&self, inner: S) -> DurationService<S> {
        DurationService { inner, metrics: Arc::clone(&self.0) }
    }
}

/// Service behind [`DurationLayer`].
#[derive(Clone)]
pub(super) struct DurationService<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

impl<S, B, R> Service<Request<B>> for DurationService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    R: Send,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = BoxFuture<Response<R>, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let path = request.uri().path();
        let method = input_of(path).map_or(OTHER, |_| path.trim_start_matches('/')).to_owned();
        let mut call =
            Call { metrics: Arc::clone(&self.metrics), method, class: "cancelled", began: Instant::now() };
        let response = self.inner.call(request);
        Box::pin(async move {
            let response = response.await?;
            call.answered(class(&response));
            Ok(response)
        })
    }
}

/// A call in progress, recorded when it is dropped.
struct Call {
    metrics: Arc<Metrics>,
    method: String,
    /// `cancelled` until there is an answer.
    class: &'static str,
    began: Instant,
}

impl Call {
    // An assignment in the future would move a copy of the field alone into it.
    fn answered(&mut self, class: &'static str) {
        self.class = class;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.metrics.call(std::mem::take(&mut self.method), self.class, self.began.elapsed());
    }
}

/// Class of a call's end: `ok`, `client_error` or `server_error`. A status after the beginning of a stream does not count.
fn class<R>(response: &Response<R>) -> &'static str {
    if response.status() != StatusCode::OK {
        return "client_error";
    }
    let status = response.headers().get("grpc-status").map(|status| Code::from_bytes(status.as_bytes()));
    match status {
        None | Some(Code::Ok) => "ok",
        Some(
            Code::Unknown | Code::DeadlineExceeded | Code::Internal | Code::Unavailable | Code::DataLoss,
        ) => "server_error",
        Some(_) => "client_error",
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tonic::Status;
    use tonic::body::Body;

    use super::super::calls::tests::Silent;
    use super::*;

    #[tokio::test]
    async fn a_call_that_its_client_gives_up_is_counted_apart() {
        let metrics = Arc::new(Metrics::new());
        let request = Request::builder().uri("/fiberlb.v1.PoolService/ListPools").body(()).unwrap();
        drop(DurationLayer(Arc::clone(&metrics)).layer(Silent).call(request));
        let text = metrics.encode().unwrap();
        assert!(text.contains("class=\"cancelled\"} 1\n"), "{text}");
    }

    /// Answers with a code.
    #[derive(Clone)]
    struct Answer(Option<Code>);

    impl Service<Request<()>> for Answer {
        type Response = Response<Body>;
        type Error = Infallible;
        type Future = BoxFuture<Response<Body>, Infallible>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<()>) -> Self::Future {
            let answer = match self.0 {
                None => Response::new(Body::empty()),
                Some(code) => Status::new(code, "no").into_http(),
            };
            Box::pin(async { Ok(answer) })
        }
    }

    #[tokio::test]
    async fn calls_are_counted_by_known_methods_and_by_who_is_at_fault() {
        let metrics = Arc::new(Metrics::new());
        let list = "fiberlb.v1.PoolService/ListPools";
        for (path, code, class) in [
            (list, None, "ok"),
            (list, Some(Code::Unavailable), "server_error"),
            (list, Some(Code::NotFound), "client_error"),
            ("fiberlb.v1.PoolService/Guessed", Some(Code::Unimplemented), "client_error"),
        ] {
            let request = Request::builder().uri(format!("/{path}")).body(()).unwrap();
            DurationLayer(Arc::clone(&metrics)).layer(Answer(code)).call(request).await.unwrap();
            let method = if path == list { list } else { OTHER };
            let series = format!(
                "fiberlb_api_call_duration_seconds_count{{method=\"{method}\",class=\"{class}\"}} 1\n"
            );
            let text = metrics.encode().unwrap();
            assert!(text.contains(&series), "{series}{text}");
        }
    }
}
