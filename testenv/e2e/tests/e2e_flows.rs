//! Flows of UDP: a client that goes on sending from one port reaches what is stored now, not what was stored when it began.

#![cfg(test)] // for clippy: helpers of tests are tests too

mod common;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use fiberlb_lab::workload::{Answer, Server};
use fiberlb_lab::{Lab, Vm, VmSpec, can_run};
use fiberlb_proto::v1;
use uuid::Uuid;

use common::{Tenant, add_network, tree, until};

const CHASSIS: [&str; 2] = ["ch1", "ch2"];
const VIPS: [&str; 2] = ["10.0.0.100", "fd00::100"];
/// Time for an answer, after which the next datagram is sent.
const ANSWER: Duration = Duration::from_millis(250);

/// A client with one port.
struct Flow {
    socket: UdpSocket,
    vip: &'static str,
}

impl Flow {
    fn new(vm: &Vm, vip: &'static str) -> Self {
        let target = SocketAddr::new(vip.parse().unwrap(), 53);
        let own = if target.is_ipv4() { vm.ipv4() } else { vm.ipv6() }.unwrap();
        let socket = vm.udp_socket(SocketAddr::new(own, 0)).unwrap();
        socket.connect(target).unwrap();
        socket.set_read_timeout(Some(ANSWER)).unwrap();
        Self { socket, vip }
    }

    /// Name of the server that answers a datagram.
    fn ask(&self) -> io::Result<String> {
        self.socket.send(b"?")?;
        let mut buffer = [0; 1024];
        let size = self.socket.recv(&mut buffer)?;
        let answer: Answer = String::from_utf8_lossy(&buffer[..size]).parse().unwrap();
        Ok(answer.server)
    }

    /// Sends until it is answered by this server.
    async fn reaches(&self, server: &str) {
        let vip = self.vip;
        until(&format!("{vip} answered by {server}"), async || {
            (tokio::task::block_in_place(|| self.ask()).ok()? == server).then_some(())
        })
        .await;
    }

    /// Sends until it is refused, as by a port on which nobody listens.
    async fn is_refused(&self) {
        until(&format!("{} refused", self.vip), async || {
            let error = tokio::task::block_in_place(|| self.ask()).err()?;
            (error.kind() == io::ErrorKind::ConnectionRefused).then_some(())
        })
        .await;
    }
}

/// UDP port 53 on one backend of both families.
fn wanted(network: Uuid, backend: &Vm) -> v1::LoadBalancerTree {
    let addresses = [backend.ipv4().unwrap(), backend.ipv6().unwrap()];
    let backends = addresses.map(|ip| SocketAddr::new(ip, 8080).to_string());
    let mut tree = tree("dns", network, VIPS[0], &backends.each_ref().map(String::as_str));
    let vip = v1::AdditionalVip { address: VIPS[1].to_owned(), ..Default::default() };
    tree.load_balancer.as_mut().unwrap().additional_vips.push(vip);
    (tree.listeners[0].port, tree.listeners[0].protocol) = (53, v1::ListenerProtocol::Udp.into());
    tree.pools[0].pool.as_mut().unwrap().protocol = v1::PoolProtocol::Udp.into();
    tree
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_of_udp_follows_what_is_stored() {
    if !can_run("a_flow_of_udp_follows_what_is_stored") {
        return;
    }
    let lab = Lab::start("udp-flows").await.unwrap();
    lab.add_all_chassis(&CHASSIS).await.unwrap();
    let network = add_network(&lab, "sw0", &[]).await;
    let vm = |name: &str, number: u8, chassis: &str| {
        let (v4, v6) = (format!("10.0.0.{number}/24"), format!("fd00::{number}/64"));
        VmSpec::new(name, chassis, "sw0").address(&v4).address(&v6)
    };
    let specs = vec![vm("b1", 1, "ch1"), vm("b2", 2, "ch2"), vm("c1", 11, "ch1"), vm("c2", 12, "ch2")];
    let vms = lab.add_vms(specs).await.unwrap();
    let [b1, b2, clients @ ..] = vms.as_slice() else { panic!("four VMs") };
    let serve = |vm: &Vm, ip| Server::udp(vm, SocketAddr::new(ip, 8080), vm.name()).unwrap();
    let _servers: Vec<Server> =
        [b1, b2].iter().flat_map(|vm| [vm.ipv4(), vm.ipv6()].map(|ip| serve(vm, ip.unwrap()))).collect();
    let tenant = Tenant::start(&lab).await;
    let stored = tenant.apply(wanted(network, b1)).await;
    let flows: Vec<Flow> = clients.iter().flat_map(|vm| VIPS.map(|vip| Flow::new(vm, vip))).collect();
    for flow in &flows {
        flow.reaches("b1").await;
    }

    // Nothing is sent while a change is on its way: a datagram that a chassis handles at that very moment may tie its flow to what
    // was before (docs/ovn.md).
    let change = async |tree| {
        tenant.apply(tree).await;
        lab.wait_for_datapaths(&CHASSIS).await.unwrap();
    };

    // Another backend in place of the first one, which is still alive.
    change(wanted(network, b2)).await;
    for flow in &flows {
        flow.reaches("b2").await;
    }

    // A listener that is switched off, and on again.
    for is_on in [false, true] {
        let mut tree = wanted(network, b2);
        tree.listeners[0].admin_state_up = Some(is_on);
        change(tree).await;
        for flow in &flows {
            if is_on { flow.reaches("b2").await } else { flow.is_refused().await }
        }
    }

    // The VIP becomes another load balancer's.
    let id = stored.load_balancer.unwrap().id;
    let request = v1::DeleteLoadBalancerRequest { id: id.clone(), cascade: true, ..Default::default() };
    tenant.client.clone().delete_load_balancer(request).await.unwrap();
    until("the deletion", async || {
        let request = v1::GetLoadBalancerRequest { id: id.clone() };
        tenant.client.clone().get_load_balancer(request).await.err()
    })
    .await;
    let mut other = wanted(network, b1);
    other.load_balancer.as_mut().unwrap().name = "other".to_owned();
    change(other).await;
    for flow in &flows {
        flow.reaches("b1").await;
    }
    // Each of the steps is one at least.
    assert!(tenant.plugin.northbound_transactions().await.unwrap() >= 5.0);
    lab.close().unwrap();
}
