//! Conversion of a parsed document to a message, by the message's descriptor. Collects all errors.

use prost_reflect::{
    DynamicMessage, EnumDescriptor, FieldDescriptor, Kind as FieldKind, MessageDescriptor, Value,
};
use serde_json::{Map, Value as Json};

use super::nearest::nearest;
use crate::args::duration_value;
use crate::kinds::OUTPUT_ONLY;
use crate::schema::is_duration;
use crate::value::{choices, parse_duration, parse_enum};

/// Converts a mapping to a message.
///
/// # Errors
/// All errors, a line each, with their paths.
pub(super) fn message(
    descriptor: &MessageDescriptor,
    object: &Map<String, Json>,
) -> Result<DynamicMessage, Vec<String>> {
    let mut errors = Vec::new();
    let converted = mapping(descriptor, object, "", &mut errors);
    if errors.is_empty() { Ok(converted) } else { Err(errors) }
}

/// Fields that a mapping names, by their names in the API, without output-only ones.
pub(super) fn named_fields(descriptor: &MessageDescriptor, object: &Map<String, Json>) -> Vec<String> {
    let fields = object.keys().filter_map(|key| field(descriptor, key));
    fields.map(|field| field.name().to_owned()).filter(|name| !OUTPUT_ONLY.contains(&name.as_str())).collect()
}

/// Finds a field by either spelling of its name.
fn field(descriptor: &MessageDescriptor, key: &str) -> Option<FieldDescriptor> {
    descriptor.get_field_by_name(key).or_else(|| descriptor.get_field_by_json_name(key))
}

fn mapping(
    descriptor: &MessageDescriptor,
    object: &Map<String, Json>,
    path: &str,
    errors: &mut Vec<String>,
) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    for (key, json) in object {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let Some(field) = field(descriptor, key) else {
            errors.push(format!("{path}: unknown key{}", hint(descriptor, key)));
            continue;
        };
        // Output-only fields are ignored, so that printed output can be applied.
        if OUTPUT_ONLY.contains(&field.name()) || json.is_null() {
            continue;
        }
        if message.has_field(&field) {
            errors.push(format!("{path}: occurs twice, in both spellings"));
        }
        if let Some(value) = list_or_one(&field, json, &path, errors)
            && let Err(error) = message.try_set_field(&field, value)
        {
            errors.push(format!("{path}: {error}"));
        }
    }
    message
}

/// Suggestion for an unknown key, or the known keys.
fn hint(descriptor: &MessageDescriptor, key: &str) -> String {
    let fields: Vec<FieldDescriptor> = descriptor.fields().collect();
    let names = || fields.iter().map(FieldDescriptor::name).filter(|name| !OUTPUT_ONLY.contains(name));
    match nearest(key, names()) {
        Some(name) => format!("; did you mean {name}?"),
        None => format!("; known keys are {}", names().collect::<Vec<_>>().join(", ")),
    }
}

fn list_or_one(field: &FieldDescriptor, json: &Json, path: &str, errors: &mut Vec<String>) -> Option<Value> {
    if !field.is_list() {
        return one(&field.kind(), json, path, errors);
    }
    let Json::Array(elements) = json else {
        errors.push(format!("{path}: must be a list, not {}", shown(json)));
        return None;
    };
    let elements = elements.iter().enumerate();
    let values = elements.filter_map(|(at, json)| one(&field.kind(), json, &format!("{path}[{at}]"), errors));
    Some(Value::List(values.collect()))
}

fn one(kind: &FieldKind, json: &Json, path: &str, errors: &mut Vec<String>) -> Option<Value> {
    let converted = match kind {
        FieldKind::Message(_) if is_duration(kind) => duration(kind, json),
        FieldKind::Message(descriptor) => match json {
            Json::Object(object) => return Some(Value::Message(mapping(descriptor, object, path, errors))),
            _ => Err(format!("must be a mapping, not {}", shown(json))),
        },
        FieldKind::Enum(enumeration) => enum_value(enumeration, json),
        kind => scalar(kind, json),
    };
    converted.map_err(|why| errors.push(format!("{path}: {why}"))).ok()
}

fn duration(kind: &FieldKind, json: &Json) -> Result<Value, String> {
    let must = || format!("must be a duration such as 5s or 500ms, not {}", shown(json));
    let descriptor = kind.as_message().cloned().ok_or_else(must)?;
    let duration = parse_duration(json.as_str().ok_or_else(must)?)?;
    duration_value(DynamicMessage::new(descriptor), duration).map_err(|failure| failure.lines.join("; "))
}

fn enum_value(enumeration: &EnumDescriptor, json: &Json) -> Result<Value, String> {
    let known = || choices(enumeration).join(", ");
    let text = json.as_str().ok_or_else(|| format!("must be one of {}, not {}", known(), shown(json)))?;
    let number =
        parse_enum(enumeration, text).ok_or_else(|| format!("{text:?} is not one of {}", known()))?;
    Ok(Value::EnumNumber(number))
}

fn scalar(kind: &FieldKind, json: &Json) -> Result<Value, String> {
    let whole = |range: &str| format!("must be a whole number {range}, not {}", shown(json));
    match kind {
        FieldKind::String => match json {
            Json::String(text) => Ok(Value::String(text.clone())),
            Json::Number(_) | Json::Bool(_) => {
                Err(format!("must be text, not {}; put it in quotes", shown(json)))
            }
            json => Err(format!("must be text, not {}", shown(json))),
        },
        FieldKind::Bool => json
            .as_bool()
            .map(Value::Bool)
            .ok_or_else(|| format!("must be true or false, not {}", shown(json))),
        FieldKind::Uint32 => {
            let number = json.as_u64().and_then(|number| u32::try_from(number).ok());
            number.map(Value::U32).ok_or_else(|| whole("of at least 0"))
        }
        FieldKind::Uint64 => {
            // Numbers of 64 bits are text in canonical JSON.
            let number = json.as_u64().or_else(|| json.as_str()?.parse().ok());
            number.map(Value::U64).ok_or_else(|| whole("of at least 0"))
        }
        FieldKind::Int32 => {
            let number = json.as_i64().and_then(|number| i32::try_from(number).ok());
            number.map(Value::I32).ok_or_else(|| whole("of at most 32 bits"))
        }
        kind => Err(format!("this program cannot set a field of type {kind:?}")),
    }
}

/// Description of a value, for error messages.
fn shown(json: &Json) -> String {
    match json {
        Json::Object(_) => "a mapping".to_owned(),
        Json::Array(_) => "a list".to_owned(),
        Json::Null => "nothing".to_owned(),
        json => json.to_string(),
    }
}
