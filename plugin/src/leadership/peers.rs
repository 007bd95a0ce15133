//! Answers to the queries of other plugins.

use std::sync::Arc;

use fiberlb_proto::agent::v1 as agent;
use fiberlb_proto::agent::v1::peer_service_server::PeerService;
use fiberlb_proto::v1;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::cluster::Cluster;
use crate::agents::{node_message, refusal, verdict_message, verification_message};

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
            Err(Status::failed_precondition("this plugin does not lead: ask the one that does"))
        }
    }
}

#[tonic::async_trait]
impl PeerService for Peers {
    async fn list_nodes(
        &self,
        _: Request<v1::ListNodesRequest>,
    ) -> Result<Response<v1::ListNodesResponse>, Status> {
        let nodes = self.leading()?.nodes_here().into_iter().map(node_message).collect();
        Ok(Response::new(v1::ListNodesResponse { nodes }))
    }

    async fn get_node(&self, request: Request<v1::GetNodeRequest>) -> Result<Response<v1::Node>, Status> {
        let node = self.leading()?.node_here(&request.get_ref().id).await;
        node.map(|node| Response::new(node_message(node))).map_err(|error| refusal(&error))
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        let removed = self.leading()?.remove_here(&request.get_ref().id).await;
        removed.map(|()| Response::new(v1::RemoveNodeResponse {})).map_err(|error| refusal(&error))
    }

    async fn verify_ovn(
        &self,
        _: Request<v1::VerifyOvnRequest>,
    ) -> Result<Response<v1::VerifyOvnResponse>, Status> {
        let verification = self.leading()?.verify_here().await;
        let verification = verification.map_err(|error| refusal(&error))?;
        Ok(Response::new(verification_message(verification)))
    }

    async fn get_verdicts(
        &self,
        request: Request<agent::GetVerdictsRequest>,
    ) -> Result<Response<agent::GetVerdictsResponse>, Status> {
        let backend: Uuid = request
            .get_ref()
            .backend_id
            .parse()
            .map_err(|_| Status::invalid_argument("backend_id: is not a UUID"))?;
        let verdicts = self.leading()?.verdicts_here(backend).into_iter().map(verdict_message).collect();
        Ok(Response::new(agent::GetVerdictsResponse { verdicts }))
    }
}
