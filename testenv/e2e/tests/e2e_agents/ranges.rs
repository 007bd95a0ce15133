//! Ranges of ports: on OVN's path, through proxies behind a row, and on the node that has the VIP.

use std::net::SocketAddr;

use fiberlb_lab::Vm;
use fiberlb_lab::workload::{Requests, Server};
use fiberlb_proto::v1;

use crate::api::online;
use crate::common::until;
use crate::resources::{at, listener, load_balancer};
use crate::scenario::scenario;
use crate::site::{BACKEND_PORT, Site, ask};

const FIRST: u16 = 8000;
const PORTS: u16 = 3;
/// Enough that both servers are met.
const REQUESTS: u64 = 20;

/// Servers of a VM at as many ports as a range has, on both families and over both transports, that say which one they are.
fn serve_range(vm: &Vm) -> Vec<Server> {
    let ports = (BACKEND_PORT..BACKEND_PORT + PORTS)
        .flat_map(|port| [vm.ipv4().unwrap(), vm.ipv6().unwrap()].map(|ip| SocketAddr::new(ip, port)));
    let both = |address: SocketAddr| {
        let name = format!("{}:{}", vm.name(), address.port());
        [Server::tcp(vm, address, &name).unwrap(), Server::udp(vm, address, &name).unwrap()]
    };
    ports.flat_map(both).collect()
}

/// The load balancer on the n-th VIPs with a listener on the range.
fn range(site: &Site, number: u8, edit: impl FnOnce(&mut v1::Listener)) -> v1::LoadBalancerTree {
    let vips = [format!("10.0.0.{number}"), format!("fd00::{number}")];
    let vips = vips.each_ref().map(String::as_str);
    let mut tree = load_balancer(vips[0], site.network, vips, &[1, 2]);
    let mut own = v1::Listener { port_end: (FIRST + PORTS - 1).into(), ..listener(FIRST) };
    edit(&mut own);
    if own.protocol() == v1::ListenerProtocol::Udp {
        tree.pools[0].pool.as_mut().unwrap().protocol = v1::PoolProtocol::Udp.into();
    }
    tree.listeners = vec![own];
    tree
}

#[tokio::test(flavor = "multi_thread")]
async fn each_port_of_a_range_leads_to_its_own_of_each_backend() {
    scenario("each_port_of_a_range_leads_to_its_own_of_each_backend", || async {
        let site = Site::start("ranges").await;
        let [b1, b2, client] = site.vms([("b1", 1, "ch1"), ("b2", 2, "ch2"), ("c1", 11, "ch1")]).await;
        let _servers = [serve_range(&b1), serve_range(&b2)];
        let udp = i32::from(v1::ListenerProtocol::Udp);
        let proxy = i32::from(v1::Datapath::Proxy);
        let trees = [
            (range(&site, 100, |_| {}), false),
            (range(&site, 101, |it| it.protocol = udp), true),
            (range(&site, 102, |it| it.datapath = proxy), false),
            (range(&site, 103, |it| (it.datapath, it.protocol) = (proxy, udp)), true),
            (range(&site, 104, |it| it.exposure = v1::Exposure::Direct.into()), false),
        ];
        for (number, (tree, is_udp)) in (100..).zip(trees) {
            let made = online(&site.tenant, tree).await;
            assert_eq!(made.listeners[0].port_end, u32::from(FIRST + PORTS - 1));
            site.lab.wait_for_sync().await.unwrap();
            for vip in [format!("10.0.0.{number}"), format!("fd00::{number}")] {
                for offset in 0..PORTS {
                    let target = at(&vip, FIRST + offset);
                    let expected = ["b1", "b2"].map(|name| format!("{name}:{}", BACKEND_PORT + offset));
                    until(&format!("{expected:?} at {target}"), async || {
                        let requests = if is_udp {
                            Requests::udp(&client, target)
                        } else {
                            Requests::tcp(&client, target)
                        };
                        let report = requests.run(REQUESTS).await.unwrap();
                        assert!(
                            report.shares.keys().all(|name| expected.contains(name)),
                            "{target}: {report}"
                        );
                        (report.all_answered() && report.shares.len() == 2).then_some(())
                    })
                    .await;
                }
            }
        }
        for number in [100, 102, 104] {
            let beyond = at(&format!("10.0.0.{number}"), FIRST + PORTS);
            let report =
                Requests::tcp(&client, beyond).timeout(fiberlb_lab::workload::LEAST_TIMEOUT).run(1).await;
            assert_eq!(report.unwrap().answered, 0, "{beyond} is beyond the range");
        }
        assert!(ask(&client, at("10.0.0.100", FIRST), 1).await.all_answered());
        site.close();
    })
    .await;
}
