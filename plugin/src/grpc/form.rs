//! Values of the wire as typed ones. What cannot be represented is recorded as a violation, and replaced by a
//! placeholder that is valid, so that it is found wrong once.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use prost_types::Duration;
use uuid::Uuid;

use crate::resources::{Common, Form, PORTS, Quoted};

/// A required UUID; the nil UUID is its placeholder.
pub(super) fn uuid(form: &mut Form<'_>, field: &str, text: &str) -> Uuid {
    text.parse().unwrap_or_else(|_| {
        let why = if text.is_empty() {
            "is required".to_owned()
        } else {
            format!("{} is not a UUID", Quoted(text))
        };
        form.invalid(field, why);
        Uuid::nil()
    })
}

/// A UUID that may be left out.
pub(super) fn optional_uuid(form: &mut Form<'_>, field: &str, text: &str) -> Option<Uuid> {
    (!text.is_empty()).then(|| uuid(form, field, text)).filter(|id| !id.is_nil() || text.parse() == Ok(*id))
}

/// A text with a value; `what` names a right one.
pub(super) fn text<T: FromStr>(
    form: &mut Form<'_>,
    field: &str,
    text: &str,
    what: &str,
    placeholder: T,
) -> T {
    text.parse().unwrap_or_else(|_| {
        let why = if text.is_empty() {
            "is required".to_owned()
        } else {
            format!("{} is not {what}", Quoted(text))
        };
        form.invalid(field, why);
        placeholder
    })
}

/// A text with a value that may be left out.
pub(super) fn optional_text<T: FromStr>(
    form: &mut Form<'_>,
    field: &str,
    given: &str,
    what: &str,
) -> Option<T> {
    if given.is_empty() {
        return None;
    }
    let value = given.parse().ok();
    if value.is_none() {
        form.invalid(field, format!("{} is not {what}", Quoted(given)));
    }
    value
}

/// A number. One that its type cannot hold is outside its bounds; the lower one is its placeholder.
pub(super) fn number<T>(form: &mut Form<'_>, field: &str, number: u32, range: &RangeInclusive<T>) -> T
where
    T: TryFrom<u32> + Copy + Display,
{
    T::try_from(number).unwrap_or_else(|_| {
        form.invalid(field, format!("must be {} to {}, given {number}", range.start(), range.end()));
        *range.start()
    })
}

/// A port number.
pub(super) fn port(form: &mut Form<'_>, field: &str, given: u32) -> u16 {
    number(form, field, given, &PORTS)
}

/// A duration in milliseconds, or the nearest that can be counted, which no field allows. One that is none by
/// google/protobuf/duration.proto, or has parts of a millisecond, is a violation.
pub(super) fn millis(form: &mut Form<'_>, field: &str, given: Option<&Duration>) -> Option<u32> {
    let Duration { seconds, nanos } = *given?;
    let is_sound =
        nanos.unsigned_abs() < 1_000_000_000 && (seconds == 0 || nanos == 0 || (seconds < 0) == (nanos < 0));
    if !is_sound {
        form.invalid(
            field,
            format!(
                "{seconds} s and {nanos} ns are not a duration: nanos are below 10^9, and of the same sign"
            ),
        );
        return None;
    }
    if nanos % 1_000_000 != 0 {
        form.invalid(field, "must be whole milliseconds");
        return None;
    }
    let millis = i128::from(seconds) * 1000 + i128::from(nanos) / 1_000_000;
    Some(u32::try_from(millis).unwrap_or(if millis < 0 { 0 } else { u32::MAX }))
}

/// An enumeration's value. Unknown numbers are violations.
pub(super) fn value<E: TryFrom<i32> + Default>(form: &mut Form<'_>, field: &str, number: i32) -> E {
    E::try_from(number).unwrap_or_else(|_| {
        form.invalid(field, format!("{number} is not a value of this enumeration"));
        E::default()
    })
}

/// Records `field` as not supported if it `is_set`.
pub(super) fn refuse_if(form: &mut Form<'_>, is_set: bool, field: &str) {
    if is_set {
        form.unsupported(field, field);
    }
}

/// Name, description and tags.
pub(super) fn common(name: &str, description: &str, tags: &[String]) -> Common {
    let (name, description) = (name.to_owned(), description.to_owned());
    Common { name, description, tags: tags.iter().cloned().collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::Violations;

    fn found<T>(read: impl FnOnce(&mut Form<'_>) -> T) -> (T, Vec<String>) {
        let mut violations = Violations::default();
        let value = read(&mut Form::new("", &mut violations));
        let lines = violations.into_vec().into_iter();
        (value, lines.map(|violation| format!("{}: {}", violation.field, violation.description)).collect())
    }

    #[test]
    fn what_does_not_fit_is_found_wrong_once() {
        for number in [70_000, 0] {
            let (_, lines) = found(|form| {
                let port = port(form, "port", number);
                form.check_range("port", port, &PORTS);
            });
            assert_eq!(lines, [format!("port: must be 1 to 65535, given {number}")]);
        }
    }

    #[test]
    fn a_duration_of_any_size_is_a_number() {
        let read = |seconds, nanos| {
            let (millis, lines) = found(|form| millis(form, "delay", Some(&Duration { seconds, nanos })));
            (millis, lines.len())
        };
        assert_eq!(read(2, 500_000_000), (Some(2500), 0));
        assert_eq!(read(i64::MAX, 0), (Some(u32::MAX), 0));
        assert_eq!(read(i64::MIN, -999_000_000), (Some(0), 0));
        for (seconds, nanos) in [(10, 2_000_000_000), (10, -1), (-10, 1), (10, 999_999), (0, i32::MIN)] {
            assert_eq!(read(seconds, nanos), (None, 1), "{seconds} {nanos}");
        }
        assert_eq!(found(|form| millis(form, "delay", None)), (None, Vec::new()));
    }
}
