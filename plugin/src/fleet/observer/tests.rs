use std::time::Duration;

use super::*;
use fiberlb_northbound::plan::Capabilities;

use crate::fleet::delivery::share_book::{Sharer, SharerState};
use crate::fleet::directory::records::FleetKey;
use crate::fleet::examples::{fleet, hello, join, now};
use crate::resources::examples::{BACKENDS, LISTENER, LOAD_BALANCER, NETWORK, POOL};
use crate::resources::{Datapath, Listener};
use crate::status::Health;
use fiberlb_store::Revision;

fn proxied(listener: &mut Listener) {
    listener.datapath = Datapath::Proxy;
}

fn down(backend: Uuid) -> agents::Verdict {
    agents::Verdict { backend, up: false, reason: "so I say".to_owned(), since_ms: 0 }
}

fn done(kind: ResultKind, id: Uuid) -> Acknowledgement {
    Acknowledgement { kind, id, generation: 1, error: None }
}

#[tokio::test]
async fn a_node_has_no_say_on_networks_that_are_not_placed_on_it() {
    let fleet = fleet(proxied).await;
    join(&fleet, &["a", "b", "c"]);
    let mut notices = fleet.subscribe();
    fleet.verdicts("c", 1, true, BACKENDS.map(down).to_vec());
    assert_eq!(fleet.state().verdicts.health(BACKENDS[0]), Health::Unknown);
    let tree = fleet.model.tree(LOAD_BALANCER).unwrap();
    assert!(fleet.verdicts_on(&tree).is_empty());
    let kinds = [(ResultKind::Network, NETWORK), (ResultKind::Listener, LISTENER), (ResultKind::Pool, POOL)];
    let all = || kinds.map(|(kind, id)| done(kind, id)).to_vec();
    fleet.acknowledged("c", 1, true, all());
    let invented = |number| done(ResultKind::Network, Uuid::from_u128(number));
    fleet.acknowledged("c", 1, true, (1000..2000).map(invented).collect());
    assert!(notices.try_recv().is_err(), "nobody is told of it");
    let results = || fleet.nodes(|_, node| node.results.len());
    assert_eq!(results(), [0, 0, 0]);
    fleet.verdicts("a", 1, true, BACKENDS.map(down).to_vec());
    fleet.acknowledged("a", 1, true, all());
    assert_eq!(fleet.verdicts_on(&tree)[&BACKENDS[0]].len(), 1);
    assert_eq!(results(), [3, 0, 0]);
}

#[tokio::test]
async fn a_node_that_is_heard_of_for_the_first_time_may_get_networks() {
    let fleet = fleet(proxied).await;
    fleet.take_dirty();
    join(&fleet, &["c"]);
    assert!(fleet.take_dirty().to_allocate.contains(&NETWORK));
    fleet.left("c", 1, "it went", false);
    fleet.joined(2, &hello("c")).unwrap();
    assert!(fleet.take_dirty().to_allocate.is_empty(), "it was away for a moment only");
}

