//! Handshakes.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use fiberlb_daemon::listen::{ConnectionSettings, RefusedReason};
use fiberlb_daemon::testing::{Opening, PATIENCE, connect_from, open, write_secret};
use fiberlb_daemon::tls::Files;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::world::{ATTACKER, Client, HONEST, World, patient};

/// Makes a certificate of its own for `localhost`, in two files.
fn certificate(directory: &Path) -> Files {
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let file = |name: &str, text: String| {
        let path = directory.join(name);
        write_secret(&path, &text);
        path
    };
    Files {
        certificate: file("a.pem", certificate.pem()),
        key: file("a.key", key.serialize_pem()),
        client_ca: None,
        client_crl: None,
    }
}

fn world(settings: ConnectionSettings, files: &Files) -> World {
    let loaded = files.load().unwrap();
    World::start(settings, |listener| listener.with_tls(files.clone(), loaded))
}

async fn shake(
    source: IpAddr,
    world: &World,
    files: &Files,
    alpn: &[&str],
    shows_certificate: bool,
) -> std::io::Result<TlsStream<TcpStream>> {
    let chain = || vec![CertificateDer::from_pem_file(&files.certificate).unwrap()];
    let mut roots = RootCertStore::empty();
    roots.add(chain().remove(0)).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = if shows_certificate {
        builder.with_client_auth_cert(chain(), PrivateKeyDer::from_pem_file(&files.key).unwrap()).unwrap()
    } else {
        builder.with_no_client_auth()
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = connect_from(source, world.address()).await?;
    let name = ServerName::try_from("localhost").unwrap();
    timeout(PATIENCE, TlsConnector::from(Arc::new(config)).connect(name, stream)).await?
}

#[tokio::test]
async fn the_protocol_is_agreed_upon_and_the_better_one_wins() {
    let directory = tempfile::tempdir().unwrap();
    let files = certificate(directory.path());
    let world = world(patient(), &files);
    for (offered, agreed) in [(&["http/1.1", "h2"][..], "h2"), (&["http/1.1"], "http/1.1")] {
        let stream = shake(HONEST, &world, &files, offered, false).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(agreed.as_bytes()));
    }
    let stream = shake(HONEST, &world, &files, &["h2"], false).await.unwrap();
    assert_eq!(Client::on(stream).await.get("/peer").await.unwrap(), "127.0.0.3 0");
    assert!(shake(HONEST, &world, &files, &["spdy/3"], false).await.is_err());
}

#[tokio::test]
async fn a_verified_certificate_reaches_the_service() {
    let directory = tempfile::tempdir().unwrap();
    let files = certificate(directory.path());
    let files = Files { client_ca: Some(files.certificate.clone()), ..files };
    let world = world(patient(), &files);
    let stream = shake(HONEST, &world, &files, &["h2"], true).await.unwrap();
    assert_eq!(Client::on(stream).await.get("/peer").await.unwrap(), "127.0.0.3 1");
}

#[tokio::test]
async fn handshakes_that_stand_still_hold_up_nobody_and_end() {
    let directory = tempfile::tempdir().unwrap();
    let files = certificate(directory.path());
    let world = world(ConnectionSettings { handshake_ms: 2000, ..patient() }, &files);
    let _halves = open(20, 0, Opening::HalfHello, ATTACKER, world.address()).await;
    let _unfinished = open(20, 0, Opening::Hello, ATTACKER, world.address()).await;
    let stream = shake(HONEST, &world, &files, &["h2"], false).await.unwrap();
    assert_eq!(Client::on(stream).await.get("/").await.unwrap(), "hello");
    world.until("all have ended", |world| world.refused(RefusedReason::Handshake) == 40).await;
    // What is no TLS at all ends at once.
    let mut plain = connect_from(ATTACKER, world.address()).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    world.until("it is counted", |world| world.refused(RefusedReason::Handshake) == 41).await;
}

#[tokio::test]
async fn who_never_completes_a_request_after_the_handshake_is_closed() {
    let directory = tempfile::tempdir().unwrap();
    let files = certificate(directory.path());
    let settings = ConnectionSettings { first_byte_ms: 200, request_ms: 200, ..patient() };
    let world = world(settings, &files);
    for begun in [&b""[..], b"PRI * HTTP/2.0\r\n\r\nSM"] {
        let mut stream = shake(ATTACKER, &world, &files, &["h2"], false).await.unwrap();
        stream.write_all(begun).await.unwrap();
        stream.flush().await.unwrap();
        // A reset is an end too.
        let _ = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await.expect("it is closed");
    }
    let counted =
        |world: &World| world.refused(RefusedReason::Silent) + world.refused(RefusedReason::NoRequest);
    world.until("both are counted and gone", |world| counted(world) == 2 && world.connections() == 0).await;
    let stream = shake(HONEST, &world, &files, &["h2"], false).await.unwrap();
    assert_eq!(Client::on(stream).await.get("/").await.unwrap(), "hello");
}
