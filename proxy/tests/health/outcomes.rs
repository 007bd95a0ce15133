//! Verdicts on each kind of backend.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fiberlb_proxy::health::{Check, CheckKind, Http};

use crate::backend::{Backend, Behaviour};
use crate::watch::{DELAY, Watch, check, http, target};
use crate::world::World;

/// The verdict of an HTTP check on one backend.
async fn verdict_on(world: &Arc<World>, behaviour: Behaviour, codes: &str) -> (bool, String) {
    let backend = Backend::start(world, "127.0.0.1:0", behaviour);
    let mut watch = Watch::start();
    // Long enough for a machine that is busy with other tests.
    let patient = Duration::from_millis(500);
    let check = Arc::new(Check::new(http(codes), patient, patient, 1, 1).unwrap());
    watch.apply(world, vec![target(backend.address, &check, &[1])]);
    let verdict = watch.verdict().await;
    (verdict.up, verdict.reason)
}

#[tokio::test]
async fn http_backends_are_judged_by_their_status_line() {
    let Some(world) = World::new("http_backends_are_judged_by_their_status_line") else { return };
    let says = |text: &str| Behaviour::Says(text.to_owned());
    let answered = "answered as expected";
    for (behaviour, codes, up, reason) in [
        (Behaviour::code(200), "200", true, answered),
        (Behaviour::code(204), "200-204", true, answered),
        (Behaviour::code(202), "200,202", true, answered),
        (Behaviour::code(503), "503", true, answered),
        (says("HTTP/1.0 200 OK\r\n\r\n"), "200", true, answered),
        (says("HTTP/1.1 200\n"), "200", true, answered),
        (Behaviour::Drips("HTTP/1.1 200 OK\r\n", Duration::from_millis(1)), "200", true, answered),
        (Behaviour::code(503), "200", false, "HTTP 503, expected 200"),
        (Behaviour::code(205), "200-204", false, "HTTP 205, expected 200-204"),
        (
            Behaviour::Parts(&["HTTP/1.1 103 Early Hints\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n"]),
            "200",
            true,
            answered,
        ),
        (says("HTTP/1.1 100 Continue\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"), "200", true, answered),
        (
            Behaviour::Parts(&["HTTP/1.1 100\r\nA:", " b\r\n\r", "\nHTTP/1.1 503 No\r\n"]),
            "200",
            false,
            "HTTP 503, expected 200",
        ),
        (says("HTTP/1.1 101 Switching Protocols\r\n\r\n"), "200", false, "HTTP 101, expected 200"),
        (says("HTTP/1.1 103 Early Hints\r\n\r\n"), "200", false, "no answer within 0.5 s"),
        (
            Behaviour::Parts(&["HTTP/1.1 103 Early Hints\r\n\r\n"]),
            "200",
            false,
            "connection closed without an answer",
        ),
        (says("SSH-2.0-OpenSSH_9.2\r\n"), "200", false, "answer is not HTTP"),
        (says("\x15\x03\x01\x00\x02\x02\x46"), "200", false, "answer is not HTTP"),
        (says("HTTP/2 200\r\n"), "200", false, "answer is not HTTP"),
        (Behaviour::Endless("HTTP/1.1 200 OK"), "200", false, "answer is not HTTP"),
        (Behaviour::Closes, "200", false, "connection closed without an answer"),
        (says("HTTP/1.1 2"), "200", false, "no answer within 0.5 s"),
        (Behaviour::Silent, "200", false, "no answer within 0.5 s"),
        (
            Behaviour::Drips("HTTP/1.1 200 OK\r\n", Duration::from_secs(1)),
            "200",
            false,
            "no answer within 0.5 s",
        ),
    ] {
        let found = verdict_on(&world, behaviour.clone(), codes).await;
        assert_eq!((found.0, found.1.as_str()), (up, reason), "{behaviour:?}");
    }
    let (up, reason) = verdict_on(&world, Behaviour::Resets, "200").await;
    assert!(!up && reason.starts_with("connection "), "{reason}");
}

#[tokio::test]
async fn an_endless_answer_is_not_read_to_its_end() {
    let Some(world) = World::new("an_endless_answer_is_not_read_to_its_end") else { return };
    let backend = Backend::start(&world, "127.0.0.1:0", Behaviour::Endless("HTTP/1.1 200 OK\r\nX: y\r\n"));
    let mut watch = Watch::start();
    watch.apply(&world, vec![target(backend.address, &check(http("200"), 1, 1), &[1])]);
    assert!(watch.verdict().await.up);
    let probes = watch.until(|metrics| metrics.ok >= 5).await.started;
    // The backend's own send buffer takes what the checker does not: some MiB at most, never without an end.
    assert!(backend.sent() < probes * 8 * 1024 * 1024, "{} in {probes} probes", backend.sent());
}

