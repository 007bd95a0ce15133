//! Values of a resource's flags, as values of its fields.

use std::time::Duration;

use clap::{ArgMatches, parser::ValueSource};
use fiberlb_proto::v1::{AdditionalVip, WeightedPool};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind as FieldKind, ReflectMessage as _, Value};

use crate::failure::Failure;
use crate::kinds::{Field, Kind, Shape};
use crate::schema::{Schema, field_at, internal, set_at};
use crate::value::parse_enum;

/// Changes of fields that the flags request.
#[derive(Debug, Default)]
pub(crate) struct FieldChanges {
    /// Dotted paths with the values to set.
    pub(crate) values: Vec<(String, Value)>,
    /// Paths of references, with the kind and the name to resolve.
    pub(crate) references: Vec<(&'static str, &'static Kind, String)>,
    /// Paths of lists of weighted references, with the kind and the names to resolve.
    pub(crate) weighted: Vec<(&'static str, &'static Kind, Vec<WeightedPool>)>,
    /// Paths to reset.
    pub(crate) cleared: Vec<String>,
    /// Paths that others are in place of: to reset where they are set.
    pub(crate) replaced: Vec<&'static str>,
}

impl FieldChanges {
    /// Top-level fields of all changes, each once.
    pub(crate) fn mask(&self) -> Vec<String> {
        let paths = self.values.iter().map(|(path, _)| path.as_str());
        let paths = paths
            .chain(self.references.iter().map(|(path, ..)| *path))
            .chain(self.weighted.iter().map(|(path, ..)| *path))
            .chain(self.cleared.iter().map(String::as_str));
        let mut mask: Vec<String> = Vec::new();
        for top in paths.filter_map(|path| path.split('.').next()) {
            if !mask.iter().any(|known| known == top) {
                mask.push(top.to_owned());
            }
        }
        mask
    }

    /// True if something is named that only the resource's parent tells.
    pub(crate) fn has_references(&self) -> bool {
        !self.references.is_empty() || !self.weighted.is_empty()
    }

    /// True if a part of a message changes, so that the rest of the message must be read before it is written.
    pub(crate) fn touches_parts(&self) -> bool {
        self.values.iter().any(|(path, _)| path.contains('.'))
            || self.cleared.iter().any(|path| path.contains('.'))
    }
}

/// Changes that the flags request for a resource of `kind`.
pub(crate) fn field_changes(
    kind: &'static Kind,
    schema: &Schema,
    matches: &ArgMatches,
) -> Result<FieldChanges, Failure> {
    let message = schema.message(kind.message)?;
    let mut changes = FieldChanges::default();
    for field in kind.fields.iter().filter(|field| is_present(matches, field.flag)) {
        let descriptor = field_at(&message, field.path).ok_or_else(|| internal(field.path))?;
        match field.shape {
            Shape::Reference(kind) => {
                changes.references.push((field.path, kind, word(matches, field.flag).unwrap_or_default()));
            }
            Shape::Weighted(kind) => {
                let pools = matches.get_many::<WeightedPool>(field.flag).unwrap_or_default();
                changes.weighted.push((field.path, kind, pools.cloned().collect()));
            }
            _ => changes.values.push((field.path.to_owned(), value(field, &descriptor, schema, matches)?)),
        }
        changes.replaced.extend(Some(field.in_place_of).filter(|path| !path.is_empty()));
    }
    if let Some(up) = admin_state(matches) {
        changes.values.push(("admin_state_up".to_owned(), Value::Bool(up)));
    }
    for flag in words(matches, "clear") {
        changes.cleared.push(cleared(
            kind,
            &message.fields().map(|field| field.name().to_owned()).collect::<Vec<_>>(),
            &flag,
        )?);
    }
    check_overlap(kind, &changes)?;
    Ok(changes)
}

