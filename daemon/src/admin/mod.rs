//! HTTP service for operators and their monitoring: `/metrics`, `/livez`, `/readyz`.

mod format;
mod readiness;

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::service::Service;
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::Mutex;

use format::ScrapeFormat;
pub use readiness::{BoxFuture, Readiness, Unready};

/// Content type of everything but metrics.
const TEXT: &str = "text/plain; charset=utf-8";
/// Answer to all other requests.
const UNKNOWN: &str = "there is GET /metrics, /livez and /readyz\n";

/// Source of a scrape, in OpenMetrics' text format 1.0.
pub type Scrape = dyn Fn() -> Result<String, fmt::Error> + Send + Sync;

/// The service. Clones share what they answer from.
#[derive(Clone)]
pub struct Admin {
    scrape: Arc<Scrape>,
    turn: Arc<Mutex<()>>,
    readiness: Arc<dyn Readiness>,
}

impl Admin {
    /// Service that answers from these sources.
    pub fn new(
        scrape: impl Fn() -> Result<String, fmt::Error> + Send + Sync + 'static,
        readiness: Arc<dyn Readiness>,
    ) -> Self {
        Self { scrape: Arc::new(scrape), turn: Arc::default(), readiness }
    }

    async fn answer(&self, method: &Method, path: &str, headers: &HeaderMap) -> Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            return response(StatusCode::METHOD_NOT_ALLOWED, TEXT, UNKNOWN.to_owned());
        }
        match path {
            "/metrics" => self.metrics(headers).await,
            "/livez" => response(StatusCode::OK, TEXT, "ok\n".to_owned()),
            "/readyz" => self.ready().await,
            _ => response(StatusCode::NOT_FOUND, TEXT, UNKNOWN.to_owned()),
        }
    }

    /// Collects on a thread that may block, one scrape at a time: files are read, and statuses computed.
    async fn metrics(&self, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let format = ScrapeFormat::accepted(accepted);
        let (turn, scrape) = (Arc::clone(&self.turn).lock_owned().await, Arc::clone(&self.scrape));
        let scraped = tokio::task::spawn_blocking(move || {
            // Also if the client does not wait for the end.
            let _turn = turn;
            scrape().map(|text| format.render(text))
        });
        match scraped.await {
            Ok(Ok(text)) => response(StatusCode::OK, format.content_type(), text),
            Ok(Err(error)) => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
            Err(error) => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
        }
    }

    async fn ready(&self) -> Response<Full<Bytes>> {
        let unready = self.readiness.unready().await;
        if unready.is_empty() {
            return response(StatusCode::OK, TEXT, "ok\n".to_owned());
        }
        let lines = unready.iter().map(|Unready { part, reason }| format!("{part}: {reason}\n"));
        response(StatusCode::SERVICE_UNAVAILABLE, TEXT, lines.collect())
    }
}

impl Service<Request<Incoming>> for Admin {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let admin = self.clone();
        Box::pin(
            async move { Ok(admin.answer(request.method(), request.uri().path(), request.headers()).await) },
        )
    }
}

fn response(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc;

    use http_body_util::BodyExt as _;

    use super::*;

    #[derive(Default)]
    struct Parts(Mutex<Vec<Unready>>);

    impl Readiness for Parts {
        fn unready(&self) -> BoxFuture<'_, Vec<Unready>> {
            Box::pin(async { self.0.lock().unwrap().clone() })
        }
    }

    async fn ask(admin: &Admin, method: Method, path: &str, accept: &str) -> (StatusCode, String, String) {
        let headers = HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())]);
        let response = admin.answer(&method, path, &headers).await;
        let content_type = response.headers()[CONTENT_TYPE].to_str().unwrap().to_owned();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, content_type, String::from_utf8(body.to_vec()).unwrap())
    }

    fn admin(parts: &Arc<Parts>) -> Admin {
        let text = "# HELP a_b Writes.\n# TYPE a_b counter\na_b_total 1\n# EOF\n";
        Admin::new(|| Ok(text.to_owned()), Arc::clone(parts) as _)
    }

    #[tokio::test]
    async fn a_process_is_ready_when_all_its_parts_are_and_alive_before() {
        let parts = Arc::new(Parts::default());
        let admin = admin(&parts);
        parts.0.lock().unwrap().push(Unready::new("store", "no answer within 2 s"));
        let (status, _, body) = ask(&admin, Method::GET, "/readyz", "*/*").await;
        assert_eq!((status.as_u16(), body.as_str()), (503, "store: no answer within 2 s\n"));
        assert_eq!(ask(&admin, Method::GET, "/livez", "*/*").await.0, StatusCode::OK);
        parts.0.lock().unwrap().clear();
        let (status, _, body) = ask(&admin, Method::GET, "/readyz", "*/*").await;
        assert_eq!((status.as_u16(), body.as_str()), (200, "ok\n"));
    }

    #[tokio::test]
    async fn metrics_have_the_format_that_is_asked_for() {
        let admin = admin(&Arc::default());
        let (_, content_type, body) = ask(&admin, Method::GET, "/metrics", "text/plain").await;
        assert!(
            content_type.contains("version=0.0.4") && body.contains("# TYPE a_b_total counter"),
            "{body}"
        );
        let (_, content_type, body) =
            ask(&admin, Method::GET, "/metrics", "application/openmetrics-text").await;
        assert!(content_type.starts_with("application/openmetrics-text") && body.ends_with("# EOF\n"));
    }

    #[tokio::test]
    async fn a_scrape_that_takes_long_holds_nothing_else_up() {
        let (release, released) = mpsc::channel::<()>();
        let released = Mutex::new(released);
        let scrape = move || {
            released.lock().unwrap().recv().unwrap();
            Ok("# EOF\n".to_owned())
        };
        let admin = Admin::new(scrape, Arc::new(Parts::default()));
        let scraped = async {
            let (status, ..) = ask(&admin, Method::GET, "/metrics", "*/*").await;
            assert_eq!(status, StatusCode::OK);
        };
        let other = async {
            assert_eq!(ask(&admin, Method::GET, "/livez", "*/*").await.0, StatusCode::OK);
            release.send(()).unwrap();
        };
        tokio::join!(scraped, other);
    }

    #[tokio::test]
    async fn everything_else_says_what_there_is() {
        let admin = admin(&Arc::default());
        assert_eq!(ask(&admin, Method::GET, "/", "*/*").await.0, StatusCode::NOT_FOUND);
        let (status, _, body) = ask(&admin, Method::POST, "/metrics", "*/*").await;
        assert_eq!((status, body.as_str()), (StatusCode::METHOD_NOT_ALLOWED, UNKNOWN));
    }
}
