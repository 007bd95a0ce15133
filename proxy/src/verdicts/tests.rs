use std::time::{Duration, SystemTime};

use super::*;
use crate::configuration::Change;
use crate::configuration::fixture::{backend, id, pool};
use crate::health::Check;

fn configuration(backends: Vec<v1::Backend>) -> Configuration {
    let update = v1::Update { pools: vec![pool(1, backends)], ..v1::Update::default() };
    Configuration::default().changed(Change::try_from(update).unwrap())
}

fn on_probation(number: u8) -> v1::Backend {
    v1::Backend { probation: true, ..backend(number) }
}

/// A verdict on a backend of a configuration, as the health checker gives it.
fn verdict(configuration: &Configuration, number: u8, up: bool) -> Verdict {
    let pool = &configuration.pools[&id(1)].value;
    let (backend, check) = pool.checked().find(|(backend, _)| backend.id == id(number)).unwrap();
    let check: &Arc<Check> = check;
    Verdict {
        key: TargetKey { network: pool.network, address: backend.monitor_address, check: Arc::clone(check) },
        backends: vec![backend.id],
        up,
        reason: "connection refused".to_owned(),
        at: SystemTime::UNIX_EPOCH + Duration::from_millis(5),
        sequence: 1,
    }
}

fn empty() -> Verdicts {
    Verdicts::new(Rotation::default(), HashMap::new())
}

#[test]
fn a_flip_reaches_the_rotation_at_once_and_the_plugin_once() {
    let (verdicts, configuration) = (empty(), configuration(vec![backend(2)]));
    let rotation = verdicts.lock().rotation.clone();
    verdicts.set_configuration(&configuration);
    assert!(verdicts.in_rotation(id(2)), "unknown counts as up");
    let mut changes = verdicts.changes();
    assert!(verdicts.report(&verdict(&configuration, 2, false)));
    assert_eq!(rotation.health(id(2)), Some(false));
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    let unsent = verdicts.take_unsent();
    assert_eq!(
        (unsent[0].backend_id.clone(), unsent[0].up, unsent[0].since_ms),
        (id(2).to_string(), false, 5)
    );
    assert!(verdicts.take_unsent().is_empty());
    assert!(!verdicts.report(&verdict(&configuration, 2, false)), "the same is no news");
    assert!(!changes.has_changed().unwrap());
    assert_eq!(verdicts.take_all().len(), 1);
}

#[test]
fn probation_ends_with_the_first_good_probe() {
    let (verdicts, configuration) = (empty(), configuration(vec![on_probation(2)]));
    verdicts.set_configuration(&configuration);
    assert!(!verdicts.in_rotation(id(2)));
    assert_eq!(verdicts.to_store().1, BTreeSet::from([id(2)]));
    verdicts.report(&verdict(&configuration, 2, true));
    assert!(verdicts.in_rotation(id(2)));
    assert_eq!(verdicts.to_store(), (HashMap::new(), BTreeSet::new()));
}

#[test]
fn late_verdicts_and_those_on_strangers_are_dropped() {
    let (verdicts, before) = (empty(), configuration(vec![backend(2), backend(3)]));
    verdicts.set_configuration(&before);
    let moved = v1::Backend { monitor_address: "10.0.1.2:82".to_owned(), ..backend(2) };
    verdicts.set_configuration(&configuration(vec![moved]));
    assert!(!verdicts.report(&verdict(&before, 2, false)), "of its address before");
    assert!(!verdicts.report(&verdict(&before, 3, false)), "of a backend that has gone");
    assert!(verdicts.take_all().is_empty());
}

#[test]
fn a_verdict_outlives_a_change_of_its_check_and_goes_with_it() {
    let (verdicts, before) = (empty(), configuration(vec![backend(2)]));
    let rotation = verdicts.lock().rotation.clone();
    verdicts.set_configuration(&before);
    verdicts.report(&verdict(&before, 2, false));
    let moved = v1::Backend { monitor_address: "10.0.1.2:82".to_owned(), ..backend(2) };
    verdicts.set_configuration(&configuration(vec![moved]));
    assert!(!verdicts.in_rotation(id(2)), "a newer verdict may free it");
    verdicts.set_configuration(&configuration(vec![v1::Backend { enabled: false, ..backend(2) }]));
    assert!(verdicts.in_rotation(id(2)), "not checked");
    assert_eq!(rotation.health(id(2)), Some(true));
    assert!(verdicts.take_all().is_empty() && verdicts.take_unsent().is_empty());
}

#[test]
fn what_the_disk_remembers_counts_from_the_start() {
    let known = KnownVerdict { up: false, reason: "gone".to_owned(), since_ms: 3 };
    let remembered = HashMap::from([(id(2), known.clone()), (id(9), known.clone())]);
    let verdicts = Verdicts::new(Rotation::default(), remembered);
    verdicts.set_configuration(&configuration(vec![backend(2), backend(3)]));
    assert!(!verdicts.in_rotation(id(2)) && verdicts.in_rotation(id(3)));
    assert_eq!(verdicts.take_all().iter().map(|it| it.since_ms).collect::<Vec<_>>(), [3]);
    assert_eq!(verdicts.to_store().0, HashMap::from([(id(2), known)]));
    // A backend that comes later begins anew.
    verdicts.set_configuration(&configuration(vec![backend(9)]));
    assert!(verdicts.in_rotation(id(9)));
}
