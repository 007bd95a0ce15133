//! `ssl:` endpoints of a real ovsdb-server, with certificates in force, expired, renewed and of somebody else.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ovsdb::client::{Client, Config, ConnectionStatus, TlsFiles};
use ovsdb::endpoint::Endpoint;
use ovsdb::operation::Operation;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use uuid::Uuid;

use crate::rows::{TABLE, untyped};
use fiberlb_ovn_testing::{Server, config, connect, owned, release, run, status};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A certificate authority.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut parameters = named(name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = parameters.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(parameters, key), pem }
    }

    /// Writes a certificate that expires after or, negative, before so many days; and this CA beside it.
    fn issue(&self, dir: &Path, name: &str, days: i64) -> TlsFiles {
        let mut parameters = named(name);
        let ends = match u32::try_from(days) {
            Ok(days) => SystemTime::now() + DAY * days,
            Err(_) => SystemTime::now() - DAY * u32::try_from(-days).unwrap(),
        };
        parameters.not_before = (SystemTime::now() - DAY * 100).into();
        parameters.not_after = ends.into();
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        let files = files(dir, name);
        fs::write(&files.ca, &self.pem).unwrap();
        fs::write(&files.certificate, certificate.pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }
}

/// No names of hosts, as in OVN's own certificates.
fn named(name: &str) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters
}

fn files(dir: &Path, name: &str) -> TlsFiles {
    let file = |part: &str| dir.join(format!("{name}-{part}.pem"));
    TlsFiles { ca: file("ca"), certificate: file("cert"), key: file("key") }
}

async fn server(files: &TlsFiles) -> Server {
    let path = |option: &str, path: &PathBuf| format!("--{option}={}", path.display());
    Server::start_with(vec![
        "--remote=pssl:0:127.0.0.1".to_owned(),
        path("ca-cert", &files.ca),
        path("certificate", &files.certificate),
        path("private-key", &files.key),
    ])
    .await
}

fn with(server: &Server, tls: TlsFiles) -> Config {
    let endpoint = Endpoint::Ssl { host: "localhost".to_owned(), port: server.port() };
    Config { tls: Some(tls), ..config(endpoint) }
}

async fn fails(config: Config, words: &[&str]) {
    let (client, _events) = Client::start(config, untyped());
    let has_all = |status: &ConnectionStatus| {
        let text = status.to_string();
        words.iter().all(|word| text.contains(word))
    };
    status(&client, &words.join(" "), has_all).await;
    assert!(!client.has_been_live());
}

fn insert(number: u128, size: usize) -> Vec<Operation> {
    vec![Operation::insert(TABLE, Uuid::from_u128(number), owned(&"x".repeat(size), "o"))]
}

#[tokio::test]
async fn certificates_as_ovs_pki_makes_them_are_taken_in_both_directions() {
    let dir = tempfile::tempdir().unwrap();
    let pki = |arguments: &[&str]| {
        run(release()
            .command("ovs-pki")
            .current_dir(dir.path())
            .arg(format!("--dir={}", dir.path().join("pki").display()))
            .arg(format!("--log={}", dir.path().join("log").display()))
            .args(arguments))
    };
    pki(&["init"]);
    pki(&["req+sign", "server", "switch"]);
    pki(&["req+sign", "client", "switch"]);
    let files = |name: &str| TlsFiles {
        ca: dir.path().join("pki/switchca/cacert.pem"),
        certificate: dir.path().join(format!("{name}-cert.pem")),
        key: dir.path().join(format!("{name}-privkey.pem")),
    };
    let server = server(&files("server")).await;
    let (client, _events) = connect(with(&server, files("client")), untyped()).await;
    // More than sockets and TLS take at once, each way.
    client.transact(insert(1, 8 << 20)).await.unwrap();
    let many = (2..200).map(|number| client.transact(insert(number, 10_000)));
    futures_util::future::try_join_all(many).await.unwrap();
    assert_eq!(client.read().rows(TABLE).len(), 199);
}

#[tokio::test]
async fn renewed_files_are_used_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let mut server = server(&old.issue(dir.path(), "server", 1)).await;
    let tls = old.issue(dir.path(), "client", 1);
    let port = server.port();
    let (client, mut events) = connect(with(&server, tls), untyped()).await;
    server.kill();
    new.issue(dir.path(), "server", 1);
    server.start_again_on(port).await;
    status(&client, "the old CA", |status| status.to_string().contains("is not issued by the CA in")).await;
    new.issue(dir.path(), "client", 1);
    fiberlb_ovn_testing::reloaded(&mut events).await;
    client.transact(insert(1, 1)).await.unwrap();
}

#[tokio::test]
async fn what_is_wrong_with_a_certificate_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let client = ours.issue(dir.path(), "client", 1);
    let good = server(&ours.issue(dir.path(), "server", 1)).await;
    let expired = server(&ours.issue(dir.path(), "expired-server", -1)).await;
    fails(with(&expired, client.clone()), &["the server's certificate has expired: renew it on the server"])
        .await;

    let strange = theirs.issue(dir.path(), "strange", 1);
    let mixed = TlsFiles { ca: strange.ca.clone(), ..client.clone() };
    fails(with(&good, mixed), &["is not issued by the CA in", "strange-ca.pem"]).await;
    let mixed = TlsFiles { ca: client.ca.clone(), ..strange };
    fails(with(&good, mixed), &["the server refuses the certificate in", "strange-cert.pem"]).await;
    let old = ours.issue(dir.path(), "old-client", -1);
    fails(with(&good, old), &["old-client-cert.pem", "has expired: renew it"]).await;
}

#[tokio::test]
async fn what_is_wrong_with_a_file_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let ours = Authority::new("ours");
    let server = server(&ours.issue(dir.path(), "server", 1)).await;
    let client = ours.issue(dir.path(), "client", 1);
    let other = ours.issue(dir.path(), "other", 1);
    let missing = dir.path().join("missing.pem");
    let empty = dir.path().join("empty.pem");
    fs::write(&empty, "nothing\n").unwrap();

    let wrong = TlsFiles { certificate: missing.clone(), ..client.clone() };
    fails(with(&server, wrong), &["missing.pem", "No such file", "the client's certificate"]).await;
    let wrong = TlsFiles { key: empty.clone(), ..client.clone() };
    fails(with(&server, wrong), &["empty.pem", "the client's private key"]).await;
    let wrong = TlsFiles { ca: empty, ..client.clone() };
    fails(with(&server, wrong), &["empty.pem", "no certificate in it", "the servers' CA"]).await;
    let wrong = TlsFiles { key: other.key, ..client.clone() };
    fails(with(&server, wrong), &["client-cert.pem", "other-key.pem", "cannot be used"]).await;
    fails(Config { tls: None, ..with(&server, client) }, &["needs a CA, a certificate and a key"]).await;
}

#[tokio::test]
async fn a_server_without_tls_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    let client = Authority::new("ours").issue(dir.path(), "client", 1);
    fails(with(&server, client), &["check that it is listening with pssl:"]).await;
}
