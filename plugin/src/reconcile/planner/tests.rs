//! Plans on a northbound database in memory: what they may write, that they converge, and that a change of the form of answers leaves
//! no VIP without one.

use fiberlb_northbound::plan::{Member, OWNER_KEY, Row};
use fiberlb_northbound::{LogicalSwitchPort, TableKind};
use ovsdb::client::double::Double;
use ovsdb::operation::{Mutation, Operation};
use ovsdb::replica::Replica as _;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::api::{Difference, DifferenceKind, Subject};
use crate::fleet::FleetSettings;
use crate::reconcile::examples::{GLOBAL, INSTALLATION, columns, database, model, write};
use crate::resources::examples::{self, NETWORK, change, deleted, put};
use crate::resources::{
    Algorithm, Backend, Datapath, Exposure, Listener, ListenerProtocol, Persistence, Pool, Record,
};
use crate::status::Observation;
use fiberlb_store::{SharedStore, Store};

/// Versions of a northd of each form.
const BY_NETWORKS: &str = "23.03.1-20.27.0-70.6";
const BY_ROWS: &str = "25.03.0-20.41.0-76.8";

/// A store, a northbound database, and their planner.
struct World {
    store: SharedStore,
    database: Double<Northbound>,
    planner: Planner,
}

impl World {
    async fn new(northd: &str) -> Self {
        let (store, database) = (SharedStore::default(), database());
        let shared: Arc<dyn Store> = Arc::new(store.clone());
        let model = model(Arc::clone(&shared)).await;
        let (northbound, _events) = database.client(Northbound::new(OWNER_KEY));
        let settings = FleetSettings::default();
        let fleet = Fleet::load(INSTALLATION, Arc::clone(&model), northbound.clone(), shared, settings, None);
        let fleet = Arc::new(fleet.await.unwrap());
        let world = Self {
            store,
            database,
            planner: Planner { installation: INSTALLATION, model, northbound, fleet },
        };
        world.northd(northd);
        world
    }

    /// A world in which these load balancers are applied, one after the other.
    async fn with(northd: &str, trees: &[Tree]) -> Self {
        let world = Self::new(northd).await;
        for tree in trees {
            world.write(tree).await;
            world.settle(&[WorkKey::LoadBalancer(tree.id())]);
        }
        world
    }

    /// Has a northd of this version take over.
    fn northd(&self, version: &str) {
        let options = columns([("options", json!(["map", [["northd_internal_version", version]]]))]);
        self.database.write(&[Operation::update("NB_Global", GLOBAL, options)]).unwrap();
    }

    async fn write(&self, tree: &Tree) {
        let revision = write(&self.store, &self.planner.model, tree).await;
        self.planner.model.reached(revision).await;
    }

    /// Carries out the plan for these keys, then for what is moving; the steps in order.
    fn settle(&self, keys: &[WorkKey]) -> Vec<Step> {
        let mut batch = self.planner.plan(keys);
        let mut steps = self.carry_out(&batch);
        while !batch.moving.is_empty() {
            let moving: Vec<WorkKey> = batch.moving.into_iter().map(WorkKey::Network).collect();
            batch = self.planner.plan(&moving);
            steps.extend(self.carry_out(&batch));
        }
        steps
    }

    fn carry_out(&self, batch: &Batch) -> Vec<Step> {
        assert_eq!(batch.obstructed, []);
        self.database.write(&plan::operations(batch.steps.clone())).unwrap();
        batch.steps.clone()
    }

    /// True if nothing is missing.
    fn is_in_step(&self) -> bool {
        self.planner.plan(&self.planner.everything()).steps.is_empty()
    }

    /// VIPs that the responder has to answer for, and does not.
    fn unanswered(&self) -> Vec<IpAddr> {
        let nb = self.planner.northbound.read();
        let trees =
            self.planner.model.load_balancers().into_iter().filter_map(|id| self.planner.model.tree(id));
        let is_answered = |tree: &Tree, vip: IpAddr| {
            let answered = answered(tree, INSTALLATION);
            answered.is_answered_by_row(&nb) || answered.addresses(&nb).any(|address| address == vip)
        };
        let of = |tree: Arc<Tree>| {
            let vips = tree.load_balancer.spec.vips.clone();
            vips.into_iter()
                .filter(|vip| is_answered_for(&tree) && !is_answered(&tree, *vip))
                .collect::<Vec<_>>()
        };
        trees.flat_map(of).collect()
    }

