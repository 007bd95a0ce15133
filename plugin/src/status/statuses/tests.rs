use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::{
    ApplyFailure, Carried, FleetView, Health, InconclusiveCheck, Liveness, NetworkCaveats, PlacedNode,
    Proxied,
};
use super::*;
use crate::datapath::{Carrier, Decision};
use crate::resources::examples::{BACKENDS, CHECK, LISTENER, LOAD_BALANCER, POOL, change, pool, put, tree};
use crate::resources::{Common, InTree as _, Kind, WeightedPool, of_kind};

/// Observation of a tree that is applied.
fn of(applied: Tree) -> Observation {
    Observation { applied: Some(Arc::new(applied)), ..Observation::default() }
}

fn status(tree: &Tree, observation: &Observation, kind: Kind, id: Uuid) -> Status {
    let statuses = Statuses::new(tree, observation, None);
    of_kind!(kind, T => T::status(&statuses, T::find(tree, id).unwrap()))
}

fn operating(tree: &Tree, observation: &Observation, kind: Kind, id: Uuid) -> (Operating, String) {
    let status = status(tree, observation, kind, id);
    (status.operating, status.reason)
}

fn pending() -> (Operating, String) {
    (Operating::Offline, "not in force yet".to_owned())
}

/// All that is below the load balancer.
fn below() -> impl Iterator<Item = (Kind, Uuid)> {
    let rest = [(Kind::Listener, LISTENER), (Kind::Pool, POOL), (Kind::HealthCheck, CHECK)];
    BACKENDS.into_iter().map(|id| (Kind::Backend, id)).chain(rest)
}

#[test]
fn what_was_never_in_force_is_offline() {
    let tree = tree();
    let bare = Tree::new(Record::clone(&tree.load_balancer));
    for observation in [Observation::default(), of(bare)] {
        for (kind, id) in below() {
            assert_eq!(operating(&tree, &observation, kind, id), pending(), "{kind:?}");
            let status = status(&tree, &observation, kind, id);
            assert_eq!(status.provisioning, Provisioning::PendingCreate, "{kind:?}");
        }
    }
}

#[test]
fn what_is_in_force_is_online() {
    let observation = of(tree());
    for (kind, id) in [(Kind::Listener, LISTENER), (Kind::Pool, POOL)] {
        assert_eq!(operating(&tree(), &observation, kind, id), (Operating::Online, String::new()));
    }
    let backend = operating(&tree(), &observation, Kind::Backend, BACKENDS[0]);
    assert_eq!(backend, (Operating::NoMonitor, String::new()));
}

#[test]
fn what_is_switched_off_says_so_once_it_is_in_force() {
    let mut tree = tree();
    change::<Listener>(&mut tree, LISTENER, |listener| listener.admin_state_up = false);
    assert_eq!(operating(&tree, &Observation::default(), Kind::Listener, LISTENER), pending());
    let (operating, reason) = operating(&tree, &of(tree.clone()), Kind::Listener, LISTENER);
    assert_eq!((operating, reason.starts_with("switched off")), (Operating::Offline, true), "{reason}");
}

/// Observation of a tree that is applied, after another one of it.
fn later(carried: Carried, applied: &Tree, before: &Observation) -> Observation {
    Observation { carried: Arc::new(carried), ..of(applied.clone()) }.after(before, applied)
}