#[tokio::test]
async fn a_backend_can_send_its_whole_page() {
    let Some(world) = World::new("a_backend_can_send_its_whole_page") else { return };
    let backend = Backend::start(&world, "127.0.0.1:0", Behaviour::Page(24 * 1024));
    let patient = Arc::new(
        Check::new(http("200"), Duration::from_millis(500), Duration::from_millis(500), 1, 1).unwrap(),
    );
    let mut watch = Watch::start();
    watch.apply(&world, vec![target(backend.address, &patient, &[1])]);
    assert!(watch.verdict().await.up);
    let ended = watch.until(|metrics| metrics.ok >= 3).await;
    assert!(backend.pages() >= ended.ok, "{} of {ended:?}", backend.pages());
}

#[tokio::test]
async fn tcp_backends_are_judged_by_their_handshake() {
    let Some(world) = World::new("tcp_backends_are_judged_by_their_handshake") else { return };
    let open = Backend::start(&world, "127.0.0.1:0", Behaviour::Silent);
    let silent: SocketAddr = "192.0.2.9:80".parse().unwrap();
    let refused: SocketAddr = "127.0.0.1:9".parse().unwrap();
    for (address, up, reason) in [
        (open.address, true, "connected"),
        (refused, false, "connection refused"),
        (silent, false, "no answer within 0.1 s"),
    ] {
        let mut watch = Watch::start();
        watch.apply(&world, vec![target(address, &check(CheckKind::Tcp, 1, 3), &[1])]);
        let verdict = watch.verdict().await;
        assert_eq!((verdict.up, verdict.reason.as_str()), (up, reason));
        assert_eq!(verdict.key.address, address);
        let metrics = watch.checker.metrics();
        assert!(up || metrics.failed >= 3, "down before the third bad probe: {metrics:?}");
    }
}

#[tokio::test]
async fn a_tcp_check_does_not_reach_the_process() {
    let Some(world) = World::new("a_tcp_check_does_not_reach_the_process") else { return };
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let backend = Backend::start(&world, address, Behaviour::Silent);
        let mut watch = Watch::start();
        watch.apply(&world, vec![target(backend.address, &check(CheckKind::Tcp, 1, 1), &[1])]);
        assert!(watch.verdict().await.up);
        watch.until(|metrics| metrics.ok >= 10).await;
        assert_eq!(backend.accepted(), 0, "{address}");
    }
}

#[tokio::test]
async fn a_neighbour_that_is_not_there_is_unreachable() {
    let Some(world) = World::new("a_neighbour_that_is_not_there_is_unreachable") else { return };
    let check =
        Arc::new(Check::new(CheckKind::Tcp, Duration::from_secs(15), Duration::from_secs(15), 1, 1).unwrap());
    let mut watch = Watch::start();
    watch.apply(&world, vec![target("192.0.2.8:80".parse().unwrap(), &check, &[1])]);
    let verdict = watch.verdict().await;
    assert_eq!((verdict.up, verdict.reason.as_str()), (false, "host unreachable"));
}

#[tokio::test]
async fn the_request_is_what_the_check_says() {
    let Some(world) = World::new("the_request_is_what_the_check_says") else { return };
    let backend = Backend::start(&world, "[::1]:8080", Behaviour::code(200));
    let named = Http::new("HEAD", "/up?deep=1", Some("shop.example"), "200".parse().unwrap()).unwrap();
    for (kind, first, host) in [
        (CheckKind::Http(named), "HEAD /up?deep=1 HTTP/1.1\r\n", "\r\nHost: shop.example\r\n"),
        (http("200"), "GET / HTTP/1.1\r\n", "\r\nHost: [::1]:8080\r\n"),
    ] {
        let mut watch = Watch::start();
        watch.apply(&world, vec![target(backend.address, &check(kind, 1, 1), &[1])]);
        assert!(watch.verdict().await.up);
        let request = backend.requests().pop().unwrap();
        assert!(request.starts_with(first) && request.contains(host), "{request}");
        assert!(request.contains("\r\nUser-Agent: fiberlb-health/"), "{request}");
        assert!(request.contains("\r\nConnection: close\r\n"), "{request}");
    }
}

#[tokio::test]
async fn a_dead_backend_is_down_in_time() {
    let Some(world) = World::new("a_dead_backend_is_down_in_time") else { return };
    let backend = Backend::start(&world, "127.0.0.1:0", Behaviour::code(200));
    let mut watch = Watch::start();
    watch.apply(&world, vec![target(backend.address, &check(http("200"), 1, 3), &[1])]);
    assert!(watch.verdict().await.up);
    backend.becomes(Behaviour::Silent);
    let began = Instant::now();
    assert!(!watch.verdict().await.up);
    // The bound is 3 x 110 ms + 100 ms and some ticks; the rest is for a machine that is busy with other tests.
    assert!(began.elapsed() < DELAY * 50, "{:?}", began.elapsed());
    assert!(began.elapsed() > DELAY * 2, "{:?}", began.elapsed());
}
