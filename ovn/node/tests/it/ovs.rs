//! The Open_vSwitch replica and plan on a real ovsdb-server, and links plugged into a real ovs-vswitchd.

use std::net::IpAddr;

use fiberlb_node::netlink::{Netlink, SourceSelection, VethEnd};
use fiberlb_node::netns::Netns;
use fiberlb_node::ovs::{Change, Plan, Plug, PlugError, Vswitch, plug, sweep, unplug};
use fiberlb_northbound::plan::{Installation, Owner};
use ovsdb::client::Event;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::timeout;
use uuid::Uuid;

use crate::vswitch::{Switch, apply, replica};
use crate::world::{LONG, dir, mac, name, skip, world};

const OURS: Installation = Installation(Uuid::from_u128(1));
const THEIRS: Installation = Installation(Uuid::from_u128(2));

fn owner(network: u128) -> Owner {
    OURS.network(Uuid::from_u128(network))
}

fn link(owner: Owner, text: &str) -> Plug {
    Plug { owner, link: name(text), iface_id: format!("lsp-{text}") }
}

fn wanted<const N: usize>(plugs: [(u128, &str); N]) -> Vec<Plug> {
    plugs.into_iter().map(|(network, text)| link(owner(network), text)).collect()
}

#[test]
fn a_link_is_plugged_in_and_out_and_nothing_else_changes() {
    world("a_link_is_plugged_in_and_out_and_nothing_else_changes", async || {
        let switch = Switch::start().await;
        switch.vsctl(&[
            "add-port",
            "br-int",
            "vm1",
            "--",
            "set",
            "Interface",
            "vm1",
            "external_ids:iface-id=vm1",
        ]);
        let before = switch.dump();
        let (client, _events) = switch.connect().await;
        let planned = |it: &Vswitch| plug(it, "br-int", &link(owner(1), "fl1"));
        apply(&client, planned).await;
        assert_eq!(planned(&client.read()), Plan::default(), "nothing is missing, so nothing is written");
        assert_eq!(switch.vsctl(&["list-ports", "br-int"]), "fl1\nvm1");
        let get = |column: &str| switch.vsctl(&["get", "Interface", "fl1", column]);
        assert_eq!(get("external_ids:iface-id"), "lsp-fl1");
        assert_eq!(get("external_ids:fiberlb\\:owner").trim_matches('"'), owner(1).to_string());
        assert_eq!(get("type"), "system");
        let listed: Vec<_> =
            client.read().interfaces_of(OURS).map(|(_, owner, row)| (owner, row.name.clone())).collect();
        assert_eq!(listed, [(owner(1), "fl1".to_owned())]);
        assert_eq!(client.read().interfaces_of(THEIRS).count(), 0);

        assert_eq!(unplug(&client.read(), owner(2)), Plan::default());
        apply(&client, |it| unplug(it, owner(1))).await;
        assert_eq!(switch.dump(), before);
        assert_eq!(unplug(&client.read(), owner(1)), Plan::default());
    });
}

