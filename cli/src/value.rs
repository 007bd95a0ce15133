//! Notations of values for people: durations with units, and short names of enum values.

use std::time::Duration;

use prost_reflect::{EnumDescriptor, EnumValueDescriptor};

/// Units of a duration with their lengths in nanoseconds. Longer names first: "ms" is not "m" and "s".
const UNITS: [(&str, u64); 5] =
    [("ms", 1_000_000), ("us", 1_000), ("h", 3_600_000_000_000), ("m", 60_000_000_000), ("s", 1_000_000_000)];

/// Limit of a duration in nanoseconds: ten years, far above the limits of all fields.
const MAX_DURATION: u64 = 10 * 366 * 24 * 3_600 * 1_000_000_000;

/// Parses "5s", "500ms", "1.5s", "2m30s", "1h". A bare number is refused: other tools use seconds in one place and milliseconds in
/// another.
///
/// # Errors
/// Message with examples.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("{text:?} is not a duration: give a number with its unit, such as 50s, 500ms or 2m30s");
    let mut rest = text.trim();
    let mut total: u64 = 0;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(end);
        let (tail, unit) = UNITS
            .iter()
            .find_map(|(name, unit)| Some((tail.strip_prefix(name)?, *unit)))
            .ok_or_else(wrong)?;
        let part = scaled(number, unit).ok_or_else(wrong)?;
        total = total.checked_add(part).filter(|total| *total <= MAX_DURATION).ok_or_else(wrong)?;
        rest = tail;
    }
    Ok(Duration::from_nanos(total))
}

/// Multiplies a decimal number by its unit, exactly; `None` if it is not a number, or too large.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let whole = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    let digits = u32::try_from(fraction.len()).ok().filter(|digits| *digits <= 9)?;
    let fraction = fraction.parse::<u64>().ok()?.checked_mul(unit)? / 10_u64.checked_pow(digits)?;
    whole.checked_add(fraction)
}

/// Formats a duration as [`parse_duration`] parses it, in whole units where possible.
pub(crate) fn show_duration(duration: Duration) -> String {
    let millis = duration.subsec_millis();
    match (duration.as_secs(), millis) {
        (0, 0) => "0s".to_owned(),
        (0, millis) => format!("{millis}ms"),
        (seconds, 0) => format!("{seconds}s"),
        (seconds, millis) => format!("{}s", format!("{seconds}.{millis:03}").trim_end_matches('0')),
    }
}

/// Short name of an enum value: without the prefix that protocol buffers demand; versions with a dot.
pub(crate) fn short_name(value: &EnumValueDescriptor) -> String {
    let prefix = screaming_snake(value.parent_enum().name());
    let name = value.name();
    let short = name.strip_prefix(&prefix).and_then(|rest| rest.strip_prefix('_')).unwrap_or(name);
    if short.starts_with(|c: char| c.is_ascii_digit()) { short.replace('_', ".") } else { short.to_owned() }
}

/// Short names of an enum's values, in the order of the API.
pub(crate) fn choices(enumeration: &EnumDescriptor) -> Vec<String> {
    enumeration.values().map(|value| short_name(&value)).filter(|name| name != "UNSPECIFIED").collect()
}

/// Parses an enum value by its short or full name, in any case, with `-` and `.` for `_`.
pub(crate) fn parse_enum(enumeration: &EnumDescriptor, text: &str) -> Option<i32> {
    let wanted = text.trim().to_ascii_uppercase().replace(['-', '.'], "_");
    // Other tools write "TLSv1.2".
    let wanted = wanted.strip_prefix("TLSV").unwrap_or(&wanted);
    let is_wanted =
        |value: &EnumValueDescriptor| wanted == value.name() || wanted == short_name(value).replace('.', "_");
    enumeration.values().find(is_wanted).map(|value| value.number())
}

/// Short name of an enum's number; the number itself if it is unknown.
pub(crate) fn show_enum(enumeration: &EnumDescriptor, number: i32) -> String {
    enumeration.get_value(number).map_or_else(|| number.to_string(), |value| short_name(&value))
}

/// "TlsVersion" as "TLS_VERSION".
fn screaming_snake(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for (at, c) in name.char_indices() {
        if at > 0 && c.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(c.to_ascii_uppercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::Schema;

    #[test]
    fn durations_with_units() {
        for (text, millis) in
            [("5s", 5_000), ("500ms", 500), ("1.5s", 1_500), ("2m30s", 150_000), ("1h", 3_600_000), ("0s", 0)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in
            ["", "5", "s", "5x", "-5s", "5s5", "1e9s", "99999999999999999999s", "1.s", "..s", "999999999h"]
        {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_parsed_as_they_are_shown() {
        for millis in [0, 1, 500, 1_000, 1_500, 60_000, 360_010] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse_duration(&show_duration(duration)), Ok(duration));
        }
    }

    #[test]
    fn enum_values_by_the_names_of_the_field() {
        let schema = Schema::load().unwrap();
        let algorithm = schema.enumeration("Algorithm").unwrap();
        for text in ["SOURCE_IP", "source_ip", "source-ip", "ALGORITHM_SOURCE_IP"] {
            assert_eq!(parse_enum(&algorithm, text), Some(3), "{text}");
        }
        assert_eq!(parse_enum(&algorithm, "RANDOMLY"), None);
        let tls = schema.enumeration("TlsVersion").unwrap();
        for text in ["1.2", "1_2", "TLSv1.2", "TLS_VERSION_1_2"] {
            assert_eq!(parse_enum(&tls, text), Some(1), "{text}");
        }
        assert_eq!(show_enum(&algorithm, 99), "99");
        assert_eq!(choices(&tls), ["1.2", "1.3"]);
    }
}
