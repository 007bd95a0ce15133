//! What was typed for a resource, as values of its fields.

use std::time::Duration;

use clap::{ArgMatches, parser::ValueSource};
use fiberlb_proto::v1::AdditionalVip;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind as FieldKind, ReflectMessage as _, Value};

use crate::failure::Failure;
use crate::kinds::{Field, Kind, Shape};
use crate::schema::{Schema, field_at, internal, set_at};
use crate::value::parse_enum;

/// The flags that were typed for the fields of one resource.
#[derive(Debug, Default)]
pub(crate) struct Given {
    /// Dotted paths with the values to set.
    pub(crate) values: Vec<(String, Value)>,
    /// Paths that hold a reference to resolve, with its kind and what was typed.
    pub(crate) references: Vec<(&'static str, &'static Kind, String)>,
    /// Paths to reset.
    pub(crate) cleared: Vec<String>,
}

impl Given {
    /// All top-level fields that are touched, each once, in the order typed.
    pub(crate) fn mask(&self) -> Vec<String> {
        let paths = self.values.iter().map(|(path, _)| path.as_str());
        let paths = paths
            .chain(self.references.iter().map(|(path, ..)| *path))
            .chain(self.cleared.iter().map(String::as_str));
        let mut mask: Vec<String> = Vec::new();
        for top in paths.filter_map(|path| path.split('.').next()) {
            if !mask.iter().any(|known| known == top) {
                mask.push(top.to_owned());
            }
        }
        mask
    }

    /// Whether a part of a message is touched, so that the rest of it must be known before it can be written.
    pub(crate) fn touches_parts(&self) -> bool {
        self.values.iter().any(|(path, _)| path.contains('.'))
            || self.cleared.iter().any(|path| path.contains('.'))
    }
}

/// What was typed for the fields of `kind`.
pub(crate) fn given(kind: &'static Kind, schema: &Schema, matches: &ArgMatches) -> Result<Given, Failure> {
    let message = schema.message(kind.message)?;
    let mut given = Given::default();
    for field in kind.fields.iter().filter(|field| is_typed(matches, field.flag)) {
        let descriptor = field_at(&message, field.path).ok_or_else(|| internal(field.path))?;
        if let Shape::Reference(kind) = field.shape {
            given.references.push((field.path, kind, word(matches, field.flag).unwrap_or_default()));
        } else {
            given.values.push((field.path.to_owned(), value(field, &descriptor, schema, matches)?));
        }
    }
    if let Some(up) = admin_state(matches) {
        given.values.push(("admin_state_up".to_owned(), Value::Bool(up)));
    }
    for flag in words(matches, "clear") {
        given.cleared.push(cleared(
            kind,
            &message.fields().map(|field| field.name().to_owned()).collect::<Vec<_>>(),
            &flag,
        )?);
    }
    check_overlap(kind, &given)?;
    Ok(given)
}

/// What `--clear FLAG` resets: a whole message if it is called like the flag, else what the flag sets.
fn cleared(kind: &Kind, names: &[String], flag: &str) -> Result<String, Failure> {
    let snake = flag.replace('-', "_");
    if names.contains(&snake) {
        return Ok(snake);
    }
    let field = kind.fields.iter().find(|field| field.flag == flag).ok_or_else(|| internal(flag))?;
    Ok(field.path.to_owned())
}

/// Refuses to set and to reset the same thing.
fn check_overlap(kind: &Kind, given: &Given) -> Result<(), Failure> {
    let set = given
        .values
        .iter()
        .map(|(path, _)| path.as_str())
        .chain(given.references.iter().map(|(path, ..)| *path));
    for path in set {
        let inside = |cleared: &&String| path == **cleared || path.starts_with(&format!("{cleared}."));
        if given.cleared.iter().any(|cleared| inside(&cleared)) {
            let flag = kind.fields.iter().find(|field| field.path == path).map_or(path, |field| field.flag);
            return Err(Failure::usage(format!("--{flag} is given and cleared at the same time")));
        }
    }
    Ok(())
}

/// The administrative state, however it was typed.
fn admin_state(matches: &ArgMatches) -> Option<bool> {
    if matches.get_flag("enable") || matches.get_flag("disable") {
        return Some(matches.get_flag("enable"));
    }
    word(matches, "admin-state").map(|state| state.eq_ignore_ascii_case("up"))
}

