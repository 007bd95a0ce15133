//! Queries between plugins: followers ask the leader for what it alone can do.

use std::time::Duration;

use fiberlb_proto::agent::v1::peer_service_client::PeerServiceClient;
use fiberlb_proto::agent::v1::peer_service_server::PeerService;
use fiberlb_proto::v1;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use super::Api;
use crate::agents::PeerAddress;
use crate::leadership::Role;

/// Deadline of a query to the leader. A comparison with OVN takes longest: seconds with very many load
/// balancers.
const ANSWER: Duration = Duration::from_secs(30);

/// Client of the leader.
pub(super) type Client = PeerServiceClient<Channel>;

impl Api {
    /// Address of the leader, for what it alone can do; `None`: this plugin leads.
    ///
    /// # Errors
    /// `UNAVAILABLE`: there is no leader, or it cannot be asked.
    pub(super) fn leader(&self) -> Result<Option<PeerAddress>, Status> {
        match self.0.roles.role() {
            Role::Leads => Ok(None),
            Role::Follows(None) => Err(Status::unavailable("no plugin leads at the moment: try again")),
            Role::Follows(Some(record)) => record.agents.map(Some).ok_or_else(|| {
                Status::unavailable(format!(
                    "only the plugin that leads, on {}, can do that, and others cannot ask it, for its agents.listen is \
                     off: ask it yourself",
                    record.host
                ))
            }),
        }
    }
}

/// A query to the leader, with its deadline.
pub(super) fn question<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(ANSWER);
    request
}

/// Answers the queries of other plugins.
pub struct Peers(pub Api);

impl Peers {
    /// This plugin's API, if it leads.
    fn leading(&self) -> Result<&Api, Status> {
        if self.0.0.roles.leads() {
            Ok(&self.0)
        } else {
            Err(Status::failed_precondition("this plugin does not lead: ask the one that does"))
        }
    }
}

#[tonic::async_trait]
impl PeerService for Peers {
    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        self.leading()?.forget_node_here(&request.get_ref().id).await?;
        Ok(Response::new(v1::RemoveNodeResponse {}))
    }

    async fn verify_ovn(
        &self,
        _: Request<v1::VerifyOvnRequest>,
    ) -> Result<Response<v1::VerifyOvnResponse>, Status> {
        self.leading()?.verify_ovn_here().await.map(Response::new)
    }
}