#[tokio::test]
async fn what_a_node_said_is_kept_until_it_has_surely_given_that_up() {
    let fleet = fleet(proxied).await;
    join(&fleet, &["a"]);
    fleet.acknowledged("a", 1, true, vec![done(ResultKind::Listener, LISTENER)]);
    let results = || fleet.nodes(|_, node| node.results.len())[0];
    let with = |listeners: &[Uuid]| Configuration {
        listeners: listeners.iter().map(|id| (*id, Arc::default())).collect(),
        ..Configuration::default()
    };
    fleet.state_mut().revoke("a", &[LISTENER], &with(&[]));
    fleet.state_mut().revoke("a", &[], &with(&[LISTENER]));
    fleet.acknowledged("a", 1, true, Vec::new());
    assert_eq!(results(), 1, "it was given back before the node knew");
    fleet.state_mut().revoke("a", &[LISTENER], &with(&[]));
    fleet.acknowledged("a", 1, false, Vec::new());
    assert_eq!(results(), 1, "it may be under way");
    fleet.acknowledged("a", 1, true, Vec::new());
    assert_eq!(results(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_verdict_that_leaves_the_health_as_it_is_reaches_the_observation_and_nothing_else() {
    let fleet = fleet(proxied).await;
    join(&fleet, &["a", "b"]);
    let up = |since_ms| agents::Verdict { backend: BACKENDS[0], up: true, reason: String::new(), since_ms };
    fleet.verdicts("a", 1, true, vec![up(1)]);
    let is_judged = || async { tokio::time::timeout(Duration::from_secs(1), fleet.judged()).await.is_ok() };
    assert!(is_judged().await);
    fleet.take_dirty();
    let mut notices = fleet.subscribe();
    for (verdict, is_news) in [(up(2), true), (up(2), false), (up(3), true)] {
        fleet.verdicts("b", 1, false, vec![verdict]);
        assert_eq!(is_judged().await, is_news);
    }
    let tree = fleet.model.tree(LOAD_BALANCER).unwrap();
    assert_eq!(fleet.verdicts_on(&tree)[&BACKENDS[0]]["b"].since_ms, 3);
    assert!(notices.try_recv().is_err() && !fleet.is_dirty(LOAD_BALANCER), "nothing is reconciled");
    // Another health is reconciled, and observed even if that cannot be.
    fleet.verdicts("b", 1, false, vec![down(BACKENDS[0])]);
    assert!(notices.try_recv().is_ok() && fleet.is_dirty(LOAD_BALANCER));
    assert!(is_judged().await);
}

#[tokio::test]
async fn troubles_of_a_node_are_told_with_it_and_with_its_listeners_until_they_are_over() {
    let fleet = fleet(proxied).await;
    join(&fleet, &["a", "c"]);
    fleet.acknowledged("a", 1, true, vec![done(ResultKind::Listener, LISTENER)]);
    let mut notices = fleet.subscribe();
    let trouble = |listener, text: &str| NodeTrouble { listener, text: text.to_owned() };
    let tree = fleet.model.tree(LOAD_BALANCER).unwrap();
    let told = || {
        let view = fleet.view(&tree, &Capabilities::ALL);
        let status = fleet.state().status("a", now()).unwrap();
        (view.trouble_of(LISTENER), status.reason)
    };
    let all = || {
        let stray = trouble(Some(Uuid::from_u128(77)), "not its own");
        vec![trouble(None, "it is short of ports"), trouble(Some(LISTENER), "its share is used up"), stray]
    };
    fleet.troubles("c", 1, all());
    assert!(notices.try_recv().is_err(), "the network is not on it");
    fleet.troubles("a", 1, all());
    assert_eq!(notices.try_recv().unwrap(), FleetNotice::Tree(LOAD_BALANCER));
    assert_eq!(told(), (Some("node a: its share is used up".to_owned()), "it is short of ports".to_owned()));
    fleet.troubles("a", 1, all());
    assert!(notices.try_recv().is_err(), "nothing new");
    fleet.troubles("a", 7, Vec::new());
    assert!(told().0.is_some(), "of another stream");
    fleet.troubles("a", 1, Vec::new());
    assert_eq!(notices.try_recv().unwrap(), FleetNotice::Tree(LOAD_BALANCER));
    assert_eq!(told(), (None, String::new()));
}

#[tokio::test]
async fn a_renewed_stream_of_a_process_changes_nothing_that_is_known_and_another_process_begins_anew() {
    let fleet = fleet(proxied).await;
    join(&fleet, &["a", "b"]);
    let all = || {
        let kinds =
            [(ResultKind::Network, NETWORK), (ResultKind::Listener, LISTENER), (ResultKind::Pool, POOL)];
        kinds.map(|(kind, id)| done(kind, id)).to_vec()
    };
    let up = |backend| agents::Verdict { up: true, ..down(backend) };
    fleet.acknowledged("a", 1, true, all());
    fleet.verdicts("a", 1, true, BACKENDS.map(up).to_vec());
    let serves = || {
        let tree = fleet.model.tree(LOAD_BALANCER).unwrap();
        let view = fleet.view(&tree, &Capabilities::ALL);
        (view.serving(LISTENER).map(|node| node.id.clone()).collect::<Vec<_>>(), view.health)
    };
    let before = serves();
    assert_eq!(before.0, ["a"]);
    fleet.left("a", 1, "renewed", true);
    assert_eq!(serves(), before);
    fleet.joined(2, &hello("a")).unwrap();
    assert_eq!(serves(), before);
    // What the node has no longer goes once it has acknowledged its configuration.
    fleet.state_mut().revoke_others("a", &agents::Configuration::default());
    assert_eq!(serves(), before);
    fleet.acknowledged("a", 2, true, Vec::new());
    assert_eq!(serves().0, Vec::<String>::new());

    fleet.acknowledged("a", 2, true, all());
    fleet.left("a", 2, "it crashed", false);
    let another = agents::Hello { boot_id: "another".to_owned(), ..hello("a") };
    fleet.joined(3, &another).unwrap();
    assert_eq!(serves().0, Vec::<String>::new(), "nobody knows what another process serves");
}

#[tokio::test]
async fn sums_of_what_nodes_say_never_overflow() {
    let fleet = fleet(proxied).await;
    join(&fleet, &["a"]);
    let counters = |listener| TrafficReport {
        subject: listener,
        connections_total: u64::MAX,
        connections_active: u64::MAX,
        connections_failed_total: u64::MAX,
        bytes_in_total: u64::MAX,
        bytes_out_total: u64::MAX,
        ..TrafficReport::default()
    };
    let mut state = fleet.state_mut();
    let node = state.node_of_stream("a", 1).unwrap();
    let ids = [LISTENER, POOL];
    node.results.extend(ids.map(|id| (id, Ok(1))));
    node.count(ids.map(counters).to_vec(), Instant::now());
    assert_eq!(node.connections(), u64::MAX);
}

#[tokio::test]
async fn an_ejection_is_shown_until_its_node_ends_it_or_leaves_the_network() {
    let fleet = fleet(proxied).await;
    join(&fleet, &["a", "c"]);
    let tree = fleet.model.tree(LOAD_BALANCER).unwrap();
    let said = |until_ms: Option<u64>| {
        let ejection = until_ms.map(|until_ms| (until_ms, "connection refused".to_owned()));
        vec![ReportedEjection { backend: BACKENDS[0], ejection }]
    };
    let shown = || {
        let ejections = fleet.ejections_on(&tree);
        ejections
            .get(&BACKENDS[0])
            .map(|nodes| nodes.iter().map(|(node, it)| (node.clone(), it.until_ms)).collect())
    };
    let by_a = |until_ms| Some(vec![("a".to_owned(), until_ms)]);
    fleet.ejections("c", 1, said(Some(5)));
    assert_eq!(shown(), None, "it is not on the network");
    fleet.ejections("a", 1, said(Some(5)));
    assert_eq!(shown(), by_a(5));
    assert_eq!(fleet.judged().await, [LOAD_BALANCER].into(), "it is published");
    fleet.ejections("a", 7, said(None));
    assert_eq!(shown(), by_a(5), "another stream");
    fleet.ejections("a", 1, said(None));
    assert_eq!(shown(), None);
    fleet.ejections("a", 1, said(Some(6)));
    assert_eq!(shown(), by_a(6));
    let port = FleetKey::Port(NETWORK, "a".to_owned());
    fleet.state_mut().apply(&port, None, Revision(1_000), Instant::now());
    assert_eq!(shown(), None);
}

#[tokio::test(start_paused = true)]
async fn short_ejections_one_after_the_other_are_published_once_and_the_rest_after_a_while() {
    let fleet = fleet(proxied).await;
    join(&fleet, &["a"]);
    let out = |until_ms| {
        let ejection = Some((until_ms, "connection refused".to_owned()));
        vec![ReportedEjection { backend: BACKENDS[0], ejection }]
    };
    let is_judged = || async { tokio::time::timeout(Duration::from_secs(1), fleet.judged()).await.is_ok() };
    fleet.ejections("a", 1, out(1));
    assert!(is_judged().await);
    for until_ms in 2..100 {
        fleet.ejections("a", 1, out(until_ms));
        assert!(!is_judged().await);
    }
    let later = Instant::now() + Duration::from_secs(10);
    assert!(fleet.state_mut().ejections.expire(LOAD_BALANCER, later), "the latest, once");
    assert!(!fleet.state_mut().ejections.expire(LOAD_BALANCER, later + Duration::from_secs(9)));
}

#[tokio::test]
async fn connections_of_a_listener_reach_the_readers_of_its_project_alone() {
    let fleet = fleet(proxied).await;
    join(&fleet, &["a", "c"]);
    let reader = fleet.read_access_log(LISTENER).unwrap();
    let project = fleet.model.tree(LOAD_BALANCER).unwrap().load_balancer.spec.project_id.clone();
    let reported = |project: &str, start_ms| ReportedConnection {
        project: project.to_owned(),
        connection: LoggedConnection { node: String::new(), ..LoggedConnection::example(LISTENER, start_ms) },
    };
    let report = |connections| AccessLogReport { connections, omitted: BTreeMap::new() };
    fleet.access_log("c", 1, report(vec![reported(&project, 1)]));
    // A listener that had its id before.
    let connections = vec![reported("another", 2), reported("", 3), reported(&project, 4)];
    fleet.access_log("a", 1, report(connections));
    let batch = reader.next().await;
    let shown: Vec<_> = batch.connections.iter().map(|it| (it.node.as_str(), it.start_ms)).collect();
    assert_eq!(shown, [("a", 4)]);
}

#[tokio::test]
async fn shares_that_are_dealt_anew_leave_the_rest_of_the_tree_alone() {
    let limited = |listener: &mut Listener| listener.limits.connections = Some(2);
    let fleet = fleet(limited).await;
    join(&fleet, &["a", "b"]);
    let sharers = ["a", "b"].map(|node| Sharer { node, state: SharerState::Serves });
    let began = Instant::now();
    fleet.state().shares().share((LOAD_BALANCER, LISTENER), 2, &sharers, "a", began).unwrap();
    fleet.take_dirty();
    let count = |node, connections_active, above_total| {
        let share = Some(ReportedShare { in_force: 1, above_total });
        let report =
            TrafficReport { subject: LISTENER, connections_active, share, ..TrafficReport::default() };
        fleet.counters(node, 1, vec![report], Vec::new());
    };
    count("a", 1, 0);
    count("b", 0, 0);
    assert!(fleet.take_dirty().shares.is_empty());
    let mut notices = fleet.subscribe();
    count("a", 1, 5);
    let dirty = fleet.take_dirty();
    assert_eq!((dirty.shares, dirty.trees), ([LISTENER].into(), BTreeSet::new()));
    assert_eq!(notices.try_recv().unwrap(), FleetNotice::Tree(LOAD_BALANCER), "b leaves the row");

    let dead = Sharer { node: "b", state: SharerState::Dead };
    let sharers = [Sharer { node: "a", state: SharerState::Serves }, dead];
    fleet.state().shares().share((LOAD_BALANCER, LISTENER), 2, &sharers, "a", began).unwrap();
    fleet.hand_shares_over(began + Duration::from_secs(1));
    assert!(fleet.take_dirty().shares.is_empty(), "b may be back");
    fleet.hand_shares_over(began + Duration::from_secs(10));
    let shares = fleet.state().shares().dealt(LISTENER, "a");
    assert_eq!(
        (shares, fleet.take_dirty().shares),
        (Some(2), [LISTENER].into()),
        "without a report of anybody"
    );
}