/// The value typed for one field.
fn value(
    field: &Field,
    descriptor: &FieldDescriptor,
    schema: &Schema,
    matches: &ArgMatches,
) -> Result<Value, Failure> {
    match field.shape {
        Shape::Vip => {
            let vips = matches.get_many::<AdditionalVip>(field.flag).unwrap_or_default();
            vips.map(|vip| schema.dynamic("AdditionalVip", vip).map(Value::Message))
                .collect::<Result<_, _>>()
                .map(Value::List)
        }
        Shape::Switches => {
            let kind = descriptor.kind();
            let mut message =
                DynamicMessage::new(kind.as_message().cloned().ok_or_else(|| internal(field.path))?);
            for name in words(matches, field.flag) {
                set_at(&mut message, &name.to_ascii_lowercase().replace('-', "_"), Value::Bool(true))?;
            }
            Ok(Value::Message(message))
        }
        Shape::Plain | Shape::Reference(_) => typed(field.flag, descriptor, matches),
    }
}

/// The value typed for a field, as its type says.
fn typed(flag: &str, descriptor: &FieldDescriptor, matches: &ArgMatches) -> Result<Value, Failure> {
    let missing = || internal(flag);
    Ok(match descriptor.kind() {
        FieldKind::Bool => Value::Bool(*matches.get_one(flag).ok_or_else(missing)?),
        FieldKind::Uint32 => Value::U32(*matches.get_one(flag).ok_or_else(missing)?),
        FieldKind::Int32 => Value::I32(*matches.get_one(flag).ok_or_else(missing)?),
        FieldKind::Message(duration) => {
            let given: Duration = *matches.get_one(flag).ok_or_else(missing)?;
            duration_value(DynamicMessage::new(duration), given)?
        }
        FieldKind::Enum(enumeration) => {
            let numbers = words(matches, flag).into_iter().filter_map(|word| parse_enum(&enumeration, &word));
            one_or_list(descriptor, numbers.map(Value::EnumNumber)).ok_or_else(missing)?
        }
        _ => one_or_list(descriptor, words(matches, flag).into_iter().map(Value::String))
            .ok_or_else(missing)?,
    })
}

/// A `google.protobuf.Duration`.
pub(crate) fn duration_value(mut message: DynamicMessage, duration: Duration) -> Result<Value, Failure> {
    let duration = prost_types::Duration::try_from(duration).map_err(|error| internal(&error.to_string()))?;
    message.transcode_from(&duration).map_err(|error| internal(&error.to_string()))?;
    Ok(Value::Message(message))
}

/// All values for a list, the last one for a single field.
fn one_or_list(descriptor: &FieldDescriptor, values: impl Iterator<Item = Value>) -> Option<Value> {
    if descriptor.is_list() { Some(Value::List(values.collect())) } else { values.last() }
}

/// Sets the filters of a List request.
pub(crate) fn filters(request: &mut DynamicMessage, matches: &ArgMatches) -> Result<(), Failure> {
    if let Some(name) = word(matches, "name") {
        set_at(request, "name", Value::String(name))?;
    }
    let tags = words(matches, "tag").into_iter().map(Value::String).collect();
    set_at(request, "tags", Value::List(tags))?;
    if let Some(size) = matches.get_one("page-size").copied() {
        set_at(request, "page_size", Value::U32(size))?;
    }
    for (flag, field) in [("status", "provisioning_status"), ("operating-status", "operating_status")] {
        let kind = field_at(&request.descriptor(), field).ok_or_else(|| internal(field))?.kind();
        if let Some(number) = word(matches, flag).and_then(|word| parse_enum(kind.as_enum()?, &word)) {
            set_at(request, field, Value::EnumNumber(number))?;
        }
    }
    Ok(())
}

/// Whether a flag was typed, not left at its default.
fn is_typed(matches: &ArgMatches, flag: &str) -> bool {
    matches.try_contains_id(flag).is_ok() && matches.value_source(flag) == Some(ValueSource::CommandLine)
}

/// The text typed for a flag; `None` if there is none, or no such flag.
pub(crate) fn word(matches: &ArgMatches, flag: &str) -> Option<String> {
    words(matches, flag).pop()
}

/// All texts typed for a flag.
pub(crate) fn words(matches: &ArgMatches, flag: &str) -> Vec<String> {
    let found = matches.try_get_many::<String>(flag).ok().flatten();
    found.unwrap_or_default().cloned().collect()
}
