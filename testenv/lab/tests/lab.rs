//! The lab itself: that it is real OVN, that labs do not see each other, and that nothing is left of one.

#[cfg(test)]
mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use fiberlb_lab::workload::{Requests, Server};
use fiberlb_lab::{Central, Lab, LabError, LspAddresses, Stop, VmSpec, can_run, find_labs};

use support::leftovers::{Host, Trace, spawn_holder};
use support::{add_load_balancer, ask, two_chassis, v4, v6, vm};

#[tokio::test]
async fn vms_on_two_chassis_talk_over_both_families() {
    if !can_run("vms_on_two_chassis_talk_over_both_families") {
        return;
    }
    let lab = two_chassis("families").await;
    let vms = lab.add_vms(vec![vm(1, "ch1"), vm(2, "ch2")]).await.unwrap();
    for address in [v4(&vms[1]), v6(&vms[1])] {
        let _tcp = Server::tcp(&vms[1], address, "vm2").unwrap();
        let _udp = Server::udp(&vms[1], address, "vm2-udp").unwrap();
        let report = ask(&vms[0], address, 20).await;
        assert!(report.all_answered() && report.share("vm2") == 20, "{report}");
        let client = if address.is_ipv4() { vms[0].ipv4() } else { vms[0].ipv6() };
        assert_eq!(report.clients, BTreeSet::from([client.unwrap()]));
        let report = Requests::udp(&vms[0], address).run(5).await.unwrap();
        assert!(report.all_answered() && report.share("vm2-udp") == 5, "{report}");
    }
    lab.close().unwrap();
}

#[tokio::test]
async fn labs_with_the_same_name_and_addresses_do_not_see_each_other() {
    if !can_run("labs_with_the_same_name_and_addresses_do_not_see_each_other") {
        return;
    }
    let (one, two) = tokio::join!(two_chassis("twin"), two_chassis("twin"));
    let mut servers = Vec::new();
    let mut clients = Vec::new();
    for (lab, name) in [(&one, "one"), (&two, "two")] {
        let mut vms = lab.add_vms(vec![vm(1, "ch1"), vm(2, "ch2")]).await.unwrap();
        let server = vms.pop().unwrap();
        servers.push(Server::tcp(&server, v4(&server), name).unwrap());
        clients.push(vms.pop().unwrap());
    }
    let target = servers[0].address();
    for (client, name) in clients.iter().zip(["one", "two"]) {
        let report = ask(client, target, 10).await;
        assert!(report.all_answered() && report.share(name) == 10, "{name}: {report}");
    }
    drop(one);
    let report = ask(&clients[1], target, 10).await;
    assert!(report.all_answered(), "after the other lab's end: {report}");
    two.close().unwrap();
}

#[tokio::test]
async fn a_load_balancer_made_by_hand_balances_over_three_backends() {
    if !can_run("a_load_balancer_made_by_hand_balances_over_three_backends") {
        return;
    }
    let lab = two_chassis("balance").await;
    let specs = vec![vm(1, "ch1"), vm(2, "ch1"), vm(3, "ch2"), vm(9, "ch2")];
    let mut vms = lab.add_vms(specs).await.unwrap();
    let client = vms.pop().unwrap();
    let vips = ["10.0.0.100:80", "[fd00::100]:80"];
    add_load_balancer(&lab, vips, &vms).await;
    let mut servers = Vec::new();
    for vm in &vms {
        servers.push(Server::tcp(vm, v4(vm), vm.name()).unwrap());
        servers.push(Server::tcp(vm, v6(vm), vm.name()).unwrap());
    }
    for vip in vips {
        let report = ask(&client, vip.parse().unwrap(), 100).await;
        assert_eq!(report.answered, 100, "{vip}: {report}");
        assert_eq!(report.shares.len(), 3, "{vip}: {report}");
    }
    lab.close().unwrap();
}

#[tokio::test]
async fn the_northbound_database_keeps_its_data() {
    if !can_run("the_northbound_database_keeps_its_data") {
        return;
    }
    let lab = Lab::start("keeps").await.unwrap();
    for (number, how) in [Stop::Graceful, Stop::Kill].into_iter().enumerate() {
        lab.add_switch(&format!("sw{number}"), &[]).await.unwrap();
        lab.stop(Central::Northbound, how).await.unwrap();
        assert!(lab.nbctl(&["--timeout=1", "ls-list"]).await.is_err(), "it answers though stopped");
        assert!(lab.stop(Central::Northbound, how).await.is_err(), "stopped twice");
        lab.restart(Central::Northbound).await.unwrap();
        let listed = lab.nbctl(&["ls-list"]).await.unwrap();
        assert!(listed.contains(&format!("sw{number}")), "{how:?}: {listed}");
    }
    lab.pause(Central::Northbound).await.unwrap();
    assert!(lab.nbctl(&["--timeout=1", "ls-list"]).await.is_err(), "it answers though paused");
    lab.resume(Central::Northbound).await.unwrap();
    lab.nbctl(&["--wait=sb", "sync"]).await.unwrap();
    lab.close().unwrap();
}