#[test]
fn a_generation_that_was_in_force_stays_observed_and_the_reason_says_what_is_waited_for() {
    let before = of(tree());
    // No pool and switched off: what it will say once it is in force.
    let mut wanted = tree();
    let listener = Record::clone(&wanted.listeners[&LISTENER]);
    let spec = Listener { default_pool_id: None, admin_state_up: false, ..listener.spec.clone() };
    wanted.listeners.insert(LISTENER, Arc::new(listener.changed(spec)));
    wanted.head.0 += 1;
    let decision = Decision { carrier: Carrier::Proxy, reason: "a limit".into() };
    let decisions: BTreeMap<Uuid, Decision> = [(LISTENER, decision)].into();
    let seen = |observation: &Observation| {
        let Status { provisioning, observed_generation, code, .. } =
            status(&wanted, observation, Kind::Listener, LISTENER);
        (provisioning, observed_generation, code)
    };
    let nobody = Carried { decisions, ..Carried::default() };
    let moved = later(nobody.clone(), &wanted, &before);
    assert_eq!(seen(&moved), (Provisioning::PendingUpdate, 1, C::NoProxy));
    assert_eq!(Listener::in_force(&moved, LISTENER), 0, "it is not in force now");
    // It serves, and dies.
    let mut served = nobody.clone();
    let results = [("n1".to_owned(), Ok(2))].into();
    served.view.proxied = [(LISTENER, Proxied { results, ..Proxied::default() })].into();
    served.view.nodes = vec![PlacedNode {
        id: "n1".to_owned(),
        port_name: "port".to_owned(),
        hosts: Vec::new(),
        liveness: Liveness::Alive,
        draining: false,
        trouble: None,
    }];
    let served = later(served, &wanted, &moved);
    assert_eq!(seen(&served), (Provisioning::Active, 2, C::SwitchedOff));
    let died = later(nobody, &wanted, &served);
    assert_eq!(seen(&died), (Provisioning::Active, 2, C::SwitchedOff));
    let refused = Carried { refused: [(LISTENER, "no".to_owned())].into(), ..Carried::default() };
    assert_eq!(seen(&later(refused, &wanted, &died)), (Provisioning::Error, 2, C::Refused));
}

#[test]
fn backends_that_are_not_in_force_bring_no_pool_online() {
    let mut empty = tree();
    empty.backends.clear();
    let (operating, reason) = operating(&tree(), &of(empty), Kind::Pool, POOL);
    assert_eq!(
        (operating, reason.as_str()),
        (Operating::Offline, "no backend is in force yet: connections are refused")
    );
}

#[test]
fn a_new_backend_changes_nothing_of_a_pool_that_others_serve() {
    let mut without = tree();
    without.backends.remove(&BACKENDS[0]);
    change::<Backend>(&mut without, BACKENDS[1], |backend| backend.weight = 0);
    let mut wanted = without.clone();
    wanted.backends.insert(BACKENDS[0], Arc::clone(&tree().backends[&BACKENDS[0]]));
    assert_eq!(operating(&wanted, &of(without.clone()), Kind::Pool, POOL).0, Operating::Online);
    let mut drained = wanted.clone();
    change::<Backend>(&mut drained, BACKENDS[2], |backend| backend.weight = 0);
    let nobody = operating(&drained, &of(without), Kind::Pool, POOL);
    assert_eq!(nobody.0, Operating::Offline, "the only one with a weight is not in force: {}", nobody.1);
}

#[test]
fn what_is_being_replaced_serves_until_it_is() {
    let mut before = tree();
    before.backends.remove(&BACKENDS[0]);
    let mut wanted = tree();
    for id in &BACKENDS[1..] {
        let deleted = wanted.backends[id].deleted();
        wanted.backends.insert(*id, Arc::new(deleted));
    }
    assert_eq!(operating(&wanted, &of(before), Kind::Pool, POOL).0, Operating::Online);

    let mut before = tree();
    before.pools.clear();
    assert_eq!(operating(&tree(), &of(before), Kind::Listener, LISTENER).0, Operating::Online);
}

fn node(id: &str, host: &str) -> PlacedNode {
    PlacedNode {
        id: id.to_owned(),
        port_name: format!("port-{id}"),
        hosts: vec![host.parse().unwrap()],
        liveness: Liveness::Alive,
        draining: false,
        trouble: None,
    }
}

fn everything() -> impl Iterator<Item = (Kind, Uuid)> {
    below().chain([(Kind::LoadBalancer, LOAD_BALANCER)])
}

