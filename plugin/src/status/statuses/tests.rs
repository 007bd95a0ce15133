use std::collections::BTreeMap;

use super::super::{Carried, Liveness, PlacedNode, Proxied};
use super::*;
use crate::datapath::Carrier;
use crate::resources::examples::{BACKENDS, CHECK, LISTENER, POOL, change, tree};
use crate::resources::{InTree as _, Kind, of_kind};

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
    assert_eq!(seen(&moved), (Provisioning::PendingUpdate, 1, StatusCode::NoProxy));
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
    assert_eq!(seen(&served), (Provisioning::Active, 2, StatusCode::SwitchedOff));
    let died = later(nobody, &wanted, &served);
    assert_eq!(seen(&died), (Provisioning::Active, 2, StatusCode::SwitchedOff));
    let refused = Carried { refused: [(LISTENER, "no".to_owned())].into(), ..Carried::default() };
    assert_eq!(seen(&later(refused, &wanted, &died)), (Provisioning::Error, 2, StatusCode::Refused));
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