    /// VIPs that the responder has to answer for, and that nothing keeps from OVN's IPAM.
    fn unreserved(&self) -> Vec<IpAddr> {
        let nb = self.planner.northbound.read();
        let trees =
            self.planner.model.load_balancers().into_iter().filter_map(|id| self.planner.model.tree(id));
        let answered = trees.filter(|tree| is_answered_for(tree));
        let vips = answered.flat_map(|tree| tree.load_balancer.spec.vips.clone());
        let is_reserved = |vip: &IpAddr| {
            nb.ports_with_address(*vip, NETWORK).next().is_some()
                || plan::is_address(INSTALLATION, NETWORK, *vip, &nb)
        };
        vips.filter(|vip| !is_reserved(vip)).collect()
    }

    /// The content but for the row of the database itself.
    fn rows(&self) -> Northbound {
        let mut rows = Northbound::new(OWNER_KEY);
        rows.reload(self.database.rows().into_iter().filter(|row| row.uuid != GLOBAL).collect()).unwrap();
        rows
    }
}

/// A part of a random tree.
fn id(load_balancer: u8, kind: u8, number: u8) -> Uuid {
    Uuid::from_u128(u128::from(load_balancer) << 16 | u128::from(kind) << 8 | u128::from(number) | 1 << 64)
}

#[derive(Clone, Debug)]
struct Shape {
    families: Vec<bool>,
    listeners: Vec<(ListenerProtocol, Datapath)>,
    backends: Vec<u16>,
    is_direct: bool,
}

fn shape() -> impl Strategy<Value = Shape> {
    use ListenerProtocol::{Https, Sctp, Tcp, Udp};
    let families = prop::sample::select(vec![vec![true], vec![false], vec![true, false]]);
    let protocol = prop::sample::select(vec![Tcp, Udp, Sctp, Https]);
    let listener = (protocol, prop::sample::select(vec![Datapath::Auto, Datapath::Ovn, Datapath::Proxy]));
    let listeners = prop::collection::vec(listener, 0..3);
    let backends = prop::collection::vec(0..4_u16, 0..4);
    (families, listeners, backends, prop::bool::weighted(0.2)).prop_map(
        |(families, listeners, backends, is_direct)| Shape { families, listeners, backends, is_direct },
    )
}

/// The load balancer with this number; one of another shape has the same VIPs if these are of the same families.
fn tree(number: u8, shape: &Shape) -> Tree {
    let mut root = examples::tree().load_balancer.spec.clone();
    let vip = |is_v4: &bool| -> IpAddr {
        let text = if *is_v4 { format!("10.0.0.{number}") } else { format!("fd00::{number}") };
        text.parse().unwrap()
    };
    root.vips = shape.families.iter().map(vip).collect();
    let mut tree =
        Tree::new(Record::new(id(number, 0, 0), examples::tree().load_balancer.identity.clone(), root));
    let (pool, root) = (id(number, 1, 0), tree.id());
    put(&mut tree, pool, Pool { load_balancer_id: root, ..examples::pool() });
    for (index, weight) in (11..).zip(&shape.backends) {
        let backend = Backend { pool_id: pool, weight: *weight, ..examples::backend(index) };
        put(&mut tree, id(number, 2, index), backend);
    }
    for (index, (protocol, datapath)) in (0..).zip(&shape.listeners) {
        let is_direct = shape.is_direct && *protocol == ListenerProtocol::Tcp;
        let listener = Listener {
            load_balancer_id: root,
            protocol: *protocol,
            port: 80 + u16::from(index),
            default_pool_id: Some(pool),
            datapath: *datapath,
            exposure: if is_direct { Exposure::Direct } else { Exposure::Auto },
            ..examples::listener()
        };
        put(&mut tree, id(number, 3, index), listener);
    }
    tree
}

#[tokio::test]
async fn verification_says_what_reserves_addresses_on_networks_of_neutron() {
    let world = World::with(BY_ROWS, &[anchor()]).await;
    assert_eq!(world.planner.verify().lacking, [""; 0]);
    let ids = json!(["map", [["neutron:network_name", "tenant"]]]);
    let of_neutron = columns([("name", json!("neutron-1")), ("external_ids", ids)]);
    world.database.write(&[Operation::update("Logical_Switch", NETWORK, of_neutron)]).unwrap();
    let verified = world.planner.verify();
    assert!(verified.lacking.len() == 1 && verified.lacking[0].contains("only a Neutron port"));
    // It leads to a physical network, and a port of it is in a group with rules of no state.
    let [port, rule, group] = [1, 2, 3].map(Uuid::from_u128);
    let set = |row: Uuid| json!(["uuid", row]);
    world
        .database
        .write(&[
            Operation::insert("Logical_Switch_Port", port, columns([("type", json!("localnet"))])),
            Operation::mutate("Logical_Switch", NETWORK, vec![Mutation::insert("ports", set(port))]),
            Operation::insert("ACL", rule, columns([("action", json!("allow-stateless"))])),
            Operation::insert("Port_Group", group, columns([("ports", set(port)), ("acls", set(rule))])),
        ])
        .unwrap();
    let verified = world.planner.verify();
    assert!(verified.lacking[1].contains("stateless ACLs") && verified.lacking[2].contains("DIRECT"));
    assert_eq!(verified.found.len(), 0);
}

