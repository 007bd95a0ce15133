//! Compares `docs/metrics.md` with what this program exports.

use std::collections::BTreeSet;
use std::sync::Arc;

use fiberlb_daemon::listen::{Listeners, RefusedReason};
use fiberlb_pages::{Page, label_values, metric_faults};

use super::*;
use crate::catalog::{self, Model};
use crate::fleet::examples;
use crate::leadership::{self, Roles};
use fiberlb_store::MemoryStore;

/// A scrape of a leader, with a sample of each family.
async fn scrape() -> String {
    let fleet = Arc::new(examples::fleet(|_| {}).await);
    let roles = Roles::new(Arc::clone(&fleet));
    roles.lead(&fleet);
    let mut metrics = Metrics::new();
    let listeners = Listeners::default();
    listeners.register(metrics.registry());
    listeners.declare("api");
    catalog::register(metrics.registry(), Arc::new(Model::load(&MemoryStore::default()).await.unwrap()));
    leadership::register(metrics.registry(), Arc::new(roles));
    metrics.transaction(OUTCOMES[0], 1, Duration::from_millis(1));
    metrics.write(Kind::LoadBalancer.words(), OPERATIONS[0], "OK");
    metrics.encode().unwrap()
}

#[tokio::test]
async fn each_metric_is_there_with_type_labels_unit_and_help() {
    let page = Page::read("metrics.md").unwrap().below("fiberlb-plugin").unwrap();
    let faults = metric_faults(&page, &scrape().await, "fiberlb_", "fiberlb_proxy_");
    assert_eq!(faults, Vec::<String>::new());
}

#[tokio::test]
async fn no_other_metric_is_named_anywhere() {
    let whole = Page::read("metrics.md").unwrap();
    let scrape = scrape().await;
    let faults = metric_faults(&whole, &scrape, "fiberlb_", "fiberlb_proxy_");
    let named: Vec<&String> = faults.iter().filter(|fault| fault.contains("is not exported")).collect();
    assert_eq!(named, Vec::<&String>::new());
}

#[test]
fn labels_are_there_with_all_their_values() {
    let page = Page::read("metrics.md").unwrap().below("fiberlb-plugin").unwrap();
    let set = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(label_values(&page, "outcome"), Some(set(&OUTCOMES)));
    assert_eq!(label_values(&page, "resource"), Some(set(&resources().collect::<Vec<_>>())));
    assert_eq!(label_values(&page, "operation"), Some(set(&OPERATIONS)));
    assert_eq!(label_values(&page, "reason"), Some(set(&RefusedReason::ALL.map(RefusedReason::as_str))));
}

#[test]
fn what_was_not_sent_took_no_time() {
    let metrics = Metrics::new();
    for outcome in OUTCOMES {
        metrics.transaction(outcome, 1, Duration::from_millis(1));
    }
    let text = metrics.encode().unwrap();
    assert!(text.contains("fiberlb_northbound_transaction_duration_seconds_count 4\n"), "{text}");
}
