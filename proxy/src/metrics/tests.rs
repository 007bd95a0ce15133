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
    let mut registry = Registry::default();
    let report = NodeReport { listeners, served: served(id), ..Default::default() };
    registry.register_collector(Box::new(Names(report)));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let load_balancer = fixture::id(0);
    let expected = format!(
        "listener_info{{listener=\"{id}\",name=\"http \\\"x\\\"\",load_balancer=\"{load_balancer}\",\
         load_balancer_name=\"web\",project=\"shop\"}} 1"
    );
    assert_eq!(samples, [expected]);
}
