//! Helpers of the lab's tests: two chassis, addresses, a load balancer made by hand.

pub(crate) mod leftovers;

use std::net::SocketAddr;

use fiberlb_lab::workload::{Report, Requests};
use fiberlb_lab::{Lab, Vm, VmSpec};

const PORT: u16 = 80;

/// A VM with both families, `10.0.0.N` and `fd00::N`.
pub(crate) fn vm(number: u8, chassis: &str) -> VmSpec {
    VmSpec::new(&format!("vm{number}"), chassis, "sw0")
        .address(&format!("10.0.0.{number}/24"))
        .address(&format!("fd00::{number}/64"))
}

pub(crate) async fn two_chassis(name: &str) -> Lab {
    let lab = Lab::start(name).await.unwrap();
    lab.add_all_chassis(&["ch1", "ch2"]).await.unwrap();
    lab.add_switch("sw0", &[]).await.unwrap();
    lab
}

pub(crate) fn v4(vm: &Vm) -> SocketAddr {
    SocketAddr::new(vm.ipv4().unwrap(), PORT)
}

pub(crate) fn v6(vm: &Vm) -> SocketAddr {
    SocketAddr::new(vm.ipv6().unwrap(), PORT)
}

pub(crate) async fn ask(client: &Vm, target: SocketAddr, count: u64) -> Report {
    Requests::tcp(client, target).run(count).await.unwrap()
}

/// The responder router: answers ARP and neighbour discovery for the VIPs and takes no address of the tenant.
pub(crate) async fn add_load_balancer(lab: &Lab, vips: [&str; 2], backends: &[Vm]) {
    lab.nbctl(&["lr-add", "resp"]).await.unwrap();
    let port = ["lrp-add", "resp", "resp-sw0", "02:fe:00:00:00:77", "169.254.77.1/0", "fe80::77/0"];
    lab.nbctl(&[&port[..], &["10.0.0.100/32", "fd00::100/128"]].concat()).await.unwrap();
    let plug = ["lsp-add", "sw0", "sw0-resp", "--", "lsp-set-type", "sw0-resp", "router"];
    let options = ["--", "lsp-set-addresses", "sw0-resp", "router", "--"];
    let peer = ["lsp-set-options", "sw0-resp", "router-port=resp-sw0"];
    lab.nbctl(&[&plug[..], &options[..], &peer[..]].concat()).await.unwrap();
    for (vip, address) in vips.into_iter().zip([v4 as fn(&Vm) -> SocketAddr, v6]) {
        let list: Vec<String> = backends.iter().map(|vm| address(vm).to_string()).collect();
        lab.nbctl(&["--may-exist", "lb-add", "lb", vip, &list.join(",")]).await.unwrap();
    }
    lab.nbctl(&["ls-lb-add", "sw0", "lb", "--", "lr-lb-add", "resp", "lb"]).await.unwrap();
    lab.wait_for_sync().await.unwrap();
}
