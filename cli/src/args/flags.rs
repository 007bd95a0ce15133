//! Flags of a kind, by its table and the descriptors of its fields.

use std::net::IpAddr;
use std::str::FromStr;

use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::{Arg, ArgAction};
use fiberlb_proto::v1::{AdditionalVip, WeightedPool};
use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind as FieldKind};

use crate::failure::Failure;
use crate::kinds::{Field, Kind, Settable, Shape};
use crate::schema::{Schema, comment, field_at, internal};
use crate::value::{parse_duration, short_name};

/// Flags of a kind. `required` decides whether a flag is required; `None` omits it.
pub(super) fn of_kind(
    kind: &Kind,
    schema: &Schema,
    required: impl Fn(Settable) -> Option<bool>,
) -> Result<Vec<Arg>, Failure> {
    let message = schema.message(kind.message)?;
    let mut args = Vec::with_capacity(kind.fields.len());
    for field in kind.fields {
        if let Some(required) = required(field.when) {
            let descriptor = field_at(&message, field.path).ok_or_else(|| internal(field.path))?;
            args.push(flag(field, &descriptor).required(required));
        }
    }
    Ok(args)
}

/// Flag of one field.
fn flag(field: &Field, descriptor: &FieldDescriptor) -> Arg {
    let repeated = descriptor.is_list() || matches!(field.shape, Shape::Switches);
    let help = match field.help {
        "" => help(descriptor, repeated),
        own => own.to_owned(),
    };
    // Accepted, so that the server says why it refuses the field.
    let arg = Arg::new(field.flag).long(field.flag).hide(help.contains("Not supported yet")).help(help);
    let arg = if repeated { arg.action(ArgAction::Append) } else { arg };
    match field.shape {
        Shape::Reference(_) => arg.value_name("REF"),
        Shape::Weighted(_) => arg.value_name("REF=WEIGHT").value_parser(parse_weighted),
        Shape::Vip => arg.value_name("VIP").value_parser(parse_vip),
        Shape::Switches => arg.value_name("NAME").ignore_case(true).value_parser(switches(descriptor)),
        Shape::Plain => typed(arg, &descriptor.kind()),
    }
}

/// Help from the field's comment.
fn help(descriptor: &FieldDescriptor, repeated: bool) -> String {
    let (first, text) = comment(descriptor);
    let repeat = if repeated { "; repeat for several" } else { "" };
    let default = match first.strip_prefix("Default: ") {
        None | Some("none" | "empty") => String::new(),
        Some(default) => format!(" [default: {default}]"),
    };
    format!("{text}{repeat}{default}").replace('`', "")
}

/// A flag read as a field of this type.
fn typed(arg: Arg, kind: &FieldKind) -> Arg {
    match kind {
        FieldKind::Bool => arg
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .value_name("true|false")
            .value_parser(clap::value_parser!(bool)),
        FieldKind::Uint32 if ["port", "port-end"].iter().any(|end| arg.get_id().as_str().ends_with(end)) => {
            arg.value_name("PORT").allow_negative_numbers(true).value_parser(parse_port)
        }
        FieldKind::Uint32 => {
            arg.value_name("N").allow_negative_numbers(true).value_parser(parse_number::<u32>)
        }
        FieldKind::Uint64 => {
            arg.value_name("N").allow_negative_numbers(true).value_parser(parse_number::<u64>)
        }
        FieldKind::Int32 => {
            arg.value_name("N").allow_negative_numbers(true).value_parser(clap::value_parser!(i32))
        }
        FieldKind::Enum(enumeration) => {
            arg.value_name("NAME").ignore_case(true).value_parser(values(enumeration))
        }
        FieldKind::Message(_) => arg.value_name("DURATION").value_parser(parse_duration),
        _ if arg.get_id() == "name" => arg.value_name("NAME").value_parser(parse_name),
        _ => arg.value_name("TEXT"),
    }
}

/// Parses a port.
///
/// # Errors
/// Message for the user.
fn parse_port(text: &str) -> Result<u32, String> {
    let port = text.parse::<u16>().ok().filter(|port| *port > 0);
    port.map(u32::from).ok_or_else(|| "must be a number, 1 to 65535".to_owned())
}

/// Parses a number.
///
/// # Errors
/// Message for the user.
fn parse_number<N: FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| "must be a whole number of at least 0".to_owned())
}

/// Parses a name that references can hold.
///
/// # Errors
/// Message for the user.
fn parse_name(text: &str) -> Result<String, String> {
    if text.trim().is_empty() {
        return Err("must not be blank: leave the flag out, or in an update write --clear name".to_owned());
    }
    if text.contains('/') {
        return Err("must not contain '/', which stands between the names of a reference".to_owned());
    }
    Ok(text.to_owned())
}