#[test]
fn a_network_that_is_gone_is_said_of_everything_on_it() {
    let reason = "the logical switch is gone".to_owned();
    let failure =
        ApplyFailure { reason: reason.clone(), next_attempt_at: 7, scope: FailureScope::NetworkGone };
    let observation = Observation { failure: Some(failure.clone()), ..of(tree()) };
    for (kind, id) in everything() {
        let status = status(&tree(), &observation, kind, id);
        let seen = (status.provisioning, status.operating, status.code, status.reason);
        let gone = (Provisioning::Error, Operating::Error, C::NetworkGone, reason.clone());
        assert_eq!(seen, gone, "{kind:?}");
        assert_eq!((status.next_attempt_at, status.observed_generation), (Some(7), 1), "{kind:?}");
    }
    let mut off = tree();
    change::<Listener>(&mut off, LISTENER, |listener| listener.admin_state_up = false);
    let observation = Observation { failure: Some(failure), ..of(off.clone()) };
    assert_eq!(operating(&off, &observation, Kind::Listener, LISTENER).0, Operating::Offline);
}

#[test]
fn a_failure_is_of_what_it_is_about() {
    let failed = |scope| {
        let failure = ApplyFailure { reason: "refused".to_owned(), next_attempt_at: 7, scope };
        Observation { failure: Some(failure), ..of(tree()) }
    };
    for (kind, id) in everything() {
        let of_changes = status(&tree(), &failed(FailureScope::Changes), kind, id);
        assert_eq!(of_changes.provisioning, Provisioning::Active, "{kind:?}: it has not changed");
        let of_tree = status(&tree(), &failed(FailureScope::Tree), kind, id);
        assert_eq!((of_tree.provisioning, of_tree.code), (Provisioning::Error, C::ApplyFailed));
        assert_eq!(of_tree.operating, of_changes.operating, "{kind:?}: as far as is known");
    }
}

#[test]
fn what_ovn_cannot_serve_on_a_network_is_said_of_what_it_carries() {
    let seen = |caveats, carrier| {
        let decisions = [(LISTENER, Decision { carrier, reason: "".into() })].into();
        let mut carried = Carried { caveats, decisions, ..Carried::default() };
        carried.view.nodes = vec![node("n1", "10.0.0.250")];
        carried.view.holders = [([10, 0, 0, 100].into(), "n1".to_owned())].into();
        carried.view.proxied =
            [(LISTENER, Proxied { results: [("n1".to_owned(), Ok(1))].into(), ..Proxied::default() })].into();
        let observation = Observation { carried: Arc::new(carried), ..of(tree()) };
        [(Kind::Listener, LISTENER), (Kind::LoadBalancer, LOAD_BALANCER)].map(|(kind, id)| {
            let status = status(&tree(), &observation, kind, id);
            (status.operating, status.code)
        })
    };
    let physical = NetworkCaveats { is_physical: true, ..NetworkCaveats::default() };
    let stateless = NetworkCaveats { has_stateless_acls: true, ..NetworkCaveats::default() };
    let online = (Operating::Online, C::None);
    for carrier in [Carrier::Ovn, Carrier::Proxy] {
        assert_eq!(seen(NetworkCaveats::default(), carrier), [online; 2]);
        assert_eq!(seen(physical, carrier), [(Operating::Online, C::PhysicalNetwork); 2]);
        assert_eq!(
            seen(stateless, carrier),
            [(Operating::Degraded, C::StatelessAcls), (Operating::Degraded, C::SomeListenersFailed)]
        );
    }
    for caveats in [physical, stateless] {
        assert_eq!(seen(caveats, Carrier::Direct), [online; 2], "a node answers for the VIP itself");
    }
}

