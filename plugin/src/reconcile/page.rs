//! Compares `docs/ovn.md` with what is written to the northbound database: trees and networks of all kinds
//! are created, changed into one another and deleted, and their plans are collected.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use fiberlb_northbound::plan::{
    self, Capabilities, Desired, Families, Installation, Network, NodePort, OWNER_KEY, Owner, Row, Step,
    StepOperation, Topology, fence,
};
use fiberlb_northbound::{Northbound, TableKind};
use fiberlb_pages::{Page, Written, read_faults};
use ovsdb::operation::Operation;
use ovsdb::replica::{MonitoredTable, Replica as _, RowChange, RowUpdate};
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

fn page() -> Page {
    Page::read("ovn.md").unwrap().below("The northbound database").unwrap()
}

/// `first` and its successors by `next`. A new variant must be added to its chain.
fn all<T: Copy>(first: T, next: fn(T) -> Option<T>) -> Vec<T> {
    std::iter::successors(Some(first), |it| next(*it)).collect()
}

fn protocols() -> Vec<ListenerProtocol> {
    use ListenerProtocol as P;
    all(P::Tcp, |it| match it {
        P::Tcp => Some(P::Udp),
        P::Udp => Some(P::Sctp),
        P::Sctp => Some(P::Https),
        P::Https => None,
    })
}

fn algorithms() -> Vec<Algorithm> {
    use Algorithm as A;
    all(A::RoundRobin, |it| match it {
        A::RoundRobin => Some(A::SourceIp),
        A::SourceIp => Some(A::SourceIpPort),
        A::SourceIpPort => Some(A::LeastConnections),
        A::LeastConnections => None,
    })
}

fn datapaths() -> Vec<Datapath> {
    use Datapath as D;
    all(D::Auto, |it| match it {
        D::Auto => Some(D::Ovn),
        D::Ovn => Some(D::Proxy),
        D::Proxy => None,
    })
}

fn exposures() -> Vec<Exposure> {
    use Exposure as E;
    all(E::Auto, |it| match it {
        E::Auto => Some(E::Ovn),
        E::Ovn => Some(E::Direct),
        E::Direct => None,
    })
}

fn persistences() -> [Option<Persistence>; 2] {
    // There is one kind.
    let Persistence::SourceIp { timeout_s } = Persistence::SourceIp { timeout_s: 60 };
    [None, Some(Persistence::SourceIp { timeout_s })]
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// Trees of all kinds.
fn trees() -> Vec<Tree> {
    let vips = [&["10.0.0.100"][..], &["fd00::100"], &["10.0.0.100", "fd00::100"]];
    let mut trees = Vec::new();
    for (protocol, algorithm) in
        protocols().into_iter().flat_map(|it| algorithms().into_iter().map(move |of| (it, of)))
    {
        for (datapath, exposure) in
            datapaths().into_iter().flat_map(|it| exposures().into_iter().map(move |of| (it, of)))
        {
            for (persistence, vips) in persistences().into_iter().flat_map(|it| vips.map(|of| (it, of))) {
                let mut tree = tree();
                change::<Listener>(&mut tree, LISTENER, |it| {
                    it.common.name = format!("{protocol:?}");
                    (it.protocol, it.datapath, it.exposure) = (protocol, datapath, exposure);
                });
                change::<Pool>(&mut tree, POOL, |it| {
                    (it.algorithm, it.persistence) = (algorithm, persistence);
                });
                Arc::make_mut(&mut tree.load_balancer).spec.vips = addresses(vips);
                trees.push(tree);
            }
        }
    }
    trees
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
        proxied: BTreeMap::from([(
            LISTENER,
            Proxied { port: Some(10_000), results: results.into(), ..Proxied::default() },
        )]),
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

fn add(written: &mut Written, operations: &[Operation]) {
    let operations: Vec<Value> = operations.iter().map(|it| serde_json::to_value(it).unwrap()).collect();
    written.add(&operations, name);
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
fn lives(written: &mut Written, owner: Owner, states: &[Desired]) {
    let none = Desired::default();
    let befores = states.iter().chain([&none]);
    let afters = states.iter().skip(1).chain([&none, &none]);
    for (before, after) in befores.zip(afters) {
        for (before, after) in [(&none, before), (before, after), (before, &none)] {
            let steps = plan::diff(owner, after, &database(&[before], &json!(["map", []])));
            add(written, &plan::operations(steps));
        }
        add(written, &plan::operations(plan::diff(owner, before, &harmed(before))));
    }
}

fn fences(written: &mut Written) {
    let key = fence::key(INSTALLATION);
    for ids in [json!(["map", []]), json!(["map", [[key, "3"]]])] {
        let nb = database(&[], &ids);
        add(written, &fence::raise(INSTALLATION, 5, &nb).unwrap().unwrap());
        add(written, &[fence::guard(INSTALLATION, 5, &nb)]);
    }
}

/// Collects the writes to an existing responder when a load balancer is created or deleted.
fn answers(written: &mut Written, networks: &[Desired]) {
    let vips = addresses(&["10.0.0.100", "10.0.0.101"]);
    for nb in networks.iter().map(|network| database(&[network], &json!(["map", []]))) {
        for way in [StepOperation::Insert, StepOperation::Delete] {
            let steps: Vec<Step> = plan::answer(INSTALLATION, NETWORK, way, &vips, &nb);
            add(written, &plan::operations(steps));
        }
    }
}

#[test]
fn all_that_is_written_is_there_and_nothing_else() {
    let of = |tree: &Tree| {
        let desired = desired_state(tree, view(), &Northbound::default(), INSTALLATION, &Capabilities::ALL);
        desired.rows
    };
    let states: Vec<Desired> = trees().iter().map(of).collect();
    let networks = networks();
    let mut written = Written::default();
    lives(&mut written, INSTALLATION.load_balancer(LOAD_BALANCER), &states);
    lives(&mut written, INSTALLATION.network(NETWORK), &networks);
    answers(&mut written, &networks);
    fences(&mut written);
    assert_eq!(written.faults(&page()), Vec::<String>::new());
}

#[test]
fn all_that_is_read_is_there_and_nothing_else() {
    let columns = |table: MonitoredTable| {
        (table.name.to_owned(), table.columns.iter().map(|column| (*column).to_owned()).collect())
    };
    let monitored = Northbound::monitored().into_iter().map(columns).collect();
    assert_eq!(read_faults(&page(), &monitored), Vec::<String>::new());
}
