//! The rows of earlier layouts, which are replaced without a failed connection.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use fiberlb_lab::workload::{Requests, Running};
use fiberlb_lab::{Vm, can_run};

use crate::common::until;
use crate::rows::rows;
use crate::{Cloud, VIPS, has_answer_rows};

/// First one to come on a network in an earlier layout: it decided for good who answers for the VIPs.
#[derive(Clone, Copy, Debug, PartialEq)]
enum CameFirst {
    /// A VIP: the responder answers, by addresses of its port.
    Vip,
    /// A router: the routers answer, each with a MAC of its own.
    Router,
}

impl Cloud {
    /// Writes the rows of all load balancers as the releases before answer rows did, while no plugin runs: without options of later
    /// releases, the group on all routers, and the responder only where the network's first VIP came before its routers.
    async fn write_earlier_layout(&self, came_first: CameFirst) {
        let nbctl = async |arguments: &[&str]| self.lab.nbctl(arguments).await.unwrap();
        let routers = rows(&self.lab, "Logical_Router").await;
        let name_of = |row: &serde_json::Value| row["name"].as_str().unwrap().to_owned();
        let responder = routers.values().map(name_of).find(|name| name.starts_with("fiberlb-")).unwrap();
        for (group, row) in rows(&self.lab, "Load_Balancer_Group").await {
            if name_of(&row).ends_with("#answers") {
                nbctl(&["remove", "Logical_Router", &responder, "load_balancer_group", &group]).await;
                nbctl(&["destroy", "Load_Balancer_Group", &group]).await;
            } else {
                let routers =
                    ["r0", "r2"].into_iter().chain((came_first == CameFirst::Vip).then_some(&*responder));
                for router in routers {
                    nbctl(&["add", "Logical_Router", router, "load_balancer_group", &group]).await;
                }
            }
        }
        let mut owner = String::new();
        for (balancer, row) in rows(&self.lab, "Load_Balancer").await {
            owner = row["external_ids"]["fiberlb:owner"].as_str().unwrap().to_owned();
            if row["protocol"].as_str().is_some_and(|protocol| !protocol.is_empty()) {
                nbctl(&["set", "Load_Balancer", &balancer, "options={reject=\"true\"}"]).await;
            } else {
                nbctl(&["destroy", "Load_Balancer", &balancer]).await;
            }
        }
        for (port, row) in rows(&self.lab, "Logical_Switch_Port").await {
            let name = name_of(&row);
            if name.starts_with("fiberlb-vip-") {
                let owner = format!("external_ids=\"fiberlb:owner\"=\"{owner}\"");
                nbctl(&["set", "Logical_Switch_Port", &port, "type=external", "options={}", &owner]).await;
            }
            if name.starts_with("fiberlb-responder-") && came_first == CameFirst::Router {
                nbctl(&["lsp-del", &port]).await;
            }
        }
        if came_first == CameFirst::Router {
            nbctl(&["lr-del", &responder]).await;
            return;
        }
        for (port, row) in rows(&self.lab, "Logical_Router_Port").await {
            if name_of(&row).starts_with("fiberlb-") {
                let vips = [format!("{}/32", VIPS[0]), format!("\"{}/128\"", VIPS[1])];
                nbctl(&["add", "Logical_Router_Port", &port, "networks", &vips[0], &vips[1]]).await;
            }
        }
    }

    /// Answers of the responder: number of answer rows, and VIPs among its addresses. And the types of the ports that reserve VIPs.
    async fn answers(&self) -> (usize, usize, BTreeSet<String>) {
        let balancers = rows(&self.lab, "Load_Balancer").await;
        let is_answer = |row: &&serde_json::Value| row["vips"].get(VIPS[0]).is_some();
        let ports = rows(&self.lab, "Logical_Router_Port").await;
        let networks = ports.values().flat_map(|row| row["networks"].as_array().into_iter().flatten());
        let hosts = networks.filter(|network| {
            network.as_str().is_some_and(|network| network.ends_with("/32") || network.ends_with("/128"))
        });
        let ports = rows(&self.lab, "Logical_Switch_Port").await;
        let reserving =
            ports.values().filter(|row| row["name"].as_str().unwrap().starts_with("fiberlb-vip-"));
        let types = reserving.map(|row| row["type"].as_str().unwrap().to_owned());
        (balancers.values().filter(is_answer).count(), hosts.count(), types.collect())
    }

