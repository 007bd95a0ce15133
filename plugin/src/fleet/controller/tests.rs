use std::net::IpAddr;

use fiberlb_northbound::Northbound;
use fiberlb_northbound::plan::{Installation, OWNER_KEY};
use ovsdb::operation::Operation;
use serde_json::json;

use super::*;
use crate::agents::{Observer as _, Verdict};
use crate::catalog::Model;
use crate::fleet::FleetSettings;
use crate::fleet::directory::records::{address_guard, reserve_address};
use crate::fleet::examples::{fleet, hello, join};
use crate::resources::examples::{BACKENDS, LISTENER, LOAD_BALANCER, NETWORK, change, tree};
use crate::resources::{Backend, Datapath, Exposure, Listener, transaction};
use crate::status::{DEAD_AFTER, EjectedBackend};
use fiberlb_store::{MemoryStore, Store, Transaction, Write};

fn holder(fleet: &Fleet) -> Option<String> {
    let vip = "10.0.0.100".parse().unwrap();
    fleet.state().holder(LOAD_BALANCER, vip).map(str::to_owned)
}

#[tokio::test]
async fn a_vip_that_nobody_holds_is_given_to_the_node_that_returns() {
    let fleet = Arc::new(fleet(|listener| listener.exposure = Exposure::Direct).await);
    let mut controller = Controller::new(Arc::clone(&fleet)).await.unwrap();
    fleet.mark_all_dirty();
    controller.work().await;
    join(&fleet, &["a"]);
    controller.work().await;
    assert_eq!(holder(&fleet), None, "b may hold it");
    join(&fleet, &["b"]);
    controller.work().await;
    let first = holder(&fleet).unwrap();

    // Both die, and the one that does not hold it reconnects.
    for node in ["a", "b"] {
        fleet.left(node, 1, "it went", false);
    }
    let died = fleet.state_mut().mark_dead(Instant::now() + DEAD_AFTER);
    assert_eq!(died, ["a", "b"]);
    for node in &died {
        let mut state = fleet.state_mut();
        let contact = &mut state.node_of_stream(node, 1).unwrap().contact;
        contact.last = contact.last.and_then(|last| last.checked_sub(DEAD_AFTER));
        drop(state);
        controller.mark_networks_dirty(node);
    }
    controller.work().await;
    let other = if first == "a" { "b" } else { "a" };
    fleet.joined(2, &hello(other)).unwrap();
    controller.work().await;
    assert_eq!(holder(&fleet).as_deref(), Some(other));
}

/// A fleet on whose nodes a listener is proxied, and its controller, which has processed everything.
async fn proxied() -> (Arc<Fleet>, Controller) {
    let fleet = Arc::new(fleet(|listener| listener.datapath = Datapath::Proxy).await);
    let mut controller = Controller::new(Arc::clone(&fleet)).await.unwrap();
    join(&fleet, &["a", "b"]);
    fleet.mark_all_dirty();
    controller.work().await;
    (fleet, controller)
}

/// Notices of trees since the last look.
fn trees(notices: &mut broadcast::Receiver<FleetNotice>) -> Vec<FleetNotice> {
    std::iter::from_fn(|| notices.try_recv().ok()).filter(|it| matches!(it, FleetNotice::Tree(_))).collect()
}

#[tokio::test]
async fn a_written_tree_is_not_told_to_the_reconciler_a_second_time() {
    let (fleet, mut controller) = proxied().await;
    let mut notices = fleet.subscribe();
    let before = fleet.model.tree(LOAD_BALANCER).unwrap();
    let mut after = Tree::clone(&before);
    change::<Backend>(&mut after, BACKENDS[0], |backend| backend.weight = 7);
    fleet.store.commit(transaction(Some(&before), Some(&after)).unwrap()).await.unwrap();
    fleet.model.reload(&*fleet.store).await.unwrap();
    // The reconciler has this notice too.
    let notice = controller.notices.try_recv().map_err(|_| broadcast::error::RecvError::Closed);
    controller.notice(&notice);
    assert!(fleet.is_dirty(LOAD_BALANCER), "the nodes are to have the weight");
    controller.work().await;
    assert_eq!(notices.try_recv().ok(), None);
}

#[tokio::test]
async fn a_flip_is_told_to_the_reconciler_once() {
    let (fleet, mut controller) = proxied().await;
    let mut notices = fleet.subscribe();
    let verdict = Verdict { backend: BACKENDS[0], up: false, reason: "refused".to_owned(), since_ms: 0 };
    fleet.verdicts("a", 1, false, vec![verdict.clone()]);
    controller.work().await;
    assert_eq!(trees(&mut notices), [], "b may say otherwise");
    fleet.verdicts("b", 1, false, vec![verdict]);
    controller.work().await;
    assert_eq!(trees(&mut notices), [FleetNotice::Tree(LOAD_BALANCER)]);
}

