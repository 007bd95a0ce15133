//! Answers to the queries of other plugins.

use std::sync::Arc;

use fiberlb_proto::agent::v1::peer_service_server::PeerService;
use fiberlb_proto::agent::v1::{GetCountedTrafficRequest, GetCountedTrafficResponse};
use fiberlb_proto::v1;
use futures_util::stream::{BoxStream, StreamExt as _};
use tonic::{Request, Response, Status};

use super::cluster::Cluster;
use crate::api::{ApiError, ErrorReason};
use crate::wire::{access_log_message, counted_message, status, verification_message};

/// Answers the queries of other plugins.
pub struct Peers(
    /// This plugin among them.
    pub Arc<Cluster>,
);

impl Peers {
    /// This plugin, if it leads.
    fn leading(&self) -> Result<&Cluster, Status> {
        if self.0.leads() {
            Ok(&self.0)
        } else {
            let text = "this plugin does not lead: ask the one that does";
            Err(status(ApiError::new(ErrorReason::LeaderUnavailable, text)))
        }
    }
}

#[tonic::async_trait]
impl PeerService for Peers {
    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        let removed = self.leading()?.remove_here(&request.get_ref().id).await;
        removed.map(|()| Response::new(v1::RemoveNodeResponse {})).map_err(status)
    }

    async fn verify_ovn(
        &self,
        _: Request<v1::VerifyOvnRequest>,
    ) -> Result<Response<v1::VerifyOvnResponse>, Status> {
        let verification = self.leading()?.verify_here().await;
        let verification = verification.map_err(status)?;
        Ok(Response::new(verification_message(verification)))
    }

    async fn get_counted_traffic(
        &self,
        request: Request<GetCountedTrafficRequest>,
    ) -> Result<Response<GetCountedTrafficResponse>, Status> {
        let leading = self.leading()?;
        let id = request.get_ref().load_balancer_id.parse();
        let id = id.map_err(|_| Status::invalid_argument("load_balancer_id is no UUID"))?;
        Ok(Response::new(counted_message(leading.traffic_here(id))))
    }

    type StreamAccessLogStream = BoxStream<'static, Result<v1::StreamAccessLogResponse, Status>>;

    async fn stream_access_log(
        &self,
        request: Request<v1::StreamAccessLogRequest>,
    ) -> Result<Response<Self::StreamAccessLogStream>, Status> {
        let leading = self.leading()?;
        let id = request.get_ref().id.parse().map_err(|_| Status::invalid_argument("id is no UUID"))?;
        let batches = leading.access_log_here(id).map_err(status)?;
        Ok(Response::new(batches.map(|batch| batch.map(access_log_message).map_err(status)).boxed()))
    }
}
