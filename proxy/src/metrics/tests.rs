use std::collections::HashMap;

use fiberlb_proto::agent::v1;

use super::*;
use crate::configuration::{Change, Configuration, Items, fixture};

/// A listener of a configuration, with names that need care.
pub(super) fn served(id: Uuid) -> Items<Listener> {
    let listener = v1::Listener {
        id: id.to_string(),
        name: "http \"x\"".to_owned(),
        load_balancer_name: "web".to_owned(),
        project_id: "shop".to_owned(),
        ..fixture::listener(1)
    };
    let update = v1::Update { listeners: vec![listener], ..v1::Update::default() };
    Configuration::default().changed(Change::try_from(update).unwrap()).listeners
}

/// A backend that is up.
pub(super) fn checked() -> BackendCheck {
    BackendCheck {
        backend: Uuid::from_u128(5),
        network: Uuid::from_u128(6),
        address: ([10, 0, 0, 11], 8080).into(),
        up: Some(true),
        took: Some(std::time::Duration::from_micros(1500)),
    }
}

/// Series of checked backends.
#[derive(Debug)]
struct Checked(Vec<BackendCheck>);

impl Collector for Checked {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        checked_backends(&mut encoder, &self.0)
    }
}

/// Samples of one collector.
fn samples(collector: impl Collector) -> Vec<String> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(collector));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
}

#[test]
fn a_backend_has_series_from_its_first_verdict_on() {
    let down = BackendCheck { backend: Uuid::from_u128(7), up: Some(false), ..checked() };
    let unknown = BackendCheck { up: None, took: None, ..checked() };
    let (network, first, second) = (Uuid::from_u128(6), Uuid::from_u128(5), down.backend);
    let up = |backend, up| {
        format!("backend_up{{backend=\"{backend}\",address=\"10.0.0.11:8080\",network=\"{network}\"}} {up}")
    };
    let took = |backend| format!("backend_probe_duration_seconds{{backend=\"{backend}\"}} 0.0015");
    let expected = [up(first, 1), up(second, 0), took(first), took(second)];
    assert_eq!(samples(Checked(vec![checked(), down, unknown])), expected);
}

/// Durations of one listener's connections.
#[derive(Debug)]
struct OneListener;

impl Collector for OneListener {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let listeners = [(Uuid::nil(), ListenerCounters::default())];
        by_listener(&mut encoder, ("d", "d", None), &listeners, |it| DurationHistogram(it.durations))
    }
}

#[test]
fn the_last_bucket_has_no_bound() {
    let samples = samples(OneListener);
    let last = samples.iter().rfind(|line| line.starts_with("d_bucket"));
    assert!(last.is_some_and(|line| line.contains("le=\"+Inf\"")), "quantiles need it: {samples:?}");
}

#[test]
fn series_are_bounded_and_are_of_the_first_listeners() {
    let listeners = (0..LISTENERS + 5).map(|n| (Uuid::from_u128(n as u128), ListenerCounters::default()));
    let report = NodeReport { listeners: listeners.collect(), ..NodeReport::default() };
    let series = bounded(&report);
    assert_eq!(series.len(), LISTENERS);
    assert_eq!(series.last().unwrap().0, Uuid::from_u128(LISTENERS as u128 - 1));
}

/// Information on the names of listeners.
#[derive(Debug)]
struct Names(NodeReport);

impl Collector for Names {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        info(&mut encoder, &bounded(&self.0), &self.0)
    }
}

#[test]
fn a_listener_is_named_with_its_load_balancer_while_it_is_served() {
    let (id, gone) = (Uuid::from_u128(7), Uuid::from_u128(8));
    let listeners: HashMap<_, _> = [id, gone].map(|id| (id, ListenerCounters::default())).into();
    let report = NodeReport { listeners, served: served(id), ..Default::default() };
    let load_balancer = fixture::id(0);
    let expected = format!(
        "listener_info{{listener=\"{id}\",name=\"http \\\"x\\\"\",load_balancer=\"{load_balancer}\",\
         load_balancer_name=\"web\",project=\"shop\"}} 1"
    );
    assert_eq!(samples(Names(report)), [expected]);
}
