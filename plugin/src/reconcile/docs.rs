//! Tables of the northbound database in `docs/ovn.md`: trees and networks of all kinds are created, changed into one
//! another and deleted, and their plans are collected.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use fiberlb_doc_tables::{Writes, check_reads};
use fiberlb_northbound::Northbound;
use fiberlb_northbound::plan::{
    self, AnswerForm, Capabilities, Desired, Network, NetworkTraits, NextHop, NodePort, OWNER_KEY, Owner,
    Row, StepOperation, Topology, fence,
};
use ovsdb::client::double::Double;
use ovsdb::operation::{Columns, Operation};
use ovsdb::replica::{Replica as _, RowChange, RowUpdate};
use serde_json::Value;
use uuid::Uuid;

use super::desired::desired_state;
use super::examples::{INSTALLATION, database};
use super::network::{answered, reservation};
use crate::resources::examples::{LISTENER, LOAD_BALANCER, NETWORK, POOL, change, tree};
use crate::resources::{Algorithm, Datapath, Exposure, Listener, ListenerProtocol, Persistence, Pool, Tree};
use crate::status::{FleetView, Liveness, Observation, PlacedNode, Proxied};

const ROUTER: Uuid = Uuid::from_u128(0x61);
const OTHER_SWITCH: Uuid = Uuid::from_u128(0x52);

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
    let algorithms =
        all!(Algorithm: RoundRobin, SourceIp, SourceIpPort, LeastConnections, Random, PowerOfTwoChoices);
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
        proxied: BTreeMap::from([(
            LISTENER,
            Proxied { port: Some(10_000), results: results.into(), ..Proxied::default() },
        )]),
        ..FleetView::default()
    }
}

/// Networks of all kinds.
fn networks() -> Vec<Desired> {
    let hop = |router, behind: &[&str]| NextHop {
        router,
        addresses: addresses(&["10.0.0.1", "fd00::1"]),
        behind: behind.iter().map(|text| text.parse().unwrap()).collect(),
    };
    let routed = || Topology {
        ways_out: [ROUTER].into(),
        switches: [NETWORK, OTHER_SWITCH].into(),
        next_hops: vec![hop(ROUTER, &[]), hop(OTHER_SWITCH, &["10.1.0.0/24"])],
        own: ["10.0.0.0/24", "fd00::/64"].iter().map(|text| text.parse().unwrap()).collect(),
    };
    let alone = || Topology { switches: [NETWORK].into(), ..Topology::default() };
    let port = |address: &str| NodePort::new(INSTALLATION, NETWORK, "a", addresses(&[address]));
    let mut all = Vec::new();
    for vips in [&[][..], &["10.0.0.100"], &["10.0.0.100", "fd00::100"]] {
        for topology in [routed(), alone()] {
            for node_ports in [Vec::new(), vec![port("10.0.0.250")], vec![port("10.0.0.249")]] {
                let vips: BTreeSet<IpAddr> = addresses(vips).into_iter().collect();
                let row = reservation(&tree(), INSTALLATION).row;
                let by_networks = Network {
                    installation: INSTALLATION,
                    switch: NETWORK,
                    form: AnswerForm::Networks,
                    addresses: vips.clone(),
                    vips: vips.clone(),
                    reserved: BTreeMap::new(),
                    node_ports,
                };
                let by_rows = Network {
                    form: AnswerForm::Rows,
                    addresses: BTreeSet::new(),
                    reserved: BTreeMap::from([(row, vips)]),
                    ..by_networks.clone()
                };
                all.extend([by_networks, by_rows].map(|network| plan::network(&network, &topology)));
            }
        }
    }
    all
}

/// A database with foreign rows, and all that is written to it.
struct Recorder {
    database: Double<Northbound>,
    writes: Writes,
}

impl Recorder {
    fn new() -> Self {
        let database = database();
        let foreign = [("Logical_Switch", OTHER_SWITCH), ("Logical_Router", ROUTER)];
        database.write(&foreign.map(|(table, uuid)| Operation::insert(table, uuid, Columns::new()))).unwrap();
        Self { database, writes: Writes::default() }
    }

