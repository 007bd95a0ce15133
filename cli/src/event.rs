//! Events of the watch, seen as one kind of thing whatever resource they carry.

use fiberlb_proto::v1::watch_event::{Resource as Carried, Type};
use fiberlb_proto::v1::{ResourceState, WatchEvent};

use crate::failure::Failure;
use crate::kinds::{BACKEND, HEALTH_CHECK, Kind, LISTENER, LOAD_BALANCER, POOL};
use crate::resource::Resource;
use crate::schema::Schema;

/// What an event carries.
pub(crate) struct Seen<'a> {
    /// What kind of resource.
    pub(crate) kind: &'static Kind,
    /// Its id.
    pub(crate) id: &'a str,
    /// What the server says of it; `None` if it says nothing.
    pub(crate) state: Option<&'a ResourceState>,
}

/// The resource that an event carries; `None` if it carries none.
pub(crate) fn seen(event: &WatchEvent) -> Option<Seen<'_>> {
    let (kind, id, state) = match event.resource.as_ref()? {
        Carried::LoadBalancer(it) => (&LOAD_BALANCER, &it.id, &it.state),
        Carried::Listener(it) => (&LISTENER, &it.id, &it.state),
        Carried::Pool(it) => (&POOL, &it.id, &it.state),
        Carried::Backend(it) => (&BACKEND, &it.id, &it.state),
        Carried::HealthCheck(it) => (&HEALTH_CHECK, &it.id, &it.state),
    };
    Some(Seen { kind, id, state: state.as_ref() })
}

/// The resource that an event carries, for showing it; `None` if it carries none.
pub(crate) fn resource(schema: &Schema, event: &WatchEvent) -> Result<Option<Resource>, Failure> {
    let Some(Seen { kind, .. }) = seen(event) else { return Ok(None) };
    let message = schema.dynamic("WatchEvent", event)?;
    let carried = message.get_field_by_name(kind.field).and_then(|value| value.as_message().cloned());
    Ok(carried.map(|message| Resource { kind, message }))
}

/// What kind of event it is, for a person.
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
