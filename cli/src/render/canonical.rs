//! Canonical JSON mapping of protocol buffers with the field names of the `.proto` files, as JSON or as YAML, which `apply` reads.

use prost_reflect::{DynamicMessage, SerializeOptions};
use serde::{Serialize, Serializer};
use serde_json_path::JsonPath;

use super::escape::{clean, clean_json, is_clean};
use crate::args::Format;
use crate::failure::Failure;
use crate::schema::internal;

/// Message that is serialised in the canonical mapping, with or without the fields that have no value.
struct Canonical<'a> {
    message: &'a DynamicMessage,
    with_empty: bool,
}

impl Serialize for Canonical<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let options =
            SerializeOptions::new().use_proto_field_name(true).skip_default_fields(!self.with_empty);
        self.message.serialize_with_options(serializer, &options)
    }
}

/// Formats one message, as YAML unless `format` is JSON. Ends with a newline.
pub(crate) fn one(message: &DynamicMessage, format: &Format) -> Result<String, Failure> {
    write(&Canonical { message, with_empty: false }, format)
}

/// Formats one message with the fields that have no value, so that programs find an empty list.
pub(crate) fn whole(message: &DynamicMessage, format: &Format) -> Result<String, Failure> {
    write(&Canonical { message, with_empty: true }, format)
}

/// Formats a sequence of messages.
pub(crate) fn several(messages: &[&DynamicMessage], format: &Format) -> Result<String, Failure> {
    let all: Vec<_> = messages.iter().map(|message| Canonical { message, with_empty: false }).collect();
    write(&all, format)
}

/// Formats one message of a stream: a line of JSON, or a YAML document.
pub(crate) fn streamed(message: &DynamicMessage, format: &Format) -> Result<String, Failure> {
    if let Format::JsonPath(_) = format {
        return one(message, format);
    }
    if *format == Format::Json {
        let json = serde_json::to_string(&Canonical { message, with_empty: false })
            .map_err(|error| internal(&error.to_string()))?;
        return Ok(format!("{}\n", clean_json(&json)));
    }
    Ok(format!("---\n{}", one(message, format)?))
}

/// Serialises a value. YAML leaves some control characters as they are: text with such is written as JSON, which is YAML.
pub(crate) fn write<T: Serialize>(value: &T, format: &Format) -> Result<String, Failure> {
    if let Format::JsonPath(path) = format {
        return selected(&serde_json::to_value(value).map_err(|error| internal(&error.to_string()))?, path);
    }
    if *format != Format::Json {
        let yaml = serde_saphyr::to_string(value).map_err(|error| internal(&error.to_string()))?;
        if is_clean(&yaml) {
            return Ok(format!("{}\n", yaml.trim_end_matches('\n')));
        }
    }
    let json = serde_json::to_string_pretty(value).map_err(|error| internal(&error.to_string()))?;
    Ok(format!("{}\n", clean_json(&json)))
}

/// Values that a JSONPath selects, a line each; text without quotes.
fn selected(value: &serde_json::Value, path: &str) -> Result<String, Failure> {
    let path = JsonPath::parse(path).map_err(|error| internal(&error.to_string()))?;
    let line = |found: &serde_json::Value| match found {
        serde_json::Value::String(text) => clean(text).into_owned(),
        other => clean_json(&other.to_string()),
    };
    Ok(path.query(value).all().into_iter().map(|found| line(found) + "\n").collect())
}