    fn replica(&self) -> Northbound {
        let mut replica = Northbound::new(OWNER_KEY);
        replica.reload(self.database.rows()).unwrap();
        replica
    }

    /// Records operations. Keys that are made of values have names.
    fn record(&mut self, operations: &[Operation]) {
        let json: Vec<Value> = operations.iter().map(|it| serde_json::to_value(it).unwrap()).collect();
        self.writes.add(&json, |column, key| match column {
            "vips" if key.parse::<IpAddr>().is_ok() => "VIP".to_owned(),
            "vips" => "VIP:PORT".to_owned(),
            "external_ids" => key.replace(&INSTALLATION.0.to_string(), "INSTALLATION"),
            _ => key.to_owned(),
        });
    }

    fn apply(&mut self, operations: &[Operation]) {
        self.record(operations);
        self.database.write(operations).unwrap();
    }

    /// Makes the rows of an owner as desired.
    fn reconcile(&mut self, owner: Owner, desired: &Desired) {
        self.apply(&plan::operations(plan::diff(owner, desired, &self.replica())));
    }

    /// Changes the rows of an owner into those of each of `states`, repairs them where all their columns were emptied,
    /// and deletes and creates them.
    fn lives(&mut self, owner: Owner, states: &[Desired]) {
        for state in states {
            self.reconcile(owner, state);
            self.record(&plan::operations(plan::diff(owner, state, &emptied(state))));
            self.reconcile(owner, &Desired::default());
            self.reconcile(owner, state);
        }
    }
}

/// A replica in which all columns of the desired rows are empty.
fn emptied(desired: &Desired) -> Northbound {
    let row = |(uuid, row): (&Uuid, &Row)| RowUpdate {
        table: row.table().name().to_owned(),
        uuid: *uuid,
        change: RowChange::Insert(Columns::new()),
    };
    let mut replica = Northbound::new(OWNER_KEY);
    replica.reload(desired.rows.iter().map(row).collect()).unwrap();
    replica
}

#[test]
fn writes_are_as_on_the_page() {
    let mut recorder = Recorder::new();
    // What is different on older releases is the same for all trees.
    for (silent_ports, step) in [(false, 16), (true, 1)] {
        let capabilities = Capabilities { silent_ports, ..Capabilities::ALL };
        let of = |tree: &Tree| {
            desired_state(
                tree,
                view(),
                &Observation::default(),
                NetworkTraits::default(),
                &Northbound::default(),
                INSTALLATION,
                &capabilities,
            )
            .rows
        };
        let states: Vec<Desired> = trees().iter().step_by(step).map(of).collect();
        recorder.lives(INSTALLATION.load_balancer(LOAD_BALANCER), &states);
    }
    let mut tree = tree();
    Arc::make_mut(&mut tree.load_balancer).spec.vips = addresses(&["10.0.0.100", "10.0.0.101"]);
    for network in networks() {
        recorder.lives(INSTALLATION.network(NETWORK), &[network]);
        for way in [StepOperation::Insert, StepOperation::Delete] {
            let steps = answered(&tree, INSTALLATION).steps(way, &recorder.replica());
            recorder.record(&plan::operations(steps));
            let steps = reservation(&tree, INSTALLATION).steps(way, &recorder.replica());
            recorder.record(&plan::operations(steps.unwrap_or_default()));
        }
    }
    for term in [5, 6] {
        let replica = recorder.replica();
        recorder.record(&[fence::guard(INSTALLATION, term, &replica)]);
        recorder.apply(&fence::raise(INSTALLATION, term, &replica).unwrap().unwrap());
    }
    recorder.writes.check("ovn.md", "nb");
}

#[test]
fn reads_are_as_on_the_page() {
    let tables = Northbound::new(OWNER_KEY).monitored().unwrap().into_iter();
    check_reads("ovn.md", "nb-read", tables.map(|it| (it.name, it.columns.unwrap())));
}
