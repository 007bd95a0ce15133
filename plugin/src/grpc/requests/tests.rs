use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use fiberlb_proto::v1;
use futures_util::future::FutureExt as _;
use http_body::Frame;
use prost::Message as _;
use tonic::Code;
use tonic::codegen::http::HeaderMap;

use super::*;

const APPLY: &str = "/fiberlb.v1.LoadBalancerService/ApplyLoadBalancer";

/// Action of a service on a request, which it may hold for as long as it likes.
type Act = Arc<dyn Fn(usize) -> BoxFuture<(), Infallible> + Send + Sync>;

/// Service that acts on each request, by its size, and answers.
#[derive(Clone)]
struct Acting(Act);

impl Service<Request<Body>> for Acting {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let act = Arc::clone(&self.0);
        Box::pin(async move {
            let body = request.into_body().collect().await.expect("a whole body").to_bytes();
            act(body.len()).await?;
            Ok(Status::new(Code::Ok, "").into_http())
        })
    }
}

fn answering() -> Act {
    Arc::new(|_| Box::pin(async { Ok(()) }))
}

/// Limits of which one project has a single large request.
fn limits() -> Limits {
    Limits { large_requests: 2, message_bytes: 1 << 20, list_entries: 1000, ..Limits::default() }
}

fn service(limits: &Limits, act: Act) -> RequestService<Acting> {
    RequestLayer::new(limits, Arc::new(Metrics::new())).layer(Acting(act))
}

/// Body of a message: its prefix, and its bytes.
fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0][..], &length, message].concat().into()
}

fn apply(pools: usize, description: usize) -> Bytes {
    let load_balancer = v1::LoadBalancer { description: "x".repeat(description), ..Default::default() };
    let pools = vec![v1::PoolTree::default(); pools];
    let tree = v1::LoadBalancerTree { load_balancer: Some(load_balancer), pools, ..Default::default() };
    framed(&v1::ApplyLoadBalancerRequest { tree: Some(tree), ..Default::default() }.encode_to_vec())
}

fn request(body: Bytes) -> Request<Full<Bytes>> {
    Request::builder().uri(APPLY).body(Full::new(body)).unwrap()
}

fn code(headers: &HeaderMap) -> (Code, String) {
    let status = Status::from_header_map(headers).expect("a status");
    (status.code(), status.message().to_owned())
}

async fn answer(service: &RequestService<Acting>, body: Bytes) -> (Code, String) {
    code(service.clone().call(request(body)).await.unwrap().headers())
}

#[tokio::test]
async fn what_a_request_may_hold_is_known_before_it_is_decoded() {
    let reached: Act = Arc::new(|size| panic!("a request of {size} bytes came through"));
    let service = service(&limits(), reached);
    let (most, ten_times) = (1 << 20, 10 << 20);
    for (body, refused) in [
        (apply(0, ten_times), format!("message_bytes: at most {most}, this request has")),
        // Announced alone.
        (
            Bytes::from_static(&[0, 255, 255, 255, 255]),
            format!("message_bytes: at most {most}, this request has 4294967295"),
        ),
        (apply(10_000, 0), "list_entries: at most 1000, this request has 1001".to_owned()),
    ] {
        let (code, message) = answer(&service, body).await;
        assert_eq!(code, Code::ResourceExhausted, "{message}");
        assert!(message.starts_with(&refused), "{message}");
    }
    let (code, message) = answer(&service, framed(&[0x0b])).await;
    assert_eq!(
        (code, message.as_str()),
        (Code::InvalidArgument, "the request is no fiberlb.v1.ApplyLoadBalancerRequest message")
    );
}

#[tokio::test]
async fn what_is_within_the_limits_comes_through_whole() {
    let (seen, sizes) = mpsc::channel();
    let service = service(&limits(), {
        Arc::new(move |size| {
            seen.send(size).unwrap();
            Box::pin(async { Ok(()) })
        })
    });
    let compressed = Bytes::from_static(&[1, 0, 0, 0, 2, 0xff, 0xff]);
    for body in [framed(&[]), apply(1000, 0), apply(3, 900_000), compressed] {
        assert_eq!(answer(&service, body.clone()).await.0, Code::Ok);
        assert_eq!(sizes.try_recv(), Ok(body.len()));
    }
}

