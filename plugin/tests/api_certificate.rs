//! The public API's certificate, replaced while the plugin runs.
#![cfg(test)]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use fiberlb_daemon::testing::write_secret;
use fiberlb_plugin::agents::Listen;
use fiberlb_plugin::config::Config;
use fiberlb_plugin::{agents, app, config};
use rcgen::{CertificateParams, KeyPair};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const PATIENCE: Duration = Duration::from_secs(30);

/// Puts a new certificate of its own into a directory, and returns it.
fn certificate(dir: &Path) -> Certificate {
    let key = KeyPair::generate().unwrap();
    let certificate =
        CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    write_secret(&dir.join("api.key"), &key.serialize_pem());
    std::fs::write(dir.join("api.pem"), certificate.pem()).unwrap();
    Certificate::from_pem(certificate.pem())
}

fn settings(dir: &Path) -> Config {
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    Config {
        api: config::ApiSettings {
            listen: anywhere,
            tls_certificate: Some(dir.join("api.pem")),
            tls_key: Some(dir.join("api.key")),
            ..config::ApiSettings::default()
        },
        store: config::StoreSettings { path: dir.join("store.redb"), ..config::StoreSettings::default() },
        northbound: config::NorthboundSettings {
            endpoints: vec![format!("unix:{}", dir.join("nb.sock").display())],
            ..config::NorthboundSettings::default()
        },
        agents: agents::Settings { listen: Listen::Off, ..agents::Settings::default() },
        metrics: config::MetricsSettings { listen: anywhere, ..config::MetricsSettings::default() },
        ..Config::default()
    }
}

async fn connect(address: SocketAddr, trusted: &Certificate) -> Option<HealthClient<Channel>> {
    let tls = ClientTlsConfig::new().ca_certificate(trusted.clone()).domain_name("localhost");
    let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap().tls_config(tls).unwrap();
    endpoint.connect().await.ok().map(HealthClient::new)
}

async fn serves(client: &mut HealthClient<Channel>) -> bool {
    client.check(HealthCheckRequest::default()).await.is_ok()
}

#[tokio::test]
async fn new_connections_see_a_new_certificate_and_open_ones_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let old = certificate(dir.path());
    let app = app::start(settings(dir.path())).await.unwrap();
    let address = app.api_address;
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(app.run(async { stopped.await.unwrap() }));
    let mut open = connect(address, &old).await.expect("the API answers");
    assert!(serves(&mut open).await);

    let new = certificate(dir.path());
    let renewed = async {
        loop {
            match connect(address, &new).await {
                Some(client) => return client,
                None => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    let mut renewed = timeout(PATIENCE, renewed).await.expect("the new certificate is shown");
    assert!(serves(&mut renewed).await);
    assert!(connect(address, &old).await.is_none(), "the old one is shown no more");
    assert!(serves(&mut open).await);
    drop((open, renewed));
    stop.send(()).unwrap();
    timeout(PATIENCE, running).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_plugin_whose_certificate_cannot_be_used_says_which_file() {
    let dir = tempfile::tempdir().unwrap();
    certificate(dir.path());
    std::fs::write(dir.path().join("api.key"), "nothing").unwrap();
    let app = app::start(settings(dir.path())).await.unwrap();
    let ended = timeout(PATIENCE, app.run(std::future::pending())).await.expect("it does not run");
    let error = format!("{:#}", ended.unwrap_err());
    assert!(error.contains("api.tls_key") && error.contains("api.key cannot be used"), "{error}");
}
