//! TLS to real etcd, which asks for client certificates.

#![cfg(test)]

mod etcd;

use std::path::Path;
use std::time::Duration;

use chainfire_client::{Certificate, Client, Config, Error, Tls};
use etcd::{Cluster, Files};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut parameters = CertificateParams::new(Vec::<String>::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap())
    }

    fn ca(&self) -> Vec<u8> {
        self.0.pem().into_bytes()
    }

    /// A certificate for a host, good until the end of that year.
    fn issue(&self, host: &str, year: i32) -> Certificate {
        let mut parameters = CertificateParams::new(vec![host.to_owned()]).unwrap();
        parameters.not_before = date_time_ymd(2000, 1, 1);
        parameters.not_after = date_time_ymd(year, 12, 31);
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.0).unwrap();
        Certificate { chain: certificate.pem().into_bytes(), key: key.serialize_pem().into_bytes() }
    }
}

fn cluster(directory: &Path, authority: &Authority, year: i32) -> Cluster {
    let own = authority.issue(&etcd::first_host(), year);
    let write = |name: &str, bytes: &[u8]| {
        let path = directory.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let files = Files {
        ca: write("ca.pem", &authority.ca()),
        certificate: write("own.pem", &own.chain),
        key: write("own.key", &own.key),
    };
    Cluster::start_with(1, &[], Some(&files))
}

async fn put(cluster: &Cluster, tls: Option<Tls>, timeout: Duration) -> Result<u64, Error> {
    let config = Config { tls, timeout, ..Config::new(cluster.endpoints()) };
    Client::new(config).unwrap().put("/a", "1").await
}

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_secs(1);

#[tokio::test]
async fn both_sides_show_certificates() {
    if !etcd::is_installed() {
        return;
    }
    let (directory, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let cluster = cluster(directory.path(), &authority, 4000);
    let tls = |certificate, ca| Some(Tls { ca, certificate, server_name: None });
    let good = tls(Some(authority.issue("client", 4000)), authority.ca());
    put(&cluster, good, LONG).await.unwrap();

    for (tls, why) in [
        (tls(None, authority.ca()), "no client certificate"),
        (tls(Some(authority.issue("client", 2001)), authority.ca()), "an expired client certificate"),
        (tls(Some(Authority::new().issue("client", 4000)), authority.ca()), "one of another CA"),
        (tls(Some(authority.issue("client", 4000)), Authority::new().ca()), "a server of another CA"),
    ] {
        let error = put(&cluster, tls, SHORT).await.expect_err(why).to_string();
        assert!(error.contains("certificate"), "{why}: {error}");
    }
    let broken = tls(Some(Certificate { chain: b"none".to_vec(), key: b"none".to_vec() }), authority.ca());
    let error = Client::new(Config { tls: broken, ..Config::new(["a"]) }).unwrap_err();
    assert!(matches!(&error, Error::Config(text) if text.contains("PEM")), "{error}");
}

#[tokio::test]
async fn an_expired_certificate_of_a_member_is_said() {
    if !etcd::is_installed() {
        return;
    }
    let (directory, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let cluster = cluster(directory.path(), &authority, 2001);
    etcd::await_port(&cluster.endpoints()[0]);
    let tls =
        Tls { ca: authority.ca(), certificate: Some(authority.issue("client", 4000)), server_name: None };
    let error = put(&cluster, Some(tls), SHORT).await.unwrap_err().to_string();
    assert!(error.contains("xpired") && error.contains("valid"), "{error}");
}