    /// Has the clients on `sw0` and outside look for their neighbours anew.
    async fn forget_neighbours(&self) {
        for client in [0, 3] {
            // Not those that are being looked for: that would fail the connection that waits for it.
            let flush = "neigh flush all nud reachable nud stale nud delay nud probe";
            let flush: Vec<&str> = flush.split(' ').collect();
            self.clients[client].exec("ip", &flush).await.unwrap();
        }
    }

    /// Traffic from clients on `sw0`, behind the routers and outside to a backend, by both families and protocols.
    fn traffic(&self) -> Vec<(String, Running)> {
        let mut all = Vec::new();
        for client in &self.clients {
            for vip in VIPS {
                let target = SocketAddr::new(vip.parse().unwrap(), 1000);
                for (protocol, requests) in
                    [("TCP", Requests::tcp as fn(&Vm, SocketAddr) -> Requests), ("UDP", Requests::udp)]
                {
                    let running = requests(client, target).pause(Duration::from_millis(20)).start().unwrap();
                    all.push((format!("{} by {protocol} to {vip}", client.name()), running));
                }
            }
        }
        all
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_the_earlier_layouts_are_replaced_without_a_failed_connection() {
    if !can_run("rows_of_the_earlier_layouts_are_replaced_without_a_failed_connection") {
        return;
    }
    let mut cloud = Cloud::start("layout").await;
    cloud.create().await;
    for router in ["r0", "r2"] {
        cloud.lab.add_router(router).await.unwrap();
    }
    for (router, switch, host) in
        [("r0", 0, 254), ("r0", 1, 254), ("r0", 3, 254), ("r2", 0, 253), ("r2", 2, 254)]
    {
        cloud.attach(router, switch, host).await;
    }
    cloud.route("r0", 2, 253).await;
    cloud.lab.nbctl(&["lrp-set-gateway-chassis", "r0-sw3", "ch1", "20"]).await.unwrap();
    let (rows, addresses, kind) = if has_answer_rows() { (1, 0, "") } else { (0, 2, "virtual") };
    let expected = (rows, addresses, BTreeSet::from([kind.to_owned()]));
    assert_eq!(cloud.answers().await, expected);
    cloud.serves("this release's layout", &[0], &[0]).await;
    let macs = cloud.macs().await;

    for came_first in [CameFirst::Vip, CameFirst::Router, CameFirst::Vip, CameFirst::Router] {
        cloud.tenant.plugin.kill().unwrap();
        cloud.write_earlier_layout(came_first).await;
        let addresses = if came_first == CameFirst::Vip { 2 } else { 0 };
        assert_eq!(cloud.answers().await, (0, addresses, BTreeSet::from(["external".to_owned()])));
        cloud.lab.wait_for_sync().await.unwrap();
        cloud.forget_neighbours().await;
        let phase = format!("{came_first:?} first");
        cloud.serves(&phase, &[0, 1, 2, 3], &[0]).await;
        assert_eq!(cloud.macs().await == macs, came_first == CameFirst::Vip, "{phase}");
        let traffic = cloud.traffic();
        cloud.tenant.plugin.start_again().await.unwrap();
        until("the layout of this release", async || (cloud.answers().await == expected).then_some(())).await;
        // Neighbours are looked for while and after it changes.
        for _ in 0..10 {
            cloud.forget_neighbours().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        cloud.lab.wait_for_sync().await.unwrap();
        for (what, running) in traffic {
            let report = running.stop().await;
            assert!(report.all_answered(), "{phase}, {what}: {report}");
        }
        cloud.forget_neighbours().await;
        cloud.serves(&format!("after {phase}"), &[0], &[0]).await;
        assert_eq!(cloud.macs().await, macs);
    }
    cloud.lab.close().unwrap();
}