#[test]
fn a_backend_that_is_a_vip_is_said_of_the_listeners_that_ovn_carries() {
    let seen = |chained: &[Uuid], carrier| {
        let decisions = [(LISTENER, Decision { carrier, reason: "".into() })].into();
        let chained = chained.iter().copied().collect();
        let mut carried = Carried { chained, decisions, ..Carried::default() };
        carried.view.nodes = vec![node("n1", "10.0.0.250")];
        carried.view.proxied =
            [(LISTENER, Proxied { results: [("n1".to_owned(), Ok(1))].into(), ..Proxied::default() })].into();
        let observation = Observation { carried: Arc::new(carried), ..of(tree()) };
        let status = status(&tree(), &observation, Kind::Listener, LISTENER);
        (status.operating, status.code)
    };
    let online = (Operating::Online, C::None);
    assert_eq!(seen(&[BACKENDS[1]], Carrier::Ovn), (Operating::Degraded, C::BackendIsVip));
    assert_eq!([seen(&[], Carrier::Ovn), seen(&[BACKENDS[1]], Carrier::Proxy)], [online; 2]);
}

/// Health of the backends, and those of them whose probes say nothing.
fn checked(health: [Health; 3], inconclusive: &[Uuid]) -> Observation {
    let mut carried = Carried::default();
    carried.view.nodes = vec![node("n1", "10.0.0.250"), node("n2", "10.0.0.251")];
    carried.view.health = BACKENDS.into_iter().zip(health).collect();
    let check = InconclusiveCheck { reason: "no descriptors".to_owned(), since_ms: 1 };
    let said: BTreeMap<String, InconclusiveCheck> =
        ["n1", "n2", "gone"].map(|node| (node.to_owned(), check.clone())).into();
    carried.view.inconclusive = inconclusive.iter().map(|backend| (*backend, said.clone())).collect();
    Observation { carried: Arc::new(carried), ..of(tree()) }
}

#[test]
fn why_probes_say_nothing_reaches_their_backend_with_where_they_come_from() {
    let doubts = "probes from n1 (10.0.0.250), n2 (10.0.0.251) say nothing: no descriptors";
    for (health, operating, code, text) in [
        (Health::Unknown, Operating::Offline, C::AwaitingProbe, "waiting for its first good probe"),
        (Health::Up, Operating::Online, C::ProbesInconclusive, "up by its last verdict"),
    ] {
        let observation = checked([health, Health::Up, Health::Up], &BACKENDS[..1]);
        let status = status(&tree(), &observation, Kind::Backend, BACKENDS[0]);
        assert_eq!((status.operating, status.code), (operating, code));
        assert_eq!(status.reason, format!("{text}; {doubts}"));
    }
    let observation = checked([Health::Up, Health::Up, Health::Up], &[]);
    let check = operating(&tree(), &observation, Kind::HealthCheck, CHECK);
    assert_eq!(check, (Operating::Online, "checked from n1 (10.0.0.250), n2 (10.0.0.251)".to_owned()));
}

#[test]
fn a_pool_counts_who_waits_beside_who_is_down() {
    use Health::{Unknown, Up};
    let down = || Health::Down("connection refused (from n1)".to_owned());
    let seen = |health, inconclusive: &[Uuid]| {
        let status = status(&tree(), &checked(health, inconclusive), Kind::Pool, POOL);
        (status.operating, status.code, status.reason)
    };
    let of = |operating, code, reason: &str| (operating, code, reason.to_owned());
    let refused = "10.0.0.11:8080 connection refused (from n1)";
    let stuck = "10.0.0.11:8080 probes from n1 (10.0.0.250), n2 (10.0.0.251) say nothing: no descriptors";
    let (first, none): (&[Uuid], &[Uuid]) = (&BACKENDS[..1], &[]);
    assert_eq!(seen([Unknown, Up, Up], none), of(Operating::Online, C::None, ""), "it is new");
    let waits = of(
        Operating::Degraded,
        C::AwaitingProbe,
        &format!("1 of 3 backends have had no good probe yet: {stuck}"),
    );
    assert_eq!(seen([Unknown, Up, Up], first), waits);
    let both = format!("1 of 3 backends are down and 1 waits for a first good probe: {refused}");
    let both = of(Operating::Degraded, C::SomeBackendsDown, &both);
    assert_eq!(seen([down(), Unknown, Up], none), both);
    let all = format!(
        "1 of 3 backends are down and 2 wait for a first good probe: connections are refused; {refused}"
    );
    let all = of(Operating::Error, C::AllBackendsDown, &all);
    assert_eq!(seen([down(), Unknown, Unknown], none), all);
    let nobody = "no backend has had a good probe yet: connections are refused";
    let offline = |reason: &str| of(Operating::Offline, C::AwaitingProbe, reason);
    assert_eq!(seen([Unknown, Unknown, Unknown], none), offline(nobody));
    assert_eq!(seen([Unknown, Unknown, Unknown], first), offline(&format!("{nobody}; {stuck}")));
}

