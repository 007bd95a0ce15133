//! Checks that begin with a header of PROXY protocol.

use std::net::SocketAddr;
use std::sync::Arc;

use fiberlb_proxy::health::{Check, CheckKind};
use fiberlb_proxy::proxy_protocol::{HeaderProgress, Subject, Version, parse};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::watch::{Watch, http, target};
use crate::world::World;

/// One probe as a backend has read it: the header's subject, the bytes behind it, and the probe's own address. A request is
/// answered; else it reads to the end, which must be no reset.
type Probe = (Subject, Vec<u8>, SocketAddr);

fn backend(world: &World) -> (SocketAddr, UnboundedReceiver<Probe>) {
    let listener = world.listen("127.0.0.1:0");
    let address = listener.local_addr().unwrap();
    let (sender, probes) = unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, peer)) = listener.accept().await {
            let (mut bytes, mut buffer) = (Vec::new(), [0; 1024]);
            while !bytes.ends_with(b"\r\n\r\n") || bytes.len() < 20 {
                match stream.read(&mut buffer).await.unwrap() {
                    0 => break,
                    count => bytes.extend_from_slice(&buffer[..count]),
                }
            }
            let HeaderProgress::Complete { header, length } = parse(&bytes).unwrap() else {
                panic!("{bytes:?}")
            };
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
            if sender.send((header.subject, bytes[length..].to_vec(), peer)).is_err() {
                break;
            }
        }
    });
    (address, probes)
}

#[tokio::test]
async fn checks_state_themselves_before_all_else() {
    let Some(world) = World::new("checks_state_themselves_before_all_else") else { return };
    for version in [Version::V1, Version::V2] {
        for kind in [CheckKind::Tcp, http("200")] {
            let (address, mut probes) = backend(&world);
            let patient = std::time::Duration::from_secs(2);
            let check = Check::new(kind.clone(), patient, patient, 1, 1).unwrap().with_header(version);
            let mut watch = Watch::start();
            watch.apply(&world, vec![target(address, &Arc::new(check), &[1])]);
            let verdict = watch.verdict().await;
            assert!(verdict.up, "{version:?} {kind:?}: {}", verdict.reason);
            let (subject, rest, peer) = probes.recv().await.unwrap();
            match (version, subject) {
                (Version::V1, Subject::Tcp(endpoints)) => {
                    assert_eq!((endpoints.source, endpoints.destination), (peer, address));
                }
                (version, subject) => assert_eq!((version, subject), (Version::V2, Subject::Local)),
            }
            assert_eq!(rest.starts_with(b"GET / HTTP/1.1\r\n"), kind != CheckKind::Tcp);
            assert_eq!(rest.is_empty(), kind == CheckKind::Tcp);
        }
    }
}

#[tokio::test]
async fn a_refused_check_is_bad_with_a_header_too() {
    let Some(world) = World::new("a_refused_check_is_bad_with_a_header_too") else { return };
    let second = std::time::Duration::from_secs(1);
    let check = Check::new(CheckKind::Tcp, second, second, 1, 1).unwrap().with_header(Version::V2);
    let mut watch = Watch::start();
    watch.apply(&world, vec![target("127.0.0.1:9".parse().unwrap(), &Arc::new(check), &[1])]);
    let verdict = watch.verdict().await;
    assert_eq!((verdict.up, verdict.reason.as_str()), (false, "connection refused"));
}
