//! The gRPC server: the API, health, reflection, and TLS where it is configured.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use fiberlb_proto::FILE_DESCRIPTOR_SET;
use futures_util::future::Either;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic_health::ServingStatus;

use super::authentication::AuthenticationLayer;
use super::routes::Routes;
use super::services::Services;
use crate::api::UseCases;
use crate::auth::Authenticator;
use crate::config::{self, Config};
use crate::tls;

/// Drain deadline: longest wait for calls in progress when the plugin stops. Watches never end by themselves.
const GRACE: Duration = Duration::from_secs(5);

/// Serves until `stop` is true.
///
/// # Errors
/// A certificate that cannot be used, or the listener's failure.
pub(crate) async fn serve(
    socket: TcpListener,
    cases: UseCases,
    authenticator: Arc<dyn Authenticator>,
    config: Config,
    mut stop: watch::Receiver<bool>,
) -> anyhow::Result<()> {
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
    let tls = match tls_files(&config.api) {
        None => None,
        Some(files) => {
            let loaded = files.load().context("api.tls_certificate or api.tls_key")?;
            Some(tls::renew(files, loaded))
        }
    };
    let routes = Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .tcp_nodelay(true)
        .layer(AuthenticationLayer(authenticator))
        .add_routes(builder.routes());

    let mut late = stop.clone();
    let stopped = async move {
        // An error means that the sender is gone: stop too.
        let _ = stop.wait_for(|stop| *stop).await;
    };
    let overdue = async move {
        let _ = late.wait_for(|stop| *stop).await;
        tokio::time::sleep(GRACE).await;
    };
    let incoming = TcpIncoming::from(socket).with_nodelay(Some(true));
    let served = match tls {
        None => Either::Left(routes.serve_with_incoming_shutdown(incoming, stopped)),
        Some(tls) => {
            Either::Right(routes.serve_with_incoming_shutdown(tls::handshakes(incoming, tls), stopped))
        }
    };
    tokio::select! {
        result = served => result.context("the gRPC server failed"),
        () = overdue => Ok(()),
    }
}

fn tls_files(config: &config::ApiSettings) -> Option<tls::Files> {
    let (certificate, key) = (config.tls_certificate.clone()?, config.tls_key.clone()?);
    Some(tls::Files { certificate, key, client_ca: None })
}