#[test]
fn a_listener_that_waits_for_its_next_carrier_says_so_and_is_as_it_was() {
    let mut wanted = tree();
    let listener = Record::clone(&wanted.listeners[&LISTENER]);
    wanted.listeners.insert(LISTENER, Arc::new(listener.changed(listener.spec.clone())));
    let decision = |carrier| [(LISTENER, Decision { carrier, reason: "a limit".into() })].into();
    let standing = |carrier| [(LISTENER, carrier)].into();
    let mut to_proxies = Carried {
        decisions: decision(Carrier::Proxy),
        standing: standing(Carrier::Ovn),
        ..Carried::default()
    };
    to_proxies.view.trouble = Some("no proxy node has ever connected".to_owned());
    let observation = later(to_proxies, &wanted, &of(tree()));
    let seen = status(&wanted, &observation, Kind::Listener, LISTENER);
    assert_eq!((seen.provisioning, seen.operating), (Provisioning::PendingUpdate, Operating::Online));
    assert_eq!((seen.code, seen.observed_generation), (C::CarrierAwaited, 1));
    assert!(seen.reason.ends_with("until one does: no proxy node has ever connected"), "{}", seen.reason);
    let detail = Listener::detail(&observation, "", &wanted.listeners[&LISTENER]);
    assert_eq!(detail.decision.unwrap().carrier, Carrier::Ovn);

    let mut to_ovn = Carried { standing: standing(Carrier::Proxy), ..Carried::default() };
    to_ovn.view.nodes = vec![node("n1", "10.0.0.250")];
    to_ovn.view.proxied =
        [(LISTENER, Proxied { results: [("n1".to_owned(), Ok(2))].into(), ..Proxied::default() })].into();
    let seen = status(&wanted, &later(to_ovn, &wanted, &of(tree())), Kind::Listener, LISTENER);
    assert_eq!((seen.provisioning, seen.code), (Provisioning::PendingUpdate, C::CarrierAwaited));
    assert_eq!(seen.operating, Operating::Online);
}

#[test]
fn sessions_of_two_listeners_at_one_backend_are_said_where_ovn_carries_both() {
    const OTHER: Uuid = Uuid::from_u128(33);
    let mut both = tree();
    change::<Pool>(&mut both, POOL, |pool| {
        pool.persistence = Some(crate::resources::Persistence::SourceIp { timeout_s: 60 });
    });
    let code =
        |tree: &Tree, observation: &Observation| status(tree, observation, Kind::Listener, LISTENER).code;
    assert_eq!(code(&both, &of(both.clone())), C::None, "it is alone");
    let other = Listener { port: 81, ..both.listeners[&LISTENER].spec.clone() };
    crate::resources::examples::put(&mut both, OTHER, other);
    assert_eq!(code(&both, &of(both.clone())), C::SharedSessions);
    let decisions = [(OTHER, Decision { carrier: Carrier::Proxy, reason: "".into() })].into();
    let carried = Arc::new(Carried { decisions, ..Carried::default() });
    let proxied = Observation { carried, ..of(both.clone()) };
    assert_eq!(code(&both, &proxied), C::None, "proxies carry the other one");
    change::<Pool>(&mut both, POOL, |pool| pool.persistence = None);
    assert_eq!(code(&both, &of(both.clone())), C::None);
}