/// Values of an enum, by their short names, with other spellings as aliases.
fn values(enumeration: &EnumDescriptor) -> PossibleValuesParser {
    let known = enumeration.values().filter(|value| short_name(value) != "UNSPECIFIED").map(|value| {
        let short = short_name(&value);
        let mut aliases = vec![value.name().to_owned(), short.replace('_', "-")];
        if enumeration.name() == "TlsVersion" {
            aliases.extend([format!("TLSv{short}"), short.replace('.', "_")]);
        }
        PossibleValue::new(short).aliases(aliases)
    });
    PossibleValuesParser::new(known.collect::<Vec<_>>())
}

/// Boolean fields of a message, as the headers that they name: "x-forwarded-for".
fn switches(descriptor: &FieldDescriptor) -> PossibleValuesParser {
    let kind = descriptor.kind();
    let fields = kind.as_message().into_iter().flat_map(|message| message.fields());
    PossibleValuesParser::new(fields.map(|field| field.name().replace('_', "-")).collect::<Vec<_>>())
}

/// Parses a pool with its weight, which may be left out.
///
/// # Errors
/// Message for the user.
fn parse_weighted(text: &str) -> Result<WeightedPool, String> {
    let (pool, weight) = text.rsplit_once('=').map_or((text, None), |(pool, weight)| (pool, Some(weight)));
    if pool.is_empty() {
        return Err("must name a pool, as in blue=90".to_owned());
    }
    let weight = weight.map(str::parse::<u16>).transpose().ok();
    let weight = weight.filter(|weight| weight.is_none_or(|weight| weight <= 256));
    let weight = weight.ok_or_else(|| "the weight must be a number, 0 to 256".to_owned())?;
    Ok(WeightedPool { pool_id: pool.to_owned(), weight: weight.map(u32::from) })
}

/// Parses a second VIP: an address, a subnet to allocate from, both separated by a comma, or "auto".
///
/// # Errors
/// Message for the user.
pub(super) fn parse_vip(text: &str) -> Result<AdditionalVip, String> {
    let mut vip = AdditionalVip::default();
    if text == "auto" {
        return Ok(vip);
    }
    for part in text.split(',') {
        let address = part.split_once('/').map_or(part, |(address, _)| address);
        if address.parse::<IpAddr>().is_err() {
            return Err(format!("{part:?} is not an address, a subnet, or auto"));
        }
        let place = if part.contains('/') { &mut vip.subnet } else { &mut vip.address };
        if !place.is_empty() {
            return Err("give at most one address and one subnet".to_owned());
        }
        part.clone_into(place);
    }
    Ok(vip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_numbers_and_names() {
        assert_eq!((parse_port("80"), parse_number::<u64>("0")), (Ok(80), Ok(0)));
        for text in ["0", "-1", "65536", "http", ""] {
            assert_eq!(parse_port(text), Err("must be a number, 1 to 65535".to_owned()), "{text}");
        }
        assert!(parse_number::<u32>("-1").is_err() && parse_number::<u32>("4294967296").is_err());
        assert_eq!(parse_name("a b"), Ok("a b".to_owned()));
        for text in ["", " ", "a/b"] {
            assert!(parse_name(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn pools_with_weights() {
        let pool = |pool: &str, weight| WeightedPool { pool_id: pool.to_owned(), weight };
        assert_eq!(parse_weighted("blue=90"), Ok(pool("blue", Some(90))));
        assert_eq!(parse_weighted("blue=0"), Ok(pool("blue", Some(0))));
        assert_eq!(parse_weighted("web/blue"), Ok(pool("web/blue", None)));
        assert_eq!(parse_weighted("a=b=256"), Ok(pool("a=b", Some(256))));
        for text in ["", "=5", "blue=", "blue=257", "blue=-1", "blue=1.5", "blue=90%"] {
            assert!(parse_weighted(text).is_err(), "{text}");
        }
    }

    #[test]
    fn second_vips() {
        let vip = |address: &str, subnet: &str| AdditionalVip {
            address: address.to_owned(),
            subnet: subnet.to_owned(),
        };
        assert_eq!(parse_vip("auto"), Ok(vip("", "")));
        assert_eq!(parse_vip("fd00::5"), Ok(vip("fd00::5", "")));
        assert_eq!(parse_vip("fd00::/64"), Ok(vip("", "fd00::/64")));
        assert_eq!(parse_vip("fd00::5,fd00::/64"), Ok(vip("fd00::5", "fd00::/64")));
        for text in ["", "web", "fd00::5,fd00::6", "fd00::5,"] {
            assert!(parse_vip(text).is_err(), "{text}");
        }
    }
}