#[test]
fn what_others_wrote_on_our_interface_stays() {
    world("what_others_wrote_on_our_interface_stays", async || {
        let switch = Switch::start().await;
        let (client, mut events) = switch.connect().await;
        apply(&client, |it| plug(it, "br-int", &link(owner(1), "fl1"))).await;
        switch.vsctl(&[
            "set",
            "Interface",
            "fl1",
            "external_ids:ovn-installed=true",
            "external_ids:iface-id=wrong",
        ]);
        switch.vsctl(&["set", "Interface", "fl1", "type=internal"]);
        replica(&client, &mut events, "the foreign change", |it| {
            it.interfaces_of(OURS).all(|(_, _, row)| row.r#type == "internal")
        })
        .await;
        apply(&client, |it| plug(it, "br-int", &link(owner(1), "fl1"))).await;
        let get = |column: &str| switch.vsctl(&["get", "Interface", "fl1", column]);
        assert_eq!(get("external_ids:iface-id"), "lsp-fl1");
        assert_eq!(get("external_ids:ovn-installed").trim_matches('"'), "true");
        assert_eq!(get("type"), "system");
        // The link goes to another owner, in place.
        apply(&client, |it| plug(it, "br-int", &link(owner(2), "fl1"))).await;
        assert_eq!(client.read().interfaces_of(OURS).map(|(_, it, _)| it).collect::<Vec<_>>(), [owner(2)]);
        assert_eq!(plug(&client.read(), "br-int", &link(owner(2), "fl1")), Plan::default());
    });
}

#[test]
fn a_sweep_leaves_exactly_what_is_wanted_and_all_that_is_not_ours() {
    world("a_sweep_leaves_exactly_what_is_wanted_and_all_that_is_not_ours", async || {
        let switch = Switch::start().await;
        switch.vsctl(&["add-port", "br-int", "vm1"]);
        let (client, _events) = switch.connect().await;
        apply(&client, |it| plug(it, "br-int", &link(THEIRS.network(Uuid::from_u128(1)), "fl9"))).await;
        let swept = |wanted: Vec<Plug>| move |it: &Vswitch| sweep(it, "br-int", OURS, &wanted);
        apply(&client, swept(wanted([(1, "fl1"), (2, "fl2"), (3, "fl3")]))).await;
        assert_eq!(switch.vsctl(&["list-ports", "br-int"]), "fl1\nfl2\nfl3\nfl9\nvm1");
        apply(&client, swept(wanted([(2, "fl2"), (4, "fl4")]))).await;
        assert_eq!(switch.vsctl(&["list-ports", "br-int"]), "fl2\nfl4\nfl9\nvm1");
        assert_eq!(swept(wanted([(2, "fl2"), (4, "fl4")]))(&client.read()), Plan::default());
        apply(&client, swept(wanted([]))).await;
        assert_eq!(switch.vsctl(&["list-ports", "br-int"]), "fl9\nvm1");
        assert_eq!(
            switch.vsctl(&["--format=csv", "--columns=name", "list", "Interface"]).lines().count(),
            1 + 3
        );
    });
}

#[test]
fn what_cannot_be_plugged_in_is_refused_alone() {
    world("what_cannot_be_plugged_in_is_refused_alone", async || {
        let switch = Switch::start().await;
        switch.vsctl(&["add-port", "br-int", "fl1"]);
        let before = switch.dump();
        let (client, mut events) = switch.connect().await;
        let plan = plug(&client.read(), "br-int", &link(owner(1), "fl1"));
        let taken = |text| PlugError::Taken { link: name(text), table: "Port" };
        assert_eq!((plan.operations, plan.refused), (vec![], vec![taken("fl1")]));
        let plan = plug(&client.read(), "br-none", &link(owner(1), "fl2"));
        assert!(
            matches!(plan.refused.as_slice(), [PlugError::NoBridge { .. }]) && plan.operations.is_empty()
        );

        let plan = sweep(&client.read(), "br-int", OURS, &wanted([(1, "fl1"), (2, "fl2"), (3, "fl2")]));
        let contested = PlugError::Contested { link: name("fl2"), owner: owner(3) };
        assert_eq!(plan.refused, [taken("fl1"), contested]);
        client.transact(plan.operations).await.unwrap();
        assert_eq!(switch.vsctl(&["list-ports", "br-int"]), "fl1\nfl2");

        // A row that lost our key is not ours any more.
        switch.vsctl(&["clear", "Port", "fl2", "external_ids"]);
        replica(&client, &mut events, "the cleared key", |it| {
            it.port.iter().all(|(_, row)| row.external_ids.is_empty())
        })
        .await;
        assert_eq!(plug(&client.read(), "br-int", &link(owner(2), "fl2")).refused, [taken("fl2")]);
        assert_eq!(sweep(&client.read(), "br-int", OURS, &wanted([])), Plan::default());
        switch.vsctl(&["del-port", "fl2"]);
        assert_eq!(switch.dump(), before);
    });
}

#[test]
fn what_others_moved_or_made_in_our_name_is_put_right() {
    world("what_others_moved_or_made_in_our_name_is_put_right", async || {
        let switch = Switch::start().await;
        let (client, mut events) = switch.connect().await;
        apply(&client, |it| plug(it, "br-int", &link(owner(1), "fl1"))).await;
        let port = switch.vsctl(&["get", "Port", "fl1", "_uuid"]);
        let to_other = [
            "--", "remove", "Bridge", "br-int", "ports", &port, "--", "add", "Bridge", "br-x", "ports", &port,
        ];
        switch.vsctl(&[&["add-br", "br-x"], &to_other[..]].concat());
        replica(&client, &mut events, "the move", |it| {
            let (_, bridge) = it.bridge_named("br-int").unwrap();
            it.port.iter().any(|(uuid, row)| row.name == "fl1" && !bridge.ports.contains(uuid))
        })
        .await;
        apply(&client, |it| plug(it, "br-int", &link(owner(1), "fl1"))).await;
        assert_eq!(switch.vsctl(&["port-to-br", "fl1"]), "br-int");

        // The same name and key, but another row: after a restored backup, say.
        let key = format!("external_ids:fiberlb\\:owner=\"{}\"", owner(1));
        switch.vsctl(&["del-port", "fl1"]);
        switch.vsctl(&[
            "add-port",
            "br-int",
            "fl1",
            "--",
            "set",
            "Port",
            "fl1",
            &key,
            "--",
            "set",
            "Interface",
            "fl1",
            &key,
        ]);
        replica(&client, &mut events, "the other row", |it| {
            it.interfaces_of(OURS).any(|(_, _, row)| !row.external_ids.contains_key("iface-id"))
        })
        .await;
        apply(&client, |it| plug(it, "br-int", &link(owner(1), "fl1"))).await;
        assert_eq!(switch.vsctl(&["get", "Interface", "fl1", "external_ids:iface-id"]), "lsp-fl1");
        assert_eq!(plug(&client.read(), "br-int", &link(owner(1), "fl1")), Plan::default());
    });
}

#[test]
fn ports_of_others_come_and_go_in_silence() {
    world("ports_of_others_come_and_go_in_silence", async || {
        let switch = Switch::start().await;
        let (client, mut events) = switch.connect().await;
        switch.vsctl(&["add-port", "br-int", "vm1"]);
        switch.vsctl(&["set", "Interface", "vm1", "external_ids:iface-id=vm1"]);
        switch.vsctl(&["del-port", "vm1"]);
        apply(&client, |it| plug(it, "br-int", &link(owner(1), "fl1"))).await;
        switch.vsctl(&["set", "Interface", "fl1", "external_ids:ovn-installed=true"]);
        switch.vsctl(&["set", "Bridge", "br-int", "datapath_type=system"]);
        let mut told = Vec::new();
        while told.len() < 3 {
            match timeout(LONG, events.recv()).await.expect("no change").unwrap() {
                Event::Changed(changes) => told.push(changes),
                other => panic!("{other:?}"),
            }
        }
        let owned = vec![Change::Owned { owner: owner(1) }];
        assert_eq!(told, [owned.clone(), owned, vec![Change::Bridge { name: "br-int".to_owned() }]]);
    });
}

/// The whole path: namespaces, links, addresses, offloads, plugs. TCP through the userspace datapath fails without the
/// offload switched off.
#[test]
fn two_namespaces_talk_through_a_bridge() {
    world("two_namespaces_talk_through_a_bridge", async || {
        if !std::path::Path::new("/dev/net/tun").exists() {
            return skip("two_namespaces_talk_through_a_bridge", "no /dev/net/tun");
        }
        let mut switch = Switch::start().await;
        switch.start_vswitchd();
        let (client, mut events) = switch.connect().await;
        let home = Netlink::open(&Netns::current().unwrap()).unwrap();
        let mut namespaces = Vec::new();
        for number in [1, 2] {
            namespaces.push(tenant(&home, number).await);
        }
        let wanted = wanted([(1, "fl1"), (2, "fl2"), (3, "fl3")]);
        apply(&client, |it| sweep(it, "br-int", OURS, &wanted)).await;
        for link in ["fl1", "fl2"] {
            switch.vsctl(&["wait-until", "Interface", link, "ofport>0"]);
        }
        replica(&client, &mut events, "the error of a link that is not there", |it| {
            let broken = it.interfaces_of(OURS).find(|(_, owner, _)| *owner == self::owner(3));
            broken.is_some_and(|(_, _, row)| row.error.is_some())
        })
        .await;
        for address in ["10.0.0.2", "fd00::2"] {
            exchange(&namespaces, address.parse().unwrap()).await;
        }
    });
}

/// A namespace with `eth0`, whose other end `fl<number>` is at home.
async fn tenant(home: &Netlink, number: u8) -> Netns {
    let netns = dir().create(&number.to_string()).unwrap();
    let inside = Netlink::open(&netns).unwrap();
    let end = VethEnd { mtu: Some(1400), ..VethEnd::new(name(&format!("fl{number}"))) };
    let peer = VethEnd { name: name("eth0"), mac: Some(mac(number)), mtu: Some(1400) };
    home.add_veth(&end, &peer, &netns).await.unwrap();
    inside.set_transmit_checksum_offload(&peer.name, false).unwrap();
    home.set_up(home.link(&end.name).await.unwrap().index).await.unwrap();
    let eth0 = inside.link(&peer.name).await.unwrap().index;
    inside.set_up(eth0).await.unwrap();
    for address in [format!("10.0.0.{number}/24"), format!("fd00::{number}/64")] {
        inside.add_address(eth0, address.parse().unwrap(), SourceSelection::Eligible).await.unwrap();
    }
    netns
}

/// A megabyte from the first namespace to the second, over TCP.
async fn exchange(namespaces: &[Netns], address: IpAddr) {
    let bind = || std::net::TcpListener::bind((address, 7000));
    let listener = namespaces[1].run(bind).unwrap().unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    let make = || if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = namespaces[0].run(make).unwrap().unwrap();
    let sent = vec![7; 1 << 20];
    let send = async {
        let mut stream = socket.connect((address, 7000).into()).await.unwrap();
        stream.write_all(&sent).await.unwrap();
    };
    let receive = async {
        let mut received = Vec::new();
        listener.accept().await.unwrap().0.read_to_end(&mut received).await.unwrap();
        received
    };
    let ((), received) = timeout(LONG, async { tokio::join!(send, receive) }).await.expect("TCP hangs");
    assert!(received == sent);
}
