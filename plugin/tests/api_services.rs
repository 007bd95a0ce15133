//! The services of the public API, as they are described and as they are served.
#![cfg(test)]

use std::net::SocketAddr;
use std::time::Duration;

use fiberlb_plugin::agents::Listen;
use fiberlb_plugin::config::Config;
use fiberlb_plugin::resources::Kind;
use fiberlb_plugin::{agents, app, config};
use fiberlb_proto::FILE_DESCRIPTOR_SET;
use fiberlb_proto::v1;
use fiberlb_proto::v1::load_balancer_service_client::LoadBalancerServiceClient;
use prost::Message as _;
use prost_types::{FieldMask, FileDescriptorSet};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use uuid::Uuid;

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

/// A plugin on a store of its own, with no northbound database.
struct Plugin {
    channel: Channel,
    stop: oneshot::Sender<()>,
    running: JoinHandle<anyhow::Result<()>>,
    _dir: TempDir,
}

impl Plugin {
    async fn start() -> Self {
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
        let endpoint = Endpoint::from_shared(format!("http://{}", app.api_address)).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(app.run(async { stopped.await.unwrap() }));
        let channel = timeout(PATIENCE, endpoint.connect()).await.unwrap().unwrap();
        Self { channel, stop, running, _dir: dir }
    }

    async fn stop(self) {
        let Self { channel, stop, running, _dir } = self;
        drop(channel);
        stop.send(()).unwrap();
        timeout(PATIENCE, running).await.unwrap().unwrap().unwrap();
    }
}

#[tokio::test]
async fn every_service_that_is_described_is_served() {
    let plugin = Plugin::start().await;
    let mut client = HealthClient::new(plugin.channel.clone());
    let described = described();
    assert!(described.len() > 5, "{described:?}");
    for service in described {
        let answer = client.check(HealthCheckRequest { service: service.clone() }).await;
        let status = answer.map(|answer| answer.into_inner().status());
        assert_eq!(status.unwrap_or(ServingStatus::ServiceUnknown), ServingStatus::Serving, "{service}");
    }
    drop(client);
    plugin.stop().await;
}

#[tokio::test]
async fn what_is_missing_is_created_or_left_on_demand() {
    let plugin = Plugin::start().await;
    let mut client = LoadBalancerServiceClient::new(plugin.channel.clone());
    let wanted = v1::LoadBalancer {
        id: Uuid::from_u128(7).to_string(),
        name: "shop".to_owned(),
        network: Uuid::from_u128(1).to_string(),
        vip_address: "10.0.0.9".to_owned(),
        ..v1::LoadBalancer::default()
    };
    let delete = |allow_missing| v1::DeleteLoadBalancerRequest {
        id: wanted.id.clone(),
        allow_missing,
        ..v1::DeleteLoadBalancerRequest::default()
    };
    let missing = client.delete_load_balancer(delete(false)).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
    let ignored = client.delete_load_balancer(delete(true)).await.unwrap().into_inner();
    assert_eq!(ignored, v1::LoadBalancer::default());

    let update = |name: &str| v1::UpdateLoadBalancerRequest {
        load_balancer: Some(v1::LoadBalancer { name: name.to_owned(), ..wanted.clone() }),
        update_mask: Some(FieldMask { paths: vec!["name".to_owned()] }),
        allow_missing: true,
        ..v1::UpdateLoadBalancerRequest::default()
    };
    let guarded = v1::UpdateLoadBalancerRequest { etag: "1-1".to_owned(), ..update("shop") };
    let refused = client.update_load_balancer(guarded).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "with an etag nothing is created");
    let checked = v1::UpdateLoadBalancerRequest { validate_only: true, ..update("shop") };
    assert_eq!(client.update_load_balancer(checked).await.unwrap().into_inner().name, "shop");
    let get = || v1::GetLoadBalancerRequest { id: wanted.id.clone() };
    assert_eq!(client.get_load_balancer(get()).await.unwrap_err().code(), Code::NotFound);
    let made = client.update_load_balancer(update("shop")).await.unwrap().into_inner();
    assert_eq!((made.id.as_str(), made.vip_address.as_str()), (wanted.id.as_str(), "10.0.0.9"));
    client.update_load_balancer(update("store")).await.unwrap();
    let changed = client.get_load_balancer(get()).await.unwrap().into_inner();
    assert_eq!((changed.name.as_str(), changed.state.unwrap().generation), ("store", 2));
    drop(client);
    plugin.stop().await;
}

#[test]
fn every_write_can_be_checked_only_and_says_what_becomes_of_the_missing() {
    let set = descriptors();
    let messages = set.file.iter().flat_map(|file| &file.message_type);
    let of_kinds = messages
        .filter(|message| Kind::ALL.iter().any(|kind| message.name().ends_with(&format!("{kind:?}Request"))));
    let mut writes = 0;
    for message in of_kinds {
        let has = |name: &str| message.field.iter().any(|field| field.name() == name);
        let is = |verb: &str| message.name().starts_with(verb);
        let is_write = ["Create", "Update", "Delete", "Apply"].into_iter().any(is);
        assert_eq!(has("validate_only"), is_write, "{}", message.name());
        assert_eq!(has("allow_missing"), is("Update") || is("Delete"), "{}", message.name());
        writes += usize::from(is_write);
    }
    assert_eq!(writes, 3 * Kind::ALL.len() + 1);
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