#[tokio::test]
async fn verification_notes_load_balancers_whose_sessions_ovn_keeps_at_one_backend() {
    let listeners = vec![(ListenerProtocol::Tcp, Datapath::Auto)];
    let tree_of = |number, persistence: Option<Persistence>| {
        let shape =
            Shape { families: vec![true], listeners: listeners.clone(), backends: vec![1], is_direct: false };
        let mut tree = tree(number, &shape);
        change::<Pool>(&mut tree, id(number, 1, 0), |pool| pool.persistence = persistence);
        tree
    };
    let sticky = Some(Persistence::SourceIp { timeout_s: 60 });
    for (other, is_noted) in [(None, false), (sticky, true)] {
        let trees = [tree_of(101, sticky), tree_of(102, other)];
        let world = World::with(BY_ROWS, &trees).await;
        for tree in trees {
            let applied = Observation { applied: Some(Arc::new(tree)), ..Observation::default() };
            world.planner.model.observe(applied.applied.as_ref().unwrap().id(), applied.clone());
        }
        let lacking = world.planner.verify().lacking;
        assert_eq!(lacking.iter().any(|note| note.contains("session persistence")), is_noted, "{lacking:?}");
    }
}

#[tokio::test]
async fn verification_names_an_id_in_two_trees() {
    let world = World::with(BY_ROWS, &[anchor()]).await;
    let mut thief =
        tree(251, &Shape { families: vec![true], listeners: vec![], backends: vec![], is_direct: false });
    let pool = *anchor().pools.keys().next().unwrap();
    let of_thief = Pool { load_balancer_id: thief.id(), ..examples::pool() };
    put(&mut thief, pool, of_thief);
    world.write(&thief).await;
    let found = world.planner.verify().found;
    let of = |id: Uuid| {
        let blocked =
            |it: &&Difference| it.subject == Subject::LoadBalancer(id) && it.kind == DifferenceKind::Blocked;
        found.iter().find(blocked).map(|it| it.detail.clone()).unwrap_or_default()
    };
    for id in [anchor().id(), thief.id()] {
        assert!(of(id).contains(&format!("the one id {pool}")), "{found:?}");
    }
}

/// A load balancer that is there all the time, so that none of the others is the first or the last.
fn anchor() -> Tree {
    let listeners = vec![(ListenerProtocol::Tcp, Datapath::Auto)];
    tree(250, &Shape { families: vec![true, false], listeners, backends: vec![1], is_direct: false })
}

fn trees(shapes: &[Shape]) -> Vec<Tree> {
    (100..).zip(shapes).map(|(number, shape)| tree(number, shape)).collect()
}

/// True for steps that northd (24.09 and later) handles incrementally.
fn is_cheap(step: &Step, steps: &[Step], nb: &Northbound) -> bool {
    let is_plain = |port: &LogicalSwitchPort| port.r#type.is_empty();
    match step {
        Step::Insert(_, Row::LoadBalancer(_))
        | Step::Update(TableKind::LoadBalancer, ..)
        | Step::Delete(TableKind::LoadBalancer, _)
        | Step::Refer(_, Member { table: TableKind::LoadBalancerGroup, column: "load_balancer", .. }) => true,
        Step::Insert(_, Row::LogicalSwitchPort(port)) => is_plain(port),
        Step::Address(_, port, _) | Step::Update(TableKind::LogicalSwitchPort, port, _) => {
            nb.logical_switch_port.get(port).is_some_and(is_plain)
        }
        Step::Refer(_, Member { table: TableKind::LogicalSwitch, column: "ports", element, .. }) => {
            let inserted = steps.iter().find_map(|step| match step {
                Step::Insert(uuid, Row::LogicalSwitchPort(port)) if uuid == element => Some(port),
                _ => None,
            });
            inserted.or_else(|| nb.logical_switch_port.get(element)).is_some_and(is_plain)
        }
        _ => false,
    }
}

/// True for what a load balancer's VIPs cost where they are addresses of the responder, and for the port of a VIP that nodes hold.
fn is_of_vips(step: &Step) -> bool {
    match step {
        Step::Network(..)
        | Step::Refer(_, Member { table: TableKind::LogicalSwitch, column: "ports", .. }) => true,
        Step::Insert(_, Row::LogicalSwitchPort(port)) => port.r#type == "virtual",
        _ => false,
    }
}

fn run<F: Future<Output = Result<(), TestCaseError>>>(test: F) -> Result<(), TestCaseError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
}

