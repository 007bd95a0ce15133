//! Proxy nodes of several plugins: each finds the leader, and every plugin tells of it.

use fiberlb_lab::can_run;
use fiberlb_lab::proxy::ProxyNode;
use fiberlb_lab::replica::Replica;
use fiberlb_proto::v1;
use fiberlb_proto::v1::listener_service_client::ListenerServiceClient;
use fiberlb_proto::v1::node_service_client::NodeServiceClient;
use tonic::{Code, Status};

use crate::common::until;
use crate::site::Site;

/// Longest wait for the end of a stream.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

const NODE: &str = "node0";

/// A node that is told of one plugin alone.
async fn start_node(site: &Site, plugin: usize) -> ProxyNode {
    site.lab.add_chassis("ch0").await.unwrap();
    site.lab.manage_chassis("ch0").await.unwrap();
    let files = site.authority.node_arguments(NODE).unwrap();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let endpoint = Replica::agents_endpoint(site.plugins[plugin].host());
    ProxyNode::start_as(&site.lab, "ch0", NODE, &endpoint, &files).await.unwrap()
}

fn nodes_of(site: &Site, plugin: usize) -> NodeServiceClient<tonic::transport::Channel> {
    NodeServiceClient::new(site.channel(plugin))
}

async fn node(site: &Site, plugin: usize) -> Result<v1::Node, Status> {
    let id = NODE.to_owned();
    Ok(nodes_of(site, plugin).get_node(v1::GetNodeRequest { id }).await?.into_inner())
}

/// Waits until a plugin tells so of the node, alone and in the list.
async fn until_node(site: &Site, plugin: usize, status: v1::NodeStatus) -> v1::Node {
    until(&format!("the node {status:?}, as plugin {plugin} says"), async || {
        let alone = node(site, plugin).await.ok().filter(|node| node.status() == status)?;
        let listed = nodes_of(site, plugin).list_nodes(v1::ListNodesRequest {}).await.ok()?.into_inner();
        (listed.nodes.first()?.status() == status).then_some(alone)
    })
    .await
}

/// Listener of a tree.
async fn listener_of(site: &Site, plugin: usize, load_balancer: &str) -> String {
    let request =
        v1::ListListenersRequest { load_balancer_id: load_balancer.to_owned(), ..Default::default() };
    let mut listeners = ListenerServiceClient::new(site.channel(plugin));
    let listed = listeners.list_listeners(request).await.unwrap().into_inner();
    listed.listeners[0].id.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_finds_the_leader_by_any_plugin_and_every_plugin_tells_of_it() {
    if !can_run("a_node_finds_the_leader_by_any_plugin_and_every_plugin_tells_of_it") {
        return;
    }
    let mut site = Site::start("replicas-nodes").await;
    let leader = site.await_leader().await;
    let follower = (leader + 1) % 3;
    let mut agent = start_node(&site, follower).await;
    for plugin in 0..3 {
        let node = until_node(&site, plugin, v1::NodeStatus::Alive).await;
        assert_eq!((node.reason.as_str(), node.chassis.as_str()), ("", "ch0"));
        let words = [
            "access-log",
            "allowed-cidrs",
            "backend-limits",
            "bandwidth",
            "client-limits",
            "drain-timeout",
            "half-close",
            "passive-health",
            "port-ranges",
            "proxy-protocol",
            "random",
            "slow-start",
            "tcp",
            "udp",
            "weighted-pools",
        ];
        assert_eq!(node.capabilities, words);
    }
    // What an operator wants is shown by the plugin that was told, and soon by the others.
    let cordon = v1::CordonNodeRequest { id: NODE.to_owned() };
    let cordoned = nodes_of(&site, follower).cordon_node(cordon).await.unwrap().into_inner();
    assert!(cordoned.cordoned && cordoned.status() == v1::NodeStatus::Alive, "{cordoned:?}");

    // An access log is read through any plugin, for as long as the same one leads.
    let mut tree = site.tree("logged", "10.0.5.1");
    tree.listeners[0].datapath = v1::Datapath::Proxy.into();
    let tree = site.apply(follower, tree).await.unwrap();
    let listener = listener_of(&site, follower, &tree).await;
    let mut logs = Vec::new();
    for plugin in [follower, (leader + 2) % 3] {
        let mut listeners = ListenerServiceClient::new(site.channel(plugin));
        let request = v1::StreamAccessLogRequest { id: listener.clone() };
        logs.push(listeners.stream_access_log(request).await.unwrap().into_inner());
    }

    // The node comes back to whichever plugin leads then, by the one that it knows.
    site.plugins[leader].process_mut().kill().unwrap();
    let new = until("another leader", async || site.leader().await.filter(|new| *new != leader)).await;
    for log in &mut logs {
        let ended = tokio::time::timeout(PATIENCE, log.message()).await.expect("the log ends").unwrap_err();
        assert_eq!(ended.code(), Code::Unavailable, "{ended:?}");
    }
    site.plugins[leader].process_mut().start_again().await.unwrap();
    site.plugins[leader].ready().await.unwrap();
    for plugin in 0..3 {
        let node = until_node(&site, plugin, v1::NodeStatus::Alive).await;
        assert!(node.cordoned, "{node:?}");
    }

    agent.process_mut().kill().unwrap();
    for plugin in 0..3 {
        let node = until_node(&site, plugin, v1::NodeStatus::Dead).await;
        assert!(node.reason.contains("is fiberlb-proxy running there"), "{node:?}");
    }
    // Only the leader can do that, whichever plugin is asked.
    let remove = v1::RemoveNodeRequest { id: NODE.to_owned() };
    nodes_of(&site, (new + 1) % 3).remove_node(remove).await.unwrap();
    for plugin in 0..3 {
        until("nothing of the node", async || {
            let refused = node(&site, plugin).await.err()?;
            let listed = nodes_of(&site, plugin).list_nodes(v1::ListNodesRequest {}).await.ok()?.into_inner();
            (refused.code() == Code::NotFound && listed.nodes.is_empty()).then_some(())
        })
        .await;
    }
    until("no state of the node in the store", async || {
        let keys = site.etcd.ctl(&["get", "/fiberlb/nodestatus/", "--prefix", "--keys-only"]).await.ok()?;
        keys.trim().is_empty().then_some(())
    })
    .await;
}
