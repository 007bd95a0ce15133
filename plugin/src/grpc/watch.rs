//! The stream of a watch.

use std::pin::Pin;

use fiberlb_proto::v1;
use fiberlb_proto::v1::watch_event::Type;
use futures_util::{Stream, stream};
use tonic::Status;

use super::wire::{KindMessage as _, Wire};
use crate::api::{AnyObserved, WatchChange, WatchEvent, WatchEvents};
use crate::resources::with_kinds;
use crate::wire::status;

/// The events of one watch.
pub(super) type EventStream = Pin<Box<dyn Stream<Item = Result<v1::WatchEvent, Status>> + Send>>;

/// Stream of a watch's events.
pub(super) fn event_stream(events: WatchEvents) -> EventStream {
    Box::pin(stream::unfold(events, async |mut events| {
        let event = events.next().await?;
        Some((event.map(|event| rendered(&event)).map_err(status), events))
    }))
}

fn rendered(event: &WatchEvent) -> v1::WatchEvent {
    let change = match event.change {
        WatchChange::Snapshot => Type::Snapshot,
        WatchChange::Synced => Type::Synced,
        WatchChange::Created => Type::Created,
        WatchChange::Updated => Type::Updated,
        WatchChange::Deleted => Type::Deleted,
    };
    v1::WatchEvent { r#type: change.into(), resource: event.resource.as_ref().map(resource) }
}

/// Declares the rendering of the sum of all kinds.
macro_rules! rendered_of {
    ($($kind:ident),*) => {
        fn resource(observed: &AnyObserved) -> v1::watch_event::Resource {
            match observed {
                $(AnyObserved::$kind(observed) => <v1::$kind as Wire>::rendered(observed).event(),)*
            }
        }
    };
}
with_kinds!(rendered_of);