/// A change of a listener, a pool or a backend.
fn changed(tree: &Tree, number: u8) -> Vec<Tree> {
    let each = |edit: &dyn Fn(&mut Tree)| {
        let mut tree = tree.clone();
        edit(&mut tree);
        tree
    };
    let (pool, listener, backend) = (id(number, 1, 0), id(number, 3, 9), id(number, 2, 40));
    let new = || Listener {
        load_balancer_id: tree.id(),
        port: 99,
        default_pool_id: Some(pool),
        ..examples::listener()
    };
    let mut all = vec![
        each(&|tree| put(tree, listener, new())),
        each(&|tree| put(tree, backend, Backend { pool_id: pool, ..examples::backend(40) })),
        each(&|tree| change::<Pool>(tree, pool, |pool| pool.algorithm = Algorithm::SourceIp)),
        each(&|tree| change::<Pool>(tree, pool, |pool| pool.admin_state_up = false)),
    ];
    if let Some(first) = tree.backends.keys().next().copied() {
        all.push(each(&|tree| change::<Backend>(tree, first, |backend| backend.weight = 7)));
        all.push(each(&|tree| change::<Backend>(tree, first, |backend| backend.admin_state_up = false)));
    }
    if let Some(first) = tree.listeners.keys().next().copied() {
        all.push(each(&|tree| change::<Listener>(tree, first, |listener| listener.admin_state_up = false)));
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_load_balancer_writes_cheap_rows_alone(shape in shape(), by_rows in any::<bool>()) {
        run(async {
            let world = World::with(if by_rows { BY_ROWS } else { BY_NETWORKS }, &[anchor()]).await;
            let new = tree(100, &shape);
            let key = [WorkKey::LoadBalancer(new.id())];
            let is_direct = !is_answered_for(&new);
            for (state, is_whole) in std::iter::once((new.clone(), true))
                .chain(changed(&new, 100).into_iter().flat_map(|other| [(other, false), (new.clone(), false)]))
                .chain([(deleted(&new), true)])
            {
                world.write(&state).await;
                let nb = world.planner.northbound.read().clone();
                let steps = world.settle(&key);
                for step in &steps {
                    let exception = is_whole && (is_direct || !by_rows) && is_of_vips(step);
                    prop_assert!(is_cheap(step, &steps, &nb) || exception, "{:?} of {:?}", step, steps);
                }
                prop_assert_eq!(world.planner.plan(&key).steps, vec![], "it is not done");
                prop_assert!(world.is_in_step());
                prop_assert_eq!(world.unanswered(), [] as [IpAddr; 0]);
                prop_assert_eq!(world.unreserved(), [] as [IpAddr; 0]);
            }
            Ok(())
        })?;
    }

    #[test]
    fn rows_are_the_same_in_whatever_order_they_come(
        shapes in prop::collection::vec(shape(), 1..4), by_rows in any::<bool>(), together in any::<bool>()
    ) {
        run(async {
            let northd = if by_rows { BY_ROWS } else { BY_NETWORKS };
            let trees = trees(&shapes);
            let world = World::with(northd, &trees).await;
            let backwards: Vec<Tree> = trees.iter().rev().cloned().collect();
            let other = if together {
                let other = World::new(northd).await;
                for tree in &backwards {
                    other.write(tree).await;
                }
                other.settle(&other.planner.everything());
                other
            } else {
                World::with(northd, &backwards).await
            };
            prop_assert!(world.is_in_step() && other.is_in_step());
            prop_assert_eq!(world.rows(), other.rows());
            for tree in &trees {
                world.write(&deleted(tree)).await;
                world.settle(&[WorkKey::LoadBalancer(tree.id())]);
            }
            prop_assert_eq!(world.rows(), World::new(northd).await.rows(), "something is left");
            Ok(())
        })?;
    }

    #[test]
    fn no_vip_is_unanswered_while_the_form_changes(
        shapes in prop::collection::vec(shape(), 1..4), to_rows in any::<bool>(),
        order in prop::collection::vec(any::<prop::sample::Index>(), 16)
    ) {
        run(async {
            let (before, after) = if to_rows { (BY_NETWORKS, BY_ROWS) } else { (BY_ROWS, BY_NETWORKS) };
            let trees = trees(&shapes);
            let world = World::with(before, &trees).await;
            world.northd(after);
            // Single keys, in any order and several times, as events bring them; then all that is left.
            let keys = world.planner.everything();
            for index in &order {
                let batch = world.planner.plan(&[*index.get(&keys)]);
                world.carry_out(&batch);
                prop_assert_eq!(world.unanswered(), [] as [IpAddr; 0]);
                prop_assert_eq!(world.unreserved(), [] as [IpAddr; 0]);
            }
            world.settle(&world.planner.everything());
            prop_assert!(world.is_in_step());
            prop_assert_eq!(world.unanswered(), [] as [IpAddr; 0]);
            prop_assert_eq!(world.rows(), World::with(after, &trees).await.rows());
            Ok(())
        })?;
    }
}
