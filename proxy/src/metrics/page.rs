//! `docs/metrics.md` says what this program exports.

use fiberlb_pages::{Page, metric_faults};

use super::*;
use crate::health;

/// A scrape of an agent with one listener, so that each family has a sample.
fn scrape() -> String {
    let counters = HashMap::from([(Uuid::from_u128(1), ListenerCounters::default())]);
    let sources = Sources {
        link: watch::Sender::new(Status::Disconnected { reason: String::new() }).subscribe(),
        networks: watch::Sender::new(State::default()).subscribe(),
        disk: watch::Sender::new(Written::default()).subscribe(),
        health: Arc::new(HealthChecker::start(health::Config::default(), |_| {}).unwrap()),
        counters: Arc::new(std::sync::Mutex::new(counters)),
    };
    let listeners = Listeners::default();
    listeners.declare("metrics");
    Metrics::new(sources, &listeners).encode().unwrap()
}

#[test]
fn each_metric_is_there_with_type_labels_unit_and_help() {
    let page = Page::read("metrics.md").unwrap().below("fiberlb-proxy").unwrap();
    assert_eq!(metric_faults(&page, &scrape(), "fiberlb_proxy_", ""), Vec::<String>::new());
}

#[test]
fn no_other_metric_is_named_anywhere() {
    let whole = Page::read("metrics.md").unwrap();
    let faults = metric_faults(&whole, &scrape(), "fiberlb_proxy_", "");
    let named: Vec<&String> = faults.iter().filter(|fault| fault.contains("is not exported")).collect();
    assert_eq!(named, Vec::<&String>::new());
}
