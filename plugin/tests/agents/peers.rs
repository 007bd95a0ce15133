//! Questions of one plugin to another.

use std::net::SocketAddr;
use std::path::Path;

use fiberlb_daemon::listen::Peer;
use fiberlb_plugin::agents::{PeerAddress, Plugins, Settings};
use fiberlb_proto::agent::v1::peer_service_client::PeerServiceClient;
use fiberlb_proto::agent::v1::peer_service_server::PeerService;
use fiberlb_proto::{agent::v1 as agent, v1};
use tonic::{Code, Request, Response, Status};

use crate::pki::{channel, identity, issue, make_ca, replace_server, settings};
use crate::world::World;

/// Answers with the address that a question came from; knows no node.
struct Echo;

#[tonic::async_trait]
impl PeerService for Echo {
    async fn remove_node(
        &self,
        _: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        Err(Status::not_found("there is no such node"))
    }

    async fn get_counted_traffic(
        &self,
        _: Request<agent::GetCountedTrafficRequest>,
    ) -> Result<Response<agent::GetCountedTrafficResponse>, Status> {
        Err(Status::not_found("there is no such load balancer"))
    }

    type StreamAccessLogStream = tokio_stream::Empty<Result<v1::StreamAccessLogResponse, Status>>;

    async fn stream_access_log(
        &self,
        _: Request<v1::StreamAccessLogRequest>,
    ) -> Result<Response<Self::StreamAccessLogStream>, Status> {
        Err(Status::not_found("there is no such listener"))
    }

    async fn verify_ovn(
        &self,
        request: Request<v1::VerifyOvnRequest>,
    ) -> Result<Response<v1::VerifyOvnResponse>, Status> {
        let peer = request.extensions().get::<Peer>().unwrap();
        let northbound = peer.address.unwrap().to_string();
        Ok(Response::new(v1::VerifyOvnResponse { northbound, ..Default::default() }))
    }
}

fn leader(ca: &Path) -> World {
    World::start_with(&settings(ca), |server| server.answering(Echo))
}

/// The address that a question comes from.
async fn ask(plugins: &Plugins, leader: &PeerAddress) -> Result<SocketAddr, Status> {
    let verify =
        |mut client: PeerServiceClient<_>| async move { client.verify_ovn(v1::VerifyOvnRequest {}).await };
    Ok(plugins.ask(leader, verify).await?.northbound.parse().unwrap())
}

#[tokio::test]
async fn questions_share_a_connection_for_as_long_as_the_leader_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca");
    make_ca(&ca);
    let (first, second) = (leader(&ca), leader(&ca));
    let plugins = Plugins::new(settings(&ca));
    let from = ask(&plugins, &first.address).await.unwrap();
    assert_eq!(ask(&plugins, &first.address).await.unwrap(), from);
    assert_eq!(ask(&plugins.clone(), &first.address).await.unwrap(), from);
    let other = ask(&plugins, &second.address).await.unwrap();
    assert_ne!(other, from);
    assert_eq!(ask(&plugins, &second.address).await.unwrap(), other);
}

#[tokio::test]
async fn what_the_leader_says_passes_and_one_that_is_gone_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca");
    make_ca(&ca);
    let leader = leader(&ca);
    let plugins = Plugins::new(settings(&ca));
    let remove = |mut client: PeerServiceClient<_>| async move {
        client.remove_node(v1::RemoveNodeRequest { id: "n".to_owned() }).await
    };
    let status = plugins.ask(&leader.address, remove).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::NotFound, "there is no such node"));
    leader.stop.send_replace(true);
    leader.server.await.unwrap();
    for _ in 0..2 {
        let status = ask(&plugins, &leader.address).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.message().contains(&leader.address.to_string()), "{status}");
    }
}

#[tokio::test]
async fn a_node_may_not_ask_what_plugins_may() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, node) = (dir.path().join("ca"), dir.path().join("n1"));
    make_ca(&ca);
    issue(&ca, "node-1", &node);
    let leader = leader(&ca);
    let channel = channel(&leader, &ca, Some(identity(&node, "node")));
    let status = PeerServiceClient::new(channel).verify_ovn(v1::VerifyOvnRequest {}).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status}");
}

#[tokio::test]
async fn a_plugin_without_the_right_certificate_says_which_one_it_needs() {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca");
    make_ca(&ca);
    let leader = leader(&ca);
    let plugins = Plugins::new(settings(&ca));
    ask(&plugins, &leader.address).await.unwrap();
    // The files count as they are now, also for a connection that was kept.
    replace_server(&ca, 365);
    let without = Plugins::new(Settings::default());
    for (plugins, words) in [(plugins, "agent-ca server"), (without, "without TLS")] {
        let status = ask(&plugins, &leader.address).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.message().contains(words), "{status}");
    }
}
