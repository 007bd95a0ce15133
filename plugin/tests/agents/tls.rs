//! Streams over TCP with certificates that the CA's own command made.

use fiberlb_plugin::agents::Listen;
use fiberlb_proto::agent::v1;
use tokio::net::TcpStream;
use tonic::Code;
use tonic::transport::Endpoint;
use v1::agent_service_client::AgentServiceClient;
use v1::node_message::Message as FromNode;

use crate::pki::{channel, identity, issue, make_ca, world};
use crate::world::{Heard, Node, hello};

#[tokio::test]
async fn the_right_certificate_works_and_is_for_one_node_alone() {
    let temporary = tempfile::tempdir().unwrap();
    let (ca, node_dir) = (temporary.path().join("ca"), temporary.path().join("n1"));
    make_ca(&ca);
    issue(&ca, "node-1", &node_dir);
    let mut world = world(&ca);
    let connect = || channel(&world, &ca, Some(identity(&node_dir, "node")));

    let node = Node::open(connect(), "node-1", "a").await.unwrap();
    let status = Node::open(connect(), "node-2", "a").await.err().unwrap();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert!(status.message().contains("node-2") && status.message().contains("node-1"), "{status}");
    assert!(matches!(world.heard().await, Heard::Joined(hello) if hello.node_id == "node-1"));
    world.heard_nothing_else();
    drop(node);
}

#[tokio::test]
async fn no_other_certificate_and_no_certificate_will_do() {
    let temporary = tempfile::tempdir().unwrap();
    let [ca, other, node_dir] = ["ca", "other", "n1"].map(|name| temporary.path().join(name));
    make_ca(&ca);
    make_ca(&other);
    issue(&other, "node-1", &node_dir);
    let mut world = world(&ca);
    let strangers = [
        ("none", None),
        ("another CA's", Some(identity(&node_dir, "node"))),
        ("the plugin's own, which is for no node", Some(identity(&ca, "server"))),
    ];
    for (what, shown) in strangers {
        let refused = Node::open(channel(&world, &ca, shown), "node-1", "a").await;
        assert!(refused.is_err(), "{what} was accepted");
    }
    let right = temporary.path().join("right");
    issue(&ca, "node-1", &right);
    let wary = Node::open(channel(&world, &other, Some(identity(&right, "node"))), "node-1", "a").await;
    assert!(wary.is_err(), "a node does not talk to a server of another CA");
    world.heard_nothing_else();
    assert!(Node::open(channel(&world, &ca, Some(identity(&right, "node"))), "node-1", "a").await.is_ok());
    assert!(matches!(world.heard().await, Heard::Joined(_)));
}

#[tokio::test]
async fn who_does_not_speak_tls_reaches_nothing_and_holds_up_nobody() {
    let temporary = tempfile::tempdir().unwrap();
    let (ca, node_dir) = (temporary.path().join("ca"), temporary.path().join("n1"));
    make_ca(&ca);
    issue(&ca, "node-1", &node_dir);
    let mut world = world(&ca);
    let Listen::Tcp(address) = world.listen else { panic!("{} is not TCP", world.listen) };
    let _mute = TcpStream::connect(address).await.unwrap();
    let plain = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    let first = v1::NodeMessage { epoch: 0, message: Some(FromNode::Hello(hello("node-1", "a"))) };
    assert!(AgentServiceClient::new(plain).session(tokio_stream::once(first)).await.is_err());
    world.heard_nothing_else();
    assert!(Node::open(channel(&world, &ca, Some(identity(&node_dir, "node"))), "node-1", "a").await.is_ok());
    assert!(matches!(world.heard().await, Heard::Joined(_)));
}