#[tokio::test]
async fn ovn_may_choose_addresses_and_routers_route() {
    if !can_run("ovn_may_choose_addresses_and_routers_route") {
        return;
    }
    let lab = Lab::start("routed").await.unwrap();
    lab.add_chassis("ch1").await.unwrap();
    lab.add_switch("sw0", &[("subnet", "10.0.0.0/24"), ("exclude_ips", "10.0.0.1..10.0.0.9")]).await.unwrap();
    lab.add_switch("sw1", &[]).await.unwrap();
    lab.add_router("lr0").await.unwrap();
    lab.attach_router("lr0", "sw0", &["10.0.0.1/24", "fd00::1/64"]).await.unwrap();
    lab.attach_router("lr0", "sw1", &["10.1.0.1/24"]).await.unwrap();
    let dynamic = VmSpec::new("dyn", "ch1", "sw0").lsp_addresses(LspAddresses::Dynamic);
    let other =
        VmSpec::new("other", "ch1", "sw1").address("10.1.0.5/24").lsp_addresses(LspAddresses::Unknown);
    let gateways = ["10.0.0.1", "10.1.0.1"].map(|gateway| gateway.parse().unwrap());
    let specs = vec![dynamic.gateway(gateways[0]), other.gateway(gateways[1])];
    let vms = lab.add_vms(specs).await.unwrap();
    assert_eq!(vms[0].ipv4().unwrap().to_string(), "10.0.0.10");
    let server = Server::tcp(&vms[1], v4(&vms[1]), "other").unwrap();
    let report = ask(&vms[0], server.address(), 10).await;
    assert!(report.all_answered(), "{report}");
    lab.close().unwrap();
}

#[tokio::test]
async fn traffic_returns_after_vswitchd_aborted() {
    if !can_run("traffic_returns_after_vswitchd_aborted") {
        return;
    }
    let lab = two_chassis("abort").await;
    let vms = lab.add_vms(vec![vm(1, "ch1"), vm(2, "ch2")]).await.unwrap();
    let server = Server::tcp(&vms[1], v4(&vms[1]), "vm2").unwrap();
    assert!(ask(&vms[0], server.address(), 1).await.all_answered());
    lab.abort_vswitchd("ch2").await.unwrap();
    let patient = Requests::tcp(&vms[0], server.address()).timeout(Duration::from_secs(20));
    let report = patient.run(3).await.unwrap();
    assert!(report.all_answered(), "{report}");
}

#[tokio::test]
async fn a_specification_that_cannot_be_is_refused() {
    if !can_run("a_specification_that_cannot_be_is_refused") {
        return;
    }
    let lab = Lab::start("refused").await.unwrap();
    let bad = [
        vm(1, "../ch1"),
        vm(1, "ch1").address("10.0.0.x/24"),
        vm(1, "ch1").lsp_addresses(LspAddresses::Dynamic),
    ];
    for spec in bad {
        let error = lab.add_vm(spec).await.unwrap_err();
        assert!(matches!(error, LabError::Invalid { .. }), "{error}");
    }
    assert!(Lab::start("../lab").await.is_err());
}

#[tokio::test]
async fn nothing_is_left_when_the_holder_is_killed() {
    if !can_run("nothing_is_left_when_the_holder_is_killed") {
        return;
    }
    let name = format!("killed-{}", std::process::id());
    let before = Host::now();
    let mut holder = spawn_holder(&name);
    assert_eq!(Host::now(), before, "a running lab shows on the host");
    let found = find_labs().into_iter().find(|lab| lab.world.name() == name).expect("the lab is listed");
    assert_eq!((found.owner, found.owner_alive), (holder.id(), true));
    let trace = Trace::of(found.world.init(), &found.world.path(""));
    assert!(trace.processes().len() > 10, "the lab's processes are not found");

    // SIGKILL: the holder gets no chance to clean up.
    holder.kill().unwrap();
    holder.wait().unwrap();

    let gone = async {
        while !trace.processes().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let left = tokio::time::timeout(Duration::from_secs(20), gone).await;
    assert!(left.is_ok(), "still there: {:?}", trace.processes());
    assert!(find_labs().iter().all(|lab| lab.world.name() != name), "the lab is still listed");
    assert_eq!(Host::now(), before);
}
