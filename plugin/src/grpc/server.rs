//! The gRPC server: the API, health, reflection, and TLS where it is configured.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use fiberlb_daemon::listen::{Listener, Listeners, Socket};
use fiberlb_daemon::tls;
use fiberlb_proto::FILE_DESCRIPTOR_SET;
use hyper_util::service::TowerToHyperService;
use tokio::sync::watch;
use tonic_health::ServingStatus;
use tower_layer::Layer as _;

use super::authentication::AuthenticationLayer;
use super::calls::CallLayer;
use super::durations::DurationLayer;
use super::requests::RequestLayer;
use super::routes::Routes;
use super::services::Services;
use crate::api::UseCases;
use crate::auth::Authenticator;
use crate::config::{self, Config};

/// Name of the listener in metrics and logs.
const NAME: &str = "api";
/// Drain deadline: longest wait for calls in progress when the plugin stops. Watches never end by themselves.
const GRACE: Duration = Duration::from_secs(5);

/// Serves until `stop` is true.
///
/// # Errors
/// A certificate that cannot be used.
pub(crate) async fn serve(
    socket: Socket,
    listeners: Listeners,
    cases: UseCases,
    authenticator: Arc<dyn Authenticator>,
    config: Config,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let metrics = Arc::clone(cases.metrics());
    let Routes { mut builder, names, .. } = Routes::all(Services(cases), config.limits.message_bytes);
    let (health, health_service) = tonic_health::server::health_reporter();
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    for name in names {
        health.set_service_status(name, ServingStatus::Serving).await;
    }
    let described = "cannot describe the API";
    let reflection_v1 = reflection().build_v1().context(described)?;
    // Python's grpcio-reflection, for one, knows only this older name.
    let reflection_v1alpha = reflection().build_v1alpha().context(described)?;

    builder.add_service(health_service).add_service(reflection_v1).add_service(reflection_v1alpha);
    let listener = Listener::new(NAME, socket, config.api.connections.clone(), listeners).with_drain(GRACE);
    let listener = match tls_files(&config.api) {
        None => listener,
        Some(files) => {
            let loaded = files.load().context("api.tls_certificate or api.tls_key")?;
            listener.with_tls(files, loaded)
        }
    };
    let routes = RequestLayer::new(&config.limits, Arc::clone(&metrics)).layer(builder.routes().prepare());
    let routes = AuthenticationLayer(authenticator).layer(routes);
    let calls = DurationLayer(metrics).layer(CallLayer.layer(routes));
    listener.serve(TowerToHyperService::new(calls), stop).await;
    Ok(())
}

fn tls_files(config: &config::ApiSettings) -> Option<tls::Files> {
    let (certificate, key) = (config.tls_certificate.clone()?, config.tls_key.clone()?);
    Some(tls::Files { certificate, key, client_ca: None, client_crl: None })
}
