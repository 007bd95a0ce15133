//! Events of the watch, whatever kind of resource they carry.

use fiberlb_proto::v1::watch_event::{Resource as Carried, Type};
use fiberlb_proto::v1::{ResourceState, WatchEvent};

use crate::failure::Failure;
use crate::kinds::{BACKEND, HEALTH_CHECK, Kind, LISTENER, LOAD_BALANCER, POOL};
use crate::resource::Resource;
use crate::schema::Schema;

/// Resource of an event.
pub(crate) struct EventResource<'a> {
    /// Kind of the resource.
    pub(crate) kind: &'static Kind,
    /// Id of the resource.
    pub(crate) id: &'a str,
    /// State of the resource; `None` if the server sent none.
    pub(crate) state: Option<&'a ResourceState>,
}

/// Resource of an event; `None` if it carries none.
pub(crate) fn event_resource(event: &WatchEvent) -> Option<EventResource<'_>> {
    let (kind, id, state) = match event.resource.as_ref()? {
        Carried::LoadBalancer(it) => (&LOAD_BALANCER, &it.id, &it.state),
        Carried::Listener(it) => (&LISTENER, &it.id, &it.state),
        Carried::Pool(it) => (&POOL, &it.id, &it.state),
        Carried::Backend(it) => (&BACKEND, &it.id, &it.state),
        Carried::HealthCheck(it) => (&HEALTH_CHECK, &it.id, &it.state),
    };
    Some(EventResource { kind, id, state: state.as_ref() })
}

/// Resource of an event, for display; `None` if it carries none.
pub(crate) fn resource(schema: &Schema, event: &WatchEvent) -> Result<Option<Resource>, Failure> {
    let Some(EventResource { kind, .. }) = event_resource(event) else { return Ok(None) };
    let message = schema.dynamic("WatchEvent", event)?;
    let carried = message.get_field_by_name(kind.field).and_then(|value| value.as_message().cloned());
    Ok(carried.map(|message| Resource { kind, message }))
}

/// Name of an event type, for people.
pub(crate) fn type_name(kind: Type) -> &'static str {
    match kind {
        Type::Unspecified => "UNKNOWN",
        Type::Snapshot => "SNAPSHOT",
        Type::Synced => "SYNCED",
        Type::Created => "CREATED",
        Type::Updated => "UPDATED",
        Type::Deleted => "DELETED",
    }
}
