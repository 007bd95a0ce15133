//! Tables of the northbound database in `docs/ovn.md`: trees and networks of all kinds are created, changed into one
//! another and deleted, and their plans are collected.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use fiberlb_doc_tables::{Writes, check_reads};
use fiberlb_northbound::plan::{
    self, Capabilities, Desired, Families, Installation, Network, NodePort, OWNER_KEY, Owner, Row, Step,
    StepOperation, Topology, fence,
};
use fiberlb_northbound::{Northbound, TableKind};
use ovsdb::operation::Operation;
use ovsdb::replica::{Replica as _, RowChange, RowUpdate};
use ovsdb::value;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::desired::desired_state;
use crate::resources::examples::{LISTENER, LOAD_BALANCER, NETWORK, POOL, change, tree};
use crate::resources::{Algorithm, Datapath, Exposure, Listener, ListenerProtocol, Persistence, Pool, Tree};
use crate::status::{FleetView, Liveness, PlacedNode, Proxied};

const INSTALLATION: Installation = Installation(Uuid::from_u128(9));
const ROUTER: Uuid = Uuid::from_u128(0x61);
const GLOBAL: Uuid = Uuid::from_u128(0x78);

/// All variants of an enum; one that is missing does not compile.
macro_rules! all {
    ($kind:ident: $($variant:ident),*) => {{
        let _ = |it: $kind| match it { $($kind::$variant => {})* };
        [$($kind::$variant),*]
    }};
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Each tree with each value of one of its parts.
fn each<V: Clone>(trees: &[Tree], values: &[V], set: impl Fn(&mut Tree, V)) -> Vec<Tree> {
    let changed = |tree: &Tree, value: &V| {
        let mut tree = tree.clone();
        set(&mut tree, value.clone());
        tree
    };
    trees
        .iter()
        .flat_map(|tree| values.iter().map(|value| changed(tree, value)).collect::<Vec<_>>())
        .collect()
}

/// Trees of all kinds.
fn trees() -> Vec<Tree> {
    // There is one kind of persistence.
    let Persistence::SourceIp { timeout_s } = Persistence::SourceIp { timeout_s: 60 };
    let vips = [&["10.0.0.100"][..], &["fd00::100"], &["10.0.0.100", "fd00::100"]];
    let trees = each(&[tree()], &vips, |tree, vips| {
        Arc::make_mut(&mut tree.load_balancer).spec.vips = addresses(vips);
    });
    let trees = each(&trees, &[None, Some(Persistence::SourceIp { timeout_s })], |tree, persistence| {
        change::<Pool>(tree, POOL, |it| it.persistence = persistence);
    });
    let trees = each(&trees, &all!(Exposure: Auto, Ovn, Direct), |tree, exposure| {
        change::<Listener>(tree, LISTENER, |it| it.exposure = exposure);
    });
    let trees = each(&trees, &all!(Datapath: Auto, Ovn, Proxy), |tree, datapath| {
        change::<Listener>(tree, LISTENER, |it| it.datapath = datapath);
    });
    let algorithms = all!(Algorithm: RoundRobin, SourceIp, SourceIpPort, LeastConnections);
    let trees = each(&trees, &algorithms, |tree, algorithm| {
        change::<Pool>(tree, POOL, |it| it.algorithm = algorithm);
    });
    each(&trees, &all!(ListenerProtocol: Tcp, Udp, Sctp, Https), |tree, protocol| {
        change::<Listener>(tree, LISTENER, |it| {
            (it.protocol, it.common.name) = (protocol, format!("{protocol:?}"));
        });
    })
}

/// Two nodes that serve the listener.
fn view() -> FleetView {
    let node = |id: &str, hosts: &[&str]| PlacedNode {
        id: id.to_owned(),
        port_name: format!("port-{id}"),
        hosts: addresses(hosts),
        liveness: Liveness::Alive,
        draining: false,
        trouble: None,
    };
    let results = ["a", "b"].map(|id| (id.to_owned(), Ok(1)));
    FleetView {
        nodes: vec![node("a", &["10.0.0.250", "fd00::fa"]), node("b", &["10.0.0.251"])],
        proxied: BTreeMap::from([(LISTENER, Proxied { port: Some(10_000), results: results.into() })]),
        ..FleetView::default()
    }
}

/// Networks of all kinds.
fn networks() -> Vec<Desired> {
    let routed = || Topology { routers: [ROUTER].into(), switches: [NETWORK, Uuid::from_u128(0x52)].into() };
    let alone = || Topology { routers: BTreeSet::new(), switches: [NETWORK].into() };
    let port = |address: &str| NodePort::new(INSTALLATION, NETWORK, "a", addresses(&[address]));
    let mut all = Vec::new();
    for vips in [&[][..], &["10.0.0.100"], &["10.0.0.100", "fd00::100"]] {
        for (topology, responder) in [
            (routed(), Families::NONE),
            (alone(), Families::BOTH),
            (routed(), Families { v4: false, v6: true }),
        ] {
            for node_ports in [Vec::new(), vec![port("10.0.0.250")], vec![port("10.0.0.249")]] {
                let vips = addresses(vips).into_iter().collect();
                let network =
                    Network { installation: INSTALLATION, switch: NETWORK, vips, responder, node_ports };
                all.push(plan::network(&network, &topology));
            }
        }
    }
    all
}

/// A database that holds the rows of `states` among foreign rows. `ids`: external_ids of NB_Global.
fn database(states: &[&Desired], ids: &Value) -> Northbound {
    let mut rows: BTreeMap<(&'static str, Uuid), Map<String, Value>> = BTreeMap::new();
    for (table, uuid) in [(TableKind::LogicalSwitch, NETWORK), (TableKind::LogicalRouter, ROUTER)] {
        rows.insert((table.name(), uuid), Map::new());
    }
    rows.insert(("NB_Global", GLOBAL), Map::from_iter([("external_ids".to_owned(), ids.clone())]));
    for (uuid, row) in states.iter().flat_map(|desired| &desired.rows) {
        let columns = match row {
            Row::LoadBalancer(row) => row.to_row(),
            Row::LoadBalancerGroup(row) => row.to_row(),
            Row::LogicalRouter(row) => row.to_row(),
            Row::LogicalRouterPort(row) => row.to_row(),
            Row::LogicalSwitchPort(row) => row.to_row(),
        };
        rows.entry((row.table().name(), *uuid)).or_default().extend(columns);
    }
    for member in states.iter().flat_map(|desired| &desired.members) {
        let columns = rows.entry((member.table.name(), member.row)).or_default();
        let set = columns.entry(member.column).or_insert_with(|| json!(["set", []]));
        set[1].as_array_mut().unwrap().push(value::uuid(member.element));
    }
    let update = |((table, uuid), row): ((&str, Uuid), _)| RowUpdate {
        table: table.to_owned(),
        uuid,
        change: RowChange::Insert(row),
    };
    let mut nb = Northbound::new(OWNER_KEY);
    nb.reload(rows.into_iter().map(update).collect()).unwrap();
    nb
}

/// Keys that are made of values, as the page writes them.
fn name(column: &str, key: &str) -> String {
    match column {
        "vips" => "VIP:PORT".to_owned(),
        "external_ids" => key.replace(&INSTALLATION.0.to_string(), "INSTALLATION"),
        _ => key.to_owned(),
    }
}

fn add(writes: &mut Writes, operations: &[Operation]) {
    let operations: Vec<Value> = operations.iter().map(|it| serde_json::to_value(it).unwrap()).collect();
    writes.add(&operations, name);
}

/// A database in which all columns of the desired rows were emptied.
fn harmed(desired: &Desired) -> Northbound {
    let empty = |(uuid, row): (&Uuid, &Row)| RowUpdate {
        table: row.table().name().to_owned(),
        uuid: *uuid,
        change: RowChange::Insert(Map::new()),
    };
    let mut nb = Northbound::new(OWNER_KEY);
    nb.reload(desired.rows.iter().map(empty).collect()).unwrap();
    nb
}

/// Collects the writes when each of `states` is created, becomes the next one, is damaged, and is deleted.
fn lives(writes: &mut Writes, owner: Owner, states: &[Desired]) {
    let none = Desired::default();
    let befores = states.iter().chain([&none]);
    let afters = states.iter().skip(1).chain([&none, &none]);
    for (before, after) in befores.zip(afters) {
        for (before, after) in [(&none, before), (before, after), (before, &none)] {
            let steps = plan::diff(owner, after, &database(&[before], &json!(["map", []])));
            add(writes, &plan::operations(steps));
        }
        add(writes, &plan::operations(plan::diff(owner, before, &harmed(before))));
    }
}

fn fences(writes: &mut Writes) {
    let key = fence::key(INSTALLATION);
    for ids in [json!(["map", []]), json!(["map", [[key, "3"]]])] {
        let nb = database(&[], &ids);
        add(writes, &fence::raise(INSTALLATION, 5, &nb).unwrap().unwrap());
        add(writes, &[fence::guard(INSTALLATION, 5, &nb)]);
    }
}

/// Collects the writes to an existing responder when a load balancer is created or deleted.
fn answers(writes: &mut Writes, networks: &[Desired]) {
    let vips = addresses(&["10.0.0.100", "10.0.0.101"]);
    for nb in networks.iter().map(|network| database(&[network], &json!(["map", []]))) {
        for way in [StepOperation::Insert, StepOperation::Delete] {
            let steps: Vec<Step> = plan::answer(INSTALLATION, NETWORK, way, &vips, &nb);
            add(writes, &plan::operations(steps));
        }
    }
}

#[test]
fn writes_are_as_on_the_page() {
    let of = |tree: &Tree| {
        let desired = desired_state(tree, view(), &Northbound::default(), INSTALLATION, &Capabilities::ALL);
        desired.rows
    };
    let states: Vec<Desired> = trees().iter().map(of).collect();
    let networks = networks();
    let mut writes = Writes::default();
    lives(&mut writes, INSTALLATION.load_balancer(LOAD_BALANCER), &states);
    lives(&mut writes, INSTALLATION.network(NETWORK), &networks);
    answers(&mut writes, &networks);
    fences(&mut writes);
    writes.check("ovn.md", "nb");
}

#[test]
fn reads_are_as_on_the_page() {
    let tables = Northbound::monitored();
    check_reads("ovn.md", "nb-read", tables.iter().map(|it| (it.name, it.columns)));
}
