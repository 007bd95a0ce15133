//! Certificates, made by the CA's own command, and those that it does not make.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fiberlb_daemon::testing::write_secret;
use fiberlb_plugin::agents::certificates::{AgentCaCommand, Ca};
use fiberlb_plugin::agents::{Listen, Settings};
use rcgen::{CertificateParams, Issuer, KeyPair, SanType, date_time_ymd};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::world::World;

pub(crate) fn make_ca(dir: &Path) {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    AgentCaCommand::Init { dir: dir.to_owned(), names, days: 2, server_days: 1 }.run().unwrap();
}

pub(crate) fn issue(ca: &Path, node_id: &str, outdir: &Path) {
    let ca = Ca { dir: ca.to_owned(), days: 1 };
    AgentCaCommand::Issue { ca, node_id: node_id.to_owned(), outdir: outdir.to_owned() }.run().unwrap();
}

pub(crate) fn world(ca: &Path) -> World {
    World::start(&settings(ca))
}

/// Settings of a plugin with the certificate that was made with the CA.
pub(crate) fn settings(ca: &Path) -> Settings {
    Settings {
        listen: Listen::Tcp(([127, 0, 0, 1], 0).into()),
        tls_certificate: Some(ca.join("server.pem")),
        tls_key: Some(ca.join("server.key")),
        client_ca: Some(ca.join("ca.pem")),
        heartbeat_ms: 60_000,
        ..Settings::default()
    }
}

pub(crate) fn identity(dir: &Path, name: &str) -> Identity {
    let read = |suffix| std::fs::read(dir.join(format!("{name}.{suffix}"))).unwrap();
    Identity::from_pem(read("pem"), read("key"))
}

/// A channel that trusts a CA and shows a certificate.
pub(crate) fn channel(world: &World, ca: &Path, identity: Option<Identity>) -> Channel {
    let Listen::Tcp(address) = world.listen else { panic!("{} is not TCP", world.listen) };
    channel_to(address, ca, identity)
}

pub(crate) fn channel_to(address: SocketAddr, ca: &Path, identity: Option<Identity>) -> Channel {
    let trusted = Certificate::from_pem(std::fs::read(ca.join("ca.pem")).unwrap());
    let mut tls = ClientTlsConfig::new().ca_certificate(trusted);
    if let Some(identity) = identity {
        tls = tls.identity(identity);
    }
    Endpoint::from_shared(format!("https://{address}")).unwrap().tls_config(tls).unwrap().connect_lazy()
}

/// Replaces the plugin's certificate with one that `agent-ca` does not make: for 127.0.0.1 and nothing else,
/// valid for some days from ten days ago.
pub(crate) fn replace_server(ca: &Path, days: u64) {
    let issuer_key = KeyPair::from_pem(&std::fs::read_to_string(ca.join("ca.key")).unwrap()).unwrap();
    let issuer = CertificateDer::from_pem_file(ca.join("ca.pem")).unwrap();
    let issuer = Issuer::from_ca_cert_der(&issuer, issuer_key).unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
    let day = Duration::from_secs(24 * 3600);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    params.not_before = date_time_ymd(1970, 1, 1) + now - 10 * day;
    params.not_after = params.not_before + day * u32::try_from(days).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    write_secret(&ca.join("server.key"), &key.serialize_pem());
    std::fs::write(ca.join("server.pem"), certificate.pem()).unwrap();
}