#[test]
fn a_refused_listener_that_no_proxy_serves_any_more_is_in_error() {
    let serving = PlacedNode {
        id: "n1".to_owned(),
        port_name: "p".to_owned(),
        hosts: vec!["10.0.0.250".parse().unwrap()],
        liveness: Liveness::Alive,
        draining: false,
        trouble: None,
    };
    let proxied = Proxied { port: Some(1), results: [("n1".to_owned(), Ok(1))].into(), ..Proxied::default() };
    let view = FleetView {
        nodes: vec![serving.clone()],
        proxied: [(LISTENER, proxied)].into(),
        ..FleetView::default()
    };
    let carried = Carried {
        refused: [(LISTENER, "OVN is to carry it, and cannot".to_owned())].into(),
        standing: [(LISTENER, Carrier::Proxy)].into(),
        view,
        ..Carried::default()
    };
    let mut dead = carried.clone();
    dead.view.nodes = vec![PlacedNode { liveness: Liveness::Dead, ..serving }];
    let tree = tree();
    let seen = |carried: Carried| {
        let observation = Observation { carried: Arc::new(carried), ..of(tree.clone()) };
        let status = status(&tree, &observation, Kind::Listener, LISTENER);
        (status.provisioning, status.operating, status.code)
    };
    assert_eq!(seen(carried), (Provisioning::Error, Operating::Online, C::Refused));
    assert_eq!(seen(dead), (Provisioning::Error, Operating::Error, C::Refused));
}

#[test]
fn pools_that_share_a_listener_say_what_becomes_of_their_shares() {
    const GREEN: Uuid = Uuid::from_u128(33);
    let mut tree = tree();
    put(
        &mut tree,
        GREEN,
        Pool { common: Common { name: "green".to_owned(), ..Common::default() }, ..pool() },
    );
    change::<Backend>(&mut tree, BACKENDS[2], |backend| backend.pool_id = GREEN);
    let divide = |tree: &mut Tree, weights: [u16; 2]| {
        let pools = [POOL, GREEN].into_iter().zip(weights);
        let pools = pools.map(|(pool_id, weight)| WeightedPool { pool_id, weight }).collect();
        change::<Listener>(tree, LISTENER, |listener| {
            (listener.default_pool_id, listener.weighted_pools) = (None, pools);
        });
    };
    divide(&mut tree, [90, 10]);
    let seen = |tree: &Tree, down: &[Uuid]| {
        let health = |id: &Uuid| {
            (*id, if down.contains(id) { Health::Down("refused".to_owned()) } else { Health::Up })
        };
        let view = FleetView { health: BACKENDS.iter().map(health).collect(), ..FleetView::default() };
        let carried = Arc::new(Carried { view, ..Carried::default() });
        let status = status(tree, &Observation { carried, ..of(tree.clone()) }, Kind::Listener, LISTENER);
        (status.operating, status.code, status.reason)
    };
    assert_eq!(seen(&tree, &[]), (Operating::Online, C::None, String::new()));
    let (operating, code, reason) = seen(&tree, &[BACKENDS[2]]);
    assert_eq!((operating, code), (Operating::Degraded, C::SomePoolsFailed));
    let start = "1 of 2 pools do not serve, and the others have their shares; pool \"green\": all 1 backends are down; ";
    assert!(reason.starts_with(start) && !reason.contains("are refused"), "{reason}");
    let (operating, code, reason) = seen(&tree, &[BACKENDS[0]]);
    assert_eq!((operating, code), (Operating::Degraded, C::SomeBackendsDown), "{reason}");
    let (operating, code, reason) = seen(&tree, &BACKENDS);
    assert_eq!((operating, code), (Operating::Error, C::SomePoolsFailed));
    assert!(reason.starts_with("none of 2 pools serves: connections are refused; pool "), "{reason}");

    change::<Pool>(&mut tree, GREEN, |pool| pool.admin_state_up = false);
    assert_eq!(seen(&tree, &[]).0, Operating::Online, "what is switched off is not in trouble");
    divide(&mut tree, [90, 0]);
    assert_eq!(seen(&tree, &[BACKENDS[2]]).0, Operating::Online, "nor is what has no share");
    divide(&mut tree, [0, 10]);
    assert_eq!(seen(&tree, &[]).1, C::SwitchedOff);
}
