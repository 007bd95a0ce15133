//! Converts resources of the wire to checked ones. Every violation is recorded with its field path; a value
//! that is returned with violations is a placeholder that must not be used.

mod backend;
mod health_check;
mod listener;
mod load_balancer;
mod pool;

use std::collections::BTreeSet;
use std::fmt::Display;

use uuid::Uuid;

pub(super) use backend::backend;
pub(super) use health_check::health_check;
pub(super) use listener::listener;
pub(super) use load_balancer::{Addresses, addresses, owner};
pub(super) use pool::pool;

use super::limits::Limits;
use super::violations::Violations;
use crate::resources::Common;

/// Most characters of a name or description.
const TEXT: usize = 255;

/// A place in a request and the violations found there: every conversion records its findings here.
pub(super) struct Form<'a> {
    prefix: String,
    pub(super) limits: &'a Limits,
    pub(super) violations: &'a mut Violations,
}

impl<'a> Form<'a> {
    /// A form for fields below `prefix`; `""` for the request's own resource.
    pub(super) fn new(prefix: impl Into<String>, limits: &'a Limits, violations: &'a mut Violations) -> Self {
        Self { prefix: prefix.into(), limits, violations }
    }

    /// The full path of a field.
    pub(super) fn path(&self, field: &str) -> String {
        if self.prefix.is_empty() { field.to_owned() } else { format!("{}.{field}", self.prefix) }
    }

    /// Records a violation.
    pub(super) fn invalid(&mut self, field: &str, why: impl Into<String>) {
        self.violations.invalid(self.path(field), why);
    }

    /// Records a field that is known but not implemented.
    pub(super) fn unsupported(&mut self, field: &str, what: &str) {
        self.violations.unsupported(self.path(field), what);
    }

    /// Records `field` as not supported if it `is_set`.
    pub(super) fn refuse_if(&mut self, is_set: bool, field: &str) {
        if is_set {
            self.unsupported(field, field);
        }
    }

    /// Name, description and tags.
    pub(super) fn common(&mut self, name: &str, description: &str, tags: &[String]) -> Common {
        for (field, text) in [("name", name), ("description", description)] {
            let length = text.chars().count();
            if length > TEXT {
                self.invalid(field, format!("at most {TEXT} characters, given {length}"));
            }
            if text.chars().any(char::is_control) {
                self.invalid(field, "must not contain control characters");
            }
        }
        let path = self.path("tags");
        self.limits.check_tags(path, tags, self.violations);
        for tag in tags.iter().filter(|tag| tag.is_empty() || tag.chars().count() > TEXT) {
            self.invalid("tags", format!("a tag has 1 to {TEXT} characters, not {}", tag.chars().count()));
        }
        Common {
            name: name.to_owned(),
            description: description.to_owned(),
            tags: tags.iter().cloned().collect::<BTreeSet<_>>(),
        }
    }

    /// A required UUID.
    pub(super) fn uuid(&mut self, field: &str, text: &str) -> Uuid {
        text.parse().unwrap_or_else(|_| {
            let why =
                if text.is_empty() { "is required".to_owned() } else { format!("{text:?} is not a UUID") };
            self.invalid(field, why);
            Uuid::nil()
        })
    }

    /// A port number.
    pub(super) fn port(&mut self, field: &str, number: u32) -> u16 {
        match u16::try_from(number) {
            Ok(port) if port > 0 => port,
            _ => {
                self.invalid(field, format!("must be 1 to 65535, given {number}"));
                0
            }
        }
    }

    /// A number within bounds; 0 means the default.
    pub(super) fn within<T>(&mut self, field: &str, number: u32, least: u32, most: u32, default: u32) -> T
    where
        T: TryFrom<u32> + Default,
    {
        let number = if number == 0 { default } else { number };
        if !(least..=most).contains(&number) {
            self.invalid(field, format!("must be {least} to {most}, given {number}"));
        }
        T::try_from(number).unwrap_or_default()
    }

    /// A duration in milliseconds, within bounds.
    pub(super) fn millis(
        &mut self,
        field: &str,
        given: Option<&prost_types::Duration>,
        default: u32,
        least: u32,
        most: u32,
    ) -> u32 {
        let Some(duration) = given else { return default };
        let millis = i128::from(duration.seconds) * 1000 + i128::from(duration.nanos) / 1_000_000;
        match u32::try_from(millis) {
            Ok(millis) if (least..=most).contains(&millis) => millis,
            _ => {
                let (least, most) = (f64::from(least) / 1000.0, f64::from(most) / 1000.0);
                self.invalid(field, format!("must be {least} s to {most} s"));
                default
            }
        }
    }

    /// Parses a text; returns the placeholder if it cannot be parsed.
    pub(super) fn parse<T>(&mut self, field: &str, text: &str, what: &str, placeholder: T) -> T
    where
        T: std::str::FromStr,
        T::Err: Display,
    {
        text.parse().unwrap_or_else(|_| {
            let why =
                if text.is_empty() { "is required".to_owned() } else { format!("{text:?} is not {what}") };
            self.invalid(field, why);
            placeholder
        })
    }

    /// An enumeration's value. Unknown numbers and a missing required value are violations.
    pub(super) fn value<E: TryFrom<i32> + Copy + Default>(&mut self, field: &str, number: i32) -> E {
        E::try_from(number).unwrap_or_else(|_| {
            self.invalid(field, format!("{number} is not a value of this enumeration"));
            E::default()
        })
    }
}

/// Returns the id that the client chose, or a new one; and whether the client chose it.
pub(super) fn new_id(form: &mut Form<'_>, text: &str) -> (Uuid, bool) {
    if text.is_empty() { (Uuid::now_v7(), false) } else { (form.uuid("id", text), true) }
}