#[tokio::test]
async fn addresses_that_a_release_left_reserved_for_a_node_are_freed() {
    let (fleet, mut controller) = proxied().await;
    let own = fleet.state().allocations.port(NETWORK, "a").unwrap().all_hosts().next().unwrap();
    let [stranded, vip] = ["10.0.0.77", "10.0.0.78"].map(|host| host.parse().unwrap());
    let guards = [own, stranded, vip].map(|host| address_guard(NETWORK, host));
    let reserve = |host| reserve_address(NETWORK, host, "a");
    let of_vip = Write::Put { key: guards[2].clone(), value: LOAD_BALANCER.to_string().into_bytes() };
    let writes = vec![reserve(own), reserve(stranded), of_vip];
    fleet.store.commit(Transaction { compares: Vec::new(), writes }).await.unwrap();

    controller.free_stranded(NETWORK, &guards).await;
    let mut left = Vec::new();
    for guard in &guards {
        left.push(fleet.store.get(guard).await.unwrap().is_some());
    }
    assert_eq!(left, [true, false, true]);
}

#[tokio::test]
async fn an_ejection_of_a_node_that_never_returns_goes_and_so_does_one_of_a_tree_that_is_not_proxied_any_more()
 {
    let (fleet, controller) = proxied().await;
    let tree = fleet.model.tree(LOAD_BALANCER).unwrap();
    let out = || Some(EjectedBackend { until_ms: 1, reason: "connection refused".to_owned() });
    let long_ago = Instant::now().checked_sub(Duration::from_secs(60)).unwrap();
    fleet.state_mut().ejections.record(LOAD_BALANCER, BACKENDS[0], "b", out(), long_ago);
    fleet.state_mut().ejections.record(LOAD_BALANCER, BACKENDS[0], "a", out(), Instant::now());
    let (_go, stop) = watch::channel(false);
    let gone = async {
        while fleet.ejections_on(&tree)[&BACKENDS[0]].contains_key("b") {
            fleet.judged().await;
        }
    };
    tokio::select! {
        ended = controller.run(stop) => panic!("{ended:?}"),
        done = tokio::time::timeout(Duration::from_secs(20), gone) => done.unwrap(),
    }
    assert_eq!(fleet.ejections_on(&tree)[&BACKENDS[0]].keys().collect::<Vec<_>>(), ["a"]);

    fleet.state_mut().set_tree(LOAD_BALANCER, Some(&tree), None, fleet.clock());
    assert!(fleet.state().ejections.is_empty());
}

#[tokio::test]
async fn no_node_gets_an_address_that_connections_or_probes_are_made_to() {
    let database = fiberlb_northbound::double::database().unwrap();
    let switch = [("name", json!("net")), ("other_config", json!(["map", [["subnet", "10.0.0.0/24"]]]))];
    let switch = switch.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    database.write(&[Operation::insert("Logical_Switch", NETWORK, switch)]).unwrap();
    let (northbound, _events) = database.client(Northbound::new(OWNER_KEY));
    // The addresses that would be chosen first.
    let [backend, monitor] = ["10.0.0.254", "10.0.0.253"].map(|host| host.parse::<IpAddr>().unwrap());
    let mut tree = tree();
    change::<Listener>(&mut tree, LISTENER, |listener| listener.datapath = Datapath::Proxy);
    change::<Backend>(&mut tree, BACKENDS[0], |it| {
        it.address.set_ip(backend);
        it.monitor_address = Some(monitor);
    });
    let store: Arc<dyn Store> = Arc::new(MemoryStore::default());
    store.commit(transaction(None, Some(&tree)).unwrap()).await.unwrap();
    let model = Arc::new(Model::load(&*store).await.unwrap());
    let installation = Installation(Uuid::from_u128(9));
    let fleet = Fleet::load(installation, model, northbound, store, FleetSettings::default(), None);
    let fleet = Arc::new(fleet.await.unwrap());
    let mut controller = Controller::new(Arc::clone(&fleet)).await.unwrap();
    join(&fleet, &["a", "b"]);
    let hosts = || {
        let state = fleet.state();
        let ports = state.allocations.ports(NETWORK);
        ports.flat_map(|(_, port)| port.all_hosts().collect::<Vec<_>>()).collect::<Vec<IpAddr>>()
    };
    let given = async {
        while hosts().len() < 2 {
            fleet.mark_all_dirty();
            controller.work().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), given).await.unwrap();
    let hosts = hosts();
    assert!(hosts.contains(&[10, 0, 0, 252].into()), "{hosts:?}");
    assert!(!hosts.contains(&backend) && !hosts.contains(&monitor), "{hosts:?}");
}
