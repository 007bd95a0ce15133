//! Node agents over TCP: who has no certificate of the installation's CA, or one of another node, is refused.

use std::path::Path;
use std::process::Command;

use fiberlb_lab::plugin::{self, Plugin};
use fiberlb_lab::proxy::ProxyNode;
use fiberlb_proto::v1;
use tempfile::TempDir;

use crate::common::{Tenant, until};
use crate::relay::Relay;
use crate::scenario::scenario;
use crate::site::Site;

/// Runs `fiberlb-plugin agent-ca`.
fn agent_ca(dir: &Path, line: &str) {
    let mut command = Command::new(Plugin::binary().unwrap());
    let made = command.arg("agent-ca").args(line.split_whitespace()).current_dir(dir).output().unwrap();
    assert!(made.status.success(), "{line}: {}", String::from_utf8_lossy(&made.stderr));
}

/// Two CAs, with certificates of node-ch1 from both.
fn certificates() -> TempDir {
    let dir = TempDir::new().unwrap();
    agent_ca(dir.path(), "init ours --name 127.0.0.1");
    agent_ca(dir.path(), "init theirs --name 127.0.0.1");
    agent_ca(dir.path(), "issue --ca ours node-ch1 good");
    agent_ca(dir.path(), "issue --ca theirs node-ch1 foreign");
    dir
}

/// Starts an agent where a relay begins with the certificate in a folder, that trusts the CA in another.
async fn agent(site: &Site, dir: &Path, id: &str, certificate: &str, ca: &str, relay: &Relay) -> ProxyNode {
    let file = |folder: &str, name: &str| dir.join(folder).join(name).display().to_string();
    let (ca, pem, key) = (file(ca, "ca.pem"), file(certificate, "node.pem"), file(certificate, "node.key"));
    let more = ["--tls-ca", &ca, "--tls-certificate", &pem, "--tls-key", &key];
    let plugin = format!("https://{}", relay.address());
    ProxyNode::start_as(&site.lab, relay.chassis(), id, &plugin, &more).await.unwrap()
}

/// Waits until the agent's log says that it is refused, and why.
async fn is_refused(site: &Site, node: &ProxyNode, why: &[&str]) {
    let log = site.lab.world().path(&format!("/run/log/proxy.{}.log", node.id()));
    until(&format!("{why:?} in the log of {}", node.id()), async || {
        let text = std::fs::read_to_string(&log).unwrap_or_default().to_lowercase();
        why.iter().any(|why| text.contains(why)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_node_of_a_certificate_of_ours_is_let_in() {
    scenario("only_the_node_of_a_certificate_of_ours_is_let_in", || async {
        let dir = certificates();
        let mut site = Site::without_nodes("tls").await;
        let listen = plugin::free_address().unwrap();
        let file = |name: &str| dir.path().join("ours").join(name).display().to_string();
        let (certificate, key, ca) = (file("server.pem"), file("server.key"), file("ca.pem"));
        let (where_to, tls) = (format!("tcp:{listen}"), "--agents-tls-certificate");
        let flags = [
            ["--agents-listen", &where_to],
            [tls, &certificate],
            ["--agents-tls-key", &key],
            ["--agents-client-ca", &ca],
        ];
        site.tenant = Tenant::start_with(&site.lab, flags.as_flattened()).await;
        let relay = Relay::open(&site.lab, "ch1", listen);

        // A certificate of another CA; a node that claims to be another than its certificate says; a plugin of another CA.
        let foreign = agent(&site, dir.path(), "node-ch1", "foreign", "ours", &relay).await;
        is_refused(&site, &foreign, &["certificate", "unknownca", "unknown ca"]).await;
        drop(foreign);
        let impostor = agent(&site, dir.path(), "node-ch2", "good", "ours", &relay).await;
        is_refused(&site, &impostor, &["certificate"]).await;
        drop(impostor);
        let misled = agent(&site, dir.path(), "misled", "good", "theirs", &relay).await;
        is_refused(&site, &misled, &["certificate", "unknownissuer"]).await;
        drop(misled);
        assert_eq!(site.operator().nodes().await.unwrap(), Vec::new(), "somebody was let in");

        let good = agent(&site, dir.path(), "node-ch1", "good", "ours", &relay).await;
        until("the good one is let in", async || {
            let status = site.operator().node_status("node-ch1").await?;
            (status == v1::NodeStatus::Alive).then_some(())
        })
        .await;
        // It stays, whoever else comes with its name and a certificate for it.
        let elsewhere = Relay::open(&site.lab, "ch2", listen);
        let second = agent(&site, dir.path(), "node-ch1", "good", "ours", &elsewhere).await;
        is_refused(&site, &second, &["another node"]).await;
        let nodes = site.operator().nodes().await.unwrap();
        assert_eq!(
            (nodes.len(), nodes[0].status(), nodes[0].chassis.as_str()),
            (1, v1::NodeStatus::Alive, "ch1")
        );
        drop((second, good));
        site.close();
    })
    .await;
}