/// Path that `--clear FLAG` resets: the message named like the flag, or else the field that the flag sets.
fn cleared(kind: &Kind, names: &[String], flag: &str) -> Result<String, Failure> {
    let snake = flag.replace('-', "_");
    if names.contains(&snake) {
        return Ok(snake);
    }
    let field = kind.fields.iter().find(|field| field.flag == flag).ok_or_else(|| internal(flag))?;
    Ok(field.path.to_owned())
}

/// Refuses to set and to reset the same field.
fn check_overlap(kind: &Kind, changes: &FieldChanges) -> Result<(), Failure> {
    let set = changes
        .values
        .iter()
        .map(|(path, _)| path.as_str())
        .chain(changes.references.iter().map(|(path, ..)| *path))
        .chain(changes.weighted.iter().map(|(path, ..)| *path));
    for path in set {
        let inside = |cleared: &&String| path == **cleared || path.starts_with(&format!("{cleared}."));
        if changes.cleared.iter().any(|cleared| inside(&cleared)) {
            let flag = kind.fields.iter().find(|field| field.path == path).map_or(path, |field| field.flag);
            return Err(Failure::usage(format!("--{flag} cannot be set and cleared at the same time")));
        }
    }
    Ok(())
}

/// Administrative state, by any of its flags.
fn admin_state(matches: &ArgMatches) -> Option<bool> {
    if matches.get_flag("enable") || matches.get_flag("disable") {
        return Some(matches.get_flag("enable"));
    }
    word(matches, "admin-state").map(|state| state.eq_ignore_ascii_case("up"))
}

/// Value of one field's flag.
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
        Shape::Plain | Shape::Reference(_) | Shape::Weighted(_) => typed(field.flag, descriptor, matches),
    }
}

/// Value of a flag, by the type of its field.
fn typed(flag: &str, descriptor: &FieldDescriptor, matches: &ArgMatches) -> Result<Value, Failure> {
    let missing = || internal(flag);
    Ok(match descriptor.kind() {
        FieldKind::Bool => Value::Bool(*matches.get_one(flag).ok_or_else(missing)?),
        FieldKind::Uint32 => Value::U32(*matches.get_one(flag).ok_or_else(missing)?),
        FieldKind::Uint64 => Value::U64(*matches.get_one(flag).ok_or_else(missing)?),
        FieldKind::Int32 => Value::I32(*matches.get_one(flag).ok_or_else(missing)?),
        FieldKind::Message(duration) => {
            let value: Duration = *matches.get_one(flag).ok_or_else(missing)?;
            duration_value(DynamicMessage::new(duration), value)?
        }
        FieldKind::Enum(enumeration) => {
            let numbers = words(matches, flag).into_iter().filter_map(|word| parse_enum(&enumeration, &word));
            one_or_list(descriptor, numbers.map(Value::EnumNumber)).ok_or_else(missing)?
        }
        _ => one_or_list(descriptor, words(matches, flag).into_iter().map(Value::String))
            .ok_or_else(missing)?,
    })
}

/// Converts a duration to a `google.protobuf.Duration`.
pub(crate) fn duration_value(mut message: DynamicMessage, duration: Duration) -> Result<Value, Failure> {
    let duration = prost_types::Duration::try_from(duration).map_err(|error| internal(&error.to_string()))?;
    message.transcode_from(&duration).map_err(|error| internal(&error.to_string()))?;
    Ok(Value::Message(message))
}

/// All values of a list, or the last value of a single field.
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

/// True if a flag is on the command line.
fn is_present(matches: &ArgMatches, flag: &str) -> bool {
    matches.try_contains_id(flag).is_ok() && matches.value_source(flag) == Some(ValueSource::CommandLine)
}

/// Last text of a flag; `None` if it is absent.
pub(crate) fn word(matches: &ArgMatches, flag: &str) -> Option<String> {
    words(matches, flag).pop()
}

/// All texts of a flag.
pub(crate) fn words(matches: &ArgMatches, flag: &str) -> Vec<String> {
    let found = matches.try_get_many::<String>(flag).ok().flatten();
    found.unwrap_or_default().cloned().collect()
}
