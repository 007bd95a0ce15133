//! Settings of a daemon: the keys of its file, and the options that stand for them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use clap::{ArgMatches, Command, FromArgMatches};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::command::{is_own, spelled, told_default, variable};
use crate::{Row, code, code_words, sentence};

/// Number from which on a range has no upper end.
const MANY: u64 = u32::MAX as u64;

/// Rows of key, value, default and meaning, for the keys of some sections.
///
/// The meaning is the field's doc comment. The range of a number is found by trying, so that it is the one of `check`;
/// of anything but numbers, switches and choices, the doc comment says the value before the first `: `. For a key that
/// is unset by default, a last sentence `Default: ...` says what that means.
pub fn settings<C, E: Display>(sections: &[&str], check: impl Fn(&C) -> Result<(), E>) -> Vec<Row>
where
    C: JsonSchema + Serialize + DeserializeOwned + Default,
{
    let schema = SchemaSettings::default().with(|it| it.inline_subschemas = true);
    let schema = schema.into_generator().into_root_schema_for::<C>().to_value();
    let load = |key: &str, value: Value| {
        let mut all = json!(C::default());
        all[key.split('.').next().unwrap()][key.split('.').nth(1).unwrap()] = value;
        let settings: C = serde_json::from_value(all).map_err(|error| error.to_string())?;
        check(&settings).map_err(|error| format!("{error:#}"))
    };
    let mut rows = Vec::new();
    for section in sections {
        let (schema, defaults) = (&schema["properties"][section], &json!(C::default())[section]);
        assert_eq!(schema["additionalProperties"], false, "{section} takes unknown keys");
        // The schema has lost the order of declaration.
        let text = serde_json::to_string(&C::default()).unwrap();
        let text = &text[text.find(&format!("\"{section}\":{{")).unwrap()..];
        let mut names: Vec<&String> = defaults.as_object().unwrap().keys().collect();
        names.sort_by_key(|name| text.find(&format!("\"{name}\":")));
        for name in names {
            let key = format!("{section}.{name}");
            let property = &schema["properties"][name];
            let description = sentence(property["description"].as_str().expect(&key));
            let (meaning, unset) = description.rsplit_once(". Default: ").unwrap_or((&description, "none"));
            let default = shown(&defaults[name]).map_or_else(|| unset.to_owned(), |text| code(&text));
            let (value, meaning) = match value(&key, property, &defaults[name], &load) {
                Some(value) => (value, meaning),
                None => {
                    meaning.split_once(": ").map(|(value, meaning)| (value.to_owned(), meaning)).expect(&key)
                }
            };
            rows.push(vec![code(&key), sentence(&value), default, sentence(meaning)]);
        }
    }
    rows
}

/// Possible values of a number, switch or choice.
fn value(
    key: &str,
    schema: &Value,
    default: &Value,
    load: &dyn Fn(&str, Value) -> Result<(), String>,
) -> Option<String> {
    if let Some(choices) = schema["oneOf"].as_array() {
        return Some(
            choices.iter().map(|it| code(it["const"].as_str().unwrap())).collect::<Vec<_>>().join(" or "),
        );
    }
    let is = |name: &str| schema["type"] == name || schema["type"][0] == name;
    if is("boolean") {
        return Some("`true` or `false`".to_owned());
    }
    let fits = |number: u64| match load(key, json!(number)) {
        Ok(()) => true,
        Err(why) => {
            assert!(why.contains(key), "{key} is refused without its name: {why}");
            false
        }
    };
    let inside = default.as_u64().unwrap_or(1);
    let units = [("_ms", " ms"), ("_s", " s"), ("_bytes", " bytes")];
    let unit = units.iter().find(|(end, _)| key.ends_with(end)).map_or("", |(_, unit)| unit);
    is("integer").then(|| {
        let least = last_good(inside, 0, &fits);
        match last_good(inside, MANY, &fits) {
            MANY => format!("{least} or more{unit}"),
            most => format!("{least} to {most}{unit}"),
        }
    })
}

/// The number next to `end` that fits, where `good` fits.
fn last_good(mut good: u64, end: u64, fits: &dyn Fn(u64) -> bool) -> u64 {
    if fits(end) {
        return end;
    }
    let mut bad = end;
    while good.abs_diff(bad) > 1 {
        let middle = good.midpoint(bad);
        *if fits(middle) { &mut good } else { &mut bad } = middle;
    }
    good
}

/// Compares the keys that a page names with those that there are.
pub fn check_keys<C: Serialize + Default>(page: &str) {
    let sections = json!(C::default());
    let is_key = |word: &str| {
        let key = word.split_once('.').filter(|(section, _)| sections[section].is_object());
        key.is_some_and(|(_, name)| name.bytes().all(|it| it == b'_' || it.is_ascii_lowercase()))
    };
    let keys: BTreeSet<String> = leaves(&C::default()).into_keys().collect();
    assert_eq!(code_words(page, is_key), keys, "docs/{page} names other keys than there are");
}

/// All keys with their values.
fn leaves(settings: &impl Serialize) -> BTreeMap<String, Value> {
    let mut leaves = BTreeMap::new();
    for (section, keys) in json!(settings).as_object().unwrap() {
        leaves.extend(
            keys.as_object().unwrap().iter().map(|(key, value)| (format!("{section}.{key}"), value.clone())),
        );
    }
    leaves
}

fn shown(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::Array(all) => Some(all.iter().filter_map(shown).collect::<Vec<_>>().join(",")),
        other => Some(other.to_string()),
    }
}

/// Rows of option, variable and key, for the options of a daemon. The key is the one that the option changes.
pub fn options<C, O>(command: &Command, put_over: impl Fn(O, &mut C)) -> Vec<Row>
where
    C: Serialize + Default,
    O: FromArgMatches,
{
    /// Among them one that each option takes, and that is no default.
    const VALUES: [&str; 6] = ["127.0.0.1:1", "unix:/x", "1500", "json", "x", "/x"];
    let defaults = leaves(&C::default());
    let changed = |matches: ArgMatches| {
        let mut settings = C::default();
        put_over(O::from_arg_matches(&matches).ok()?, &mut settings);
        leaves(&settings).into_iter().find(|(key, value)| defaults[key] != *value)
    };
    let row = |arg: &clap::Arg| {
        let name = format!("--{}", arg.get_long().unwrap());
        let tries = VALUES.iter().map(|value| vec!["", &name, value]).chain([vec!["", &name]]);
        let key =
            tries.filter_map(|words| command.clone().try_get_matches_from(words).ok()).find_map(changed);
        let key = key.map(|(key, _)| key).unwrap_or_default();
        let default = defaults.get(&key).and_then(shown);
        if let (Some(told), Some(default)) = (told_default(arg), default) {
            assert_eq!(told, default, "{name}: the help tells another default");
        }
        vec![code(&spelled(arg)), code(&variable(arg)), code(&key)]
    };
    command.get_arguments().filter(is_own).map(row).collect()
}
