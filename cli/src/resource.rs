//! Resource of any kind, as the server sent it.

use fiberlb_proto::v1::ResourceState;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind as FieldKind, ReflectMessage as _, Value};

use crate::kinds::{BACKEND, HEALTH_CHECK, Kind, LISTENER};
use crate::schema::is_duration;
use crate::value::{show_duration, show_enum};

/// Resource with its kind.
#[derive(Clone, Debug)]
pub(crate) struct Resource {
    /// Kind.
    pub(crate) kind: &'static Kind,
    /// Message of the type `kind.message`.
    pub(crate) message: DynamicMessage,
}

impl Resource {
    /// Id.
    pub(crate) fn id(&self) -> String {
        self.show("id")
    }

    /// Name; empty if it has none.
    pub(crate) fn name(&self) -> String {
        self.show("name")
    }

    /// Id of the parent; `None` for a root.
    pub(crate) fn parent_id(&self) -> Option<String> {
        self.kind.parent.map(|parent| self.show(&parent.id_field()))
    }

    /// State; the default if the server sent none.
    pub(crate) fn state(&self) -> ResourceState {
        let state = self.message.get_field_by_name("state");
        state.and_then(|state| state.as_message()?.transcode_to().ok()).unwrap_or_default()
    }

    /// Name, or what tells it apart within its parent: of a listener `tcp:80` or `tcp:80-89`, of a backend the address and port, of a health check,
    /// which has no sibling, the type. `None` for others without a name.
    pub(crate) fn own(&self) -> Option<String> {
        let name = self.name();
        if !name.is_empty() {
            return Some(name);
        }
        let path = match self.kind.field {
            field if field == LISTENER.field => "protocol:port-port_end",
            field if field == BACKEND.field => "address:port",
            field if field == HEALTH_CHECK.field => "type",
            _ => return None,
        };
        Some(self.show(path).to_ascii_lowercase())
    }

    /// Description for people: the kind with what tells the resource apart, or else with the id.
    pub(crate) fn label(&self) -> String {
        format!("{} {}", self.kind.label, self.own().unwrap_or_else(|| self.id()))
    }

    /// Fields at `path`, for people: dotted; several paths are separated by ',', those of which the first that is set is shown by
    /// '|', an address and a port by ':', both ends of a range by '-'.
    pub(crate) fn show(&self, path: &str) -> String {
        let first = |path: &str| {
            path.split('|').map(|path| show_joined(&self.message, path)).find(|shown| !shown.is_empty())
        };
        path.split(',').filter_map(first).collect::<Vec<_>>().join(", ")
    }
}

/// Shows a path, or two of them joined by a colon, such as an address and a port.
fn show_joined(message: &DynamicMessage, path: &str) -> String {
    let Some((address, port)) = path.split_once(':') else { return show_range(message, path) };
    let (address, port) = (show_path(message, address), show_range(message, port));
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

/// Shows a path, or a range between two of them, as in `80-89`. One without a last number is its first.
fn show_range(message: &DynamicMessage, path: &str) -> String {
    let Some((first, last)) = path.split_once('-') else { return show_path(message, path) };
    let (first, last) = (show_path(message, first), show_path(message, last));
    if ["", "0", &first].contains(&last.as_str()) { first } else { format!("{first}-{last}") }
}

/// Shows the field at a dotted path. A path through a list shows each of its messages.
fn show_path(message: &DynamicMessage, path: &str) -> String {
    let (head, rest) = path.split_once('.').map_or((path, None), |(head, rest)| (head, Some(rest)));
    let Some(field) = message.descriptor().get_field_by_name(head) else { return String::new() };
    if field.supports_presence() && !message.has_field(&field) {
        return String::new();
    }
    let value = message.get_field(&field);
    let Some(rest) = rest else { return show_field(&field, &value) };
    match value.as_ref() {
        Value::Message(inner) => show_path(inner, rest),
        Value::List(values) => {
            let inner = values.iter().filter_map(Value::as_message).map(|inner| show_path(inner, rest));
            inner.collect::<Vec<_>>().join(", ")
        }
        _ => String::new(),
    }
}

/// Shows the value of a field.
pub(crate) fn show_field(field: &FieldDescriptor, value: &Value) -> String {
    let kind = field.kind();
    match value {
        Value::List(values) => {
            values.iter().map(|value| show_value(&kind, value)).collect::<Vec<_>>().join(", ")
        }
        value => show_value(&kind, value),
    }
}

/// Shows one value.
fn show_value(kind: &FieldKind, value: &Value) -> String {
    match value {
        Value::Bool(value) => if *value { "yes" } else { "no" }.to_owned(),
        Value::I32(value) => value.to_string(),
        Value::U32(value) => value.to_string(),
        Value::U64(value) => value.to_string(),
        Value::String(value) => value.clone(),
        Value::EnumNumber(number) => {
            kind.as_enum().map_or_else(|| number.to_string(), |enumeration| show_enum(enumeration, *number))
        }
        Value::Message(message) if is_duration(kind) => {
            let duration = message.transcode_to::<prost_types::Duration>().unwrap_or_default();
            duration.try_into().map_or_else(|_| "out of range".to_owned(), show_duration)
        }
        Value::Message(message) if message.descriptor().full_name() == "google.protobuf.Timestamp" => {
            message.transcode_to::<prost_types::Timestamp>().unwrap_or_default().to_string()
        }
        Value::Message(message) => show_message(message),
        _ => String::new(),
    }
}

/// Shows a message in one line: the fields that are set, with their names; a pool with a weight as in `blue=90`.
fn show_message(message: &DynamicMessage) -> String {
    if message.descriptor().name() == "WeightedPool" {
        return format!("{}={}", show_path(message, "pool_id"), show_path(message, "weight"));
    }
    let fields =
        message.fields().map(|(field, value)| format!("{}={}", field.name(), show_field(&field, value)));
    fields.collect::<Vec<_>>().join(" ")
}
