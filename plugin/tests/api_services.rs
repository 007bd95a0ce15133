//! The services of the public API, as they are described and as they are served.
#![cfg(test)]

use std::net::SocketAddr;
use std::time::Duration;

use fiberlb_plugin::agents::Listen;
use fiberlb_plugin::config::Config;
use fiberlb_plugin::resources::Kind;
use fiberlb_plugin::{agents, app, config};
use fiberlb_proto::FILE_DESCRIPTOR_SET;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

const PATIENCE: Duration = Duration::from_secs(30);

fn descriptors() -> FileDescriptorSet {
    FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap()
}

/// Full names of the services that the descriptors have.
fn described() -> Vec<String> {
    let set = descriptors();
    let names = set.file.iter().flat_map(|file| {
        let services = file.service.iter();
        services.map(|service| format!("{}.{}", file.package(), service.name()))
    });
    names.collect()
}

#[tokio::test]
async fn every_service_that_is_described_is_served() {
    let dir = tempfile::tempdir().unwrap();
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let app = app::start(Config {
        api: config::ApiSettings { listen: anywhere, ..config::ApiSettings::default() },
        store: config::StoreSettings {
            path: dir.path().join("store.redb"),
            ..config::StoreSettings::default()
        },
        northbound: config::NorthboundSettings {
            endpoints: vec![format!("unix:{}", dir.path().join("nb.sock").display())],
            ..config::NorthboundSettings::default()
        },
        agents: agents::Settings { listen: Listen::Off, ..agents::Settings::default() },
        metrics: config::MetricsSettings { listen: anywhere, ..config::MetricsSettings::default() },
        ..Config::default()
    });
    let app = app.await.unwrap();
    let address = format!("http://{}", app.api_address);
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(app.run(async { stopped.await.unwrap() }));
    let endpoint = Endpoint::from_shared(address).unwrap();
    let channel = endpoint.connect();
    let mut client = HealthClient::new(timeout(PATIENCE, channel).await.unwrap().unwrap());
    let described = described();
    assert!(described.len() > 5, "{described:?}");
    for service in described {
        let answer = client.check(HealthCheckRequest { service: service.clone() }).await;
        let status = answer.map(|answer| answer.into_inner().status());
        assert_eq!(status.unwrap_or(ServingStatus::ServiceUnknown), ServingStatus::Serving, "{service}");
    }
    drop(client);
    stop.send(()).unwrap();
    timeout(PATIENCE, running).await.unwrap().unwrap().unwrap();
}

#[test]
fn what_has_something_below_it_is_deleted_with_it_if_asked() {
    let set = descriptors();
    for kind in Kind::ALL {
        let name = format!("Delete{kind:?}Request");
        let mut messages = set.file.iter().flat_map(|file| &file.message_type);
        let message = messages.find(|message| message.name() == name).expect(&name);
        let takes_cascade = message.field.iter().any(|field| field.name() == "cascade");
        let is_parent = Kind::ALL.iter().any(|child| child.parent() == Some(*kind));
        assert_eq!(takes_cascade, is_parent, "{name}");
    }
}