/// On the test's one thread: a large request that computed on it would let nothing else be answered.
#[tokio::test]
async fn large_requests_hold_up_no_other() {
    let (begin, begun) = tokio::sync::mpsc::unbounded_channel();
    let (release, released) = mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let mut begun = begun;
    let service = service(&limits(), {
        Arc::new(move |size| {
            if size > LARGE {
                begin.send(()).unwrap();
                let _ = released.lock().unwrap().recv();
            }
            Box::pin(async { Ok(()) })
        })
    });
    let large = tokio::spawn({
        let service = service.clone();
        async move { answer(&service, apply(0, 100_000)).await }
    });
    begun.recv().await.unwrap();
    for _ in 0..3 {
        assert_eq!(answer(&service, apply(0, 10)).await.0, Code::Ok);
    }
    assert!(!large.is_finished());
    release.send(()).unwrap();
    assert_eq!(large.await.unwrap().0, Code::Ok);
}

#[tokio::test]
async fn a_large_request_ends_with_its_caller() {
    let (begin, mut begun) = tokio::sync::mpsc::unbounded_channel();
    let service = service(&limits(), {
        Arc::new(move |_| {
            let begin = begin.clone();
            Box::pin(async move {
                begin.send(()).unwrap();
                std::future::pending().await
            })
        })
    });
    // Each has the one place of its project, which the one before it releases.
    for _ in 0..3 {
        let mut call = service.clone().call(request(apply(0, 100_000)));
        tokio::select! {
            _ = &mut call => panic!("it waits for ever"),
            began = begun.recv() => assert!(began.is_some()),
        }
        assert_eq!(service.gate.metrics.large_requests.get(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_comes_slowly_is_given_up() {
    let service = service(&limits(), answering());
    let slow = Request::builder().uri(APPLY).body(Slow::new(apply(0, 100).slice(..50))).unwrap();
    let (code, message) = code(service.clone().call(slow).await.unwrap().headers());
    assert_eq!((code, message.as_str()), (Code::DeadlineExceeded, "the request did not arrive within 20s"));
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_its_turn_stays_with_its_sender() {
    let limits = Limits { large_request_bytes: 0, ..limits() };
    let service = service(&limits, Arc::new(|_| Box::pin(std::future::pending())));
    let large = || Slow::new(apply(0, 1_000_000));
    let (first, second) = (large(), large());
    let (first_read, second_read) = (Arc::clone(&first.read), Arc::clone(&second.read));
    let call = |body| service.clone().call(Request::builder().uri(APPLY).body(body).unwrap());
    // It has all bytes of its project, and never comes to its end.
    let mut first = call(first);
    assert!((&mut first).now_or_never().is_none());
    let refused = call(second).await.unwrap();
    assert!(first_read.load(Ordering::Relaxed) >= 1_000_000 / PIECE);
    assert_eq!(second_read.load(Ordering::Relaxed), 1);
    let (code, message) = code(refused.headers());
    assert_eq!(code, Code::ResourceExhausted);
    assert!(message.starts_with("large_request_bytes: "), "{message}");
}

/// Bytes of a piece of a slow body.
const PIECE: usize = 1000;

/// Body whose pieces come at once, and that then never ends.
struct Slow {
    left: Bytes,
    /// Pieces that were read.
    read: Arc<AtomicUsize>,
}

impl Slow {
    fn new(bytes: Bytes) -> Self {
        Self { left: bytes, read: Arc::default() }
    }
}

impl HttpBody for Slow {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left.is_empty() {
            return Poll::Pending;
        }
        let size = self.left.len().min(PIECE);
        self.read.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(self.left.split_to(size)))))
    }
}
