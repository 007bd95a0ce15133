//! Copies of everything, kept by watches.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures_util::StreamExt as _;
use serde_json::Value;

use crate::api::Api;
use crate::kinds::Kind;
use crate::shown::Shown;

/// A copy of everything, kept by a watch that is opened again whenever it breaks.
#[derive(Clone, Default)]
pub(crate) struct Mirror(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    resources: BTreeMap<String, (Kind, Value)>,
    is_synced: bool,
    /// Events that were wrong.
    faults: Vec<String>,
    /// Number of events.
    events: usize,
}

impl Mirror {
    /// Follows a plugin until the test ends.
    pub(crate) fn follow(api: Api) -> Self {
        let mirror = Self::default();
        let follower = mirror.clone();
        tokio::spawn(async move {
            loop {
                if let Ok(mut events) = api.watch().await {
                    let mut before = std::mem::take(&mut follower.0.lock().unwrap().resources);
                    follower.0.lock().unwrap().is_synced = false;
                    while let Some(event) = events.next().await {
                        follower.take(&event, &mut before);
                    }
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        });
        mirror
    }

    fn take(&self, event: &Value, before: &mut BTreeMap<String, (Kind, Value)>) {
        let mut state = self.0.lock().unwrap();
        state.events += 1;
        let named = Kind::ALL
            .into_iter()
            .find_map(|kind| Some((kind, event.get(kind.field()).filter(|it| !it.is_null())?)));
        let kind_of_event = event["type"].as_str().unwrap_or_default();
        let Some((kind, resource)) = named else {
            let is_first = !std::mem::replace(&mut state.is_synced, true);
            if kind_of_event != "TYPE_SYNCED" || !is_first {
                state.faults.push(format!("without a resource: {event}"));
            }
            return before.clear();
        };
        let shown = Shown::of(resource);
        let known = state.resources.get(&shown.id).map(|(_, resource)| Shown::of(resource));
        // Deleted and made again with its id while the watch was broken, it is another one.
        let earlier = || before.get(&shown.id).map(|(_, resource)| Shown::of(resource));
        let earlier = || earlier().filter(|earlier| earlier.created_at == shown.created_at);
        let is_known = known.is_some();
        let newest = known.or_else(earlier).map(|newest| newest.generation);
        let parent =
            kind.parent_field().map(|field| shown.spec[field].as_str().unwrap_or_default().to_owned());
        let has_parent = parent.is_none_or(|parent| state.resources.contains_key(&parent));
        let is_right = match kind_of_event {
            "TYPE_SNAPSHOT" => !state.is_synced && !is_known && has_parent,
            "TYPE_CREATED" => state.is_synced && !is_known && has_parent,
            "TYPE_UPDATED" => state.is_synced && is_known,
            "TYPE_DELETED" => {
                let is_child = |(kind, it): &(Kind, Value)| {
                    kind.parent_field().is_some_and(|field| it[field] == shown.id.as_str())
                };
                state.is_synced && is_known && !state.resources.values().any(is_child)
            }
            _ => false,
        };
        if !is_right || newest.is_some_and(|newest| shown.generation < newest) {
            state.faults.push(format!("not expected, generation before {newest:?}: {event}"));
        }
        if kind_of_event == "TYPE_DELETED" {
            state.resources.remove(&shown.id);
        } else {
            state.resources.insert(shown.id, (kind, resource.clone()));
        }
    }

    /// Resources of a kind, and what was wrong with events.
    ///
    /// # Errors
    /// The snapshot is not complete, or an event was wrong.
    pub(crate) fn resources(&self, of: Kind) -> Result<BTreeMap<String, Value>, String> {
        let state = self.0.lock().unwrap();
        if let Some(fault) = state.faults.first() {
            return Err(format!("an event of the watch is {fault}"));
        }
        if !state.is_synced {
            return Err("the watch is not synced".to_owned());
        }
        let all = state.resources.iter().filter(|(_, (kind, _))| *kind == of);
        Ok(all.map(|(id, (_, resource))| (id.clone(), resource.clone())).collect())
    }

    pub(crate) fn events(&self) -> usize {
        self.0.lock().unwrap().events
    }
}
