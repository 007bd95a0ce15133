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
use crate::{Row, code, code_words_beside, sentence};

/// Number from which on a range has no upper end.
const MANY: u64 = u32::MAX as u64;

/// Rows of key, value, default and meaning, for the keys of some sections. A section within another one, such as
/// `api.connections`, stands on the page by its own name.
///
/// The meaning is the field's doc comment. The range of a number is found by trying, so that it is the one of `check`;
/// of anything but numbers, switches and choices, the doc comment says the value before the first `: `. For a key that
/// is unset by default, a last sentence `Default: ...` says what that means.
pub fn settings<C, E: Display>(sections: &[&str], check: impl Fn(&C) -> Result<(), E>) -> Vec<Row>
where
    C: JsonSchema + Serialize + DeserializeOwned + Default,
{
    let inlined = SchemaSettings::default().with(|it| it.inline_subschemas = true);
    let whole = inlined.into_generator().into_root_schema_for::<C>().to_value();
    let mut rows = Vec::new();
    for section in sections {
        let (mut schema, mut defaults) = (&whole, &json!(C::default()));
        let mut text = &*serde_json::to_string(&C::default()).unwrap();
        for name in section.split('.') {
            (schema, defaults) = (&schema["properties"][name], &defaults[name]);
            text = &text[text.find(&format!("\"{name}\":{{")).expect(section)..];
        }
        assert_eq!(schema["additionalProperties"], false, "{section} takes unknown keys");
        let load = |name: &str, value: Value| {
            let mut all = json!(C::default());
            all.pointer_mut(&format!("/{}", section.replace('.', "/"))).unwrap()[name] = value;
            let settings: C = serde_json::from_value(all).map_err(|error| error.to_string())?;
            check(&settings).map_err(|error| format!("{error:#}"))
        };
        let keys = defaults.as_object().unwrap().iter().filter(|(_, value)| !value.is_object());
        let mut keys: Vec<(&String, &Value)> = keys.collect();
        // The schema has lost the order of declaration, which the text has.
        keys.sort_by_key(|(name, _)| text.find(&format!("\"{name}\":")));
        let prefix = section.rsplit('.').next().unwrap();
        rows.extend(keys.into_iter().map(|(name, default)| {
            let key = format!("{prefix}.{name}");
            let property = &schema["properties"][name];
            let description = sentence(property["description"].as_str().expect(&key));
            let (meaning, unset) = description.rsplit_once(". Default: ").unwrap_or((&description, "none"));
            let fits = |value| match load(name, value) {
                Ok(()) => true,
                Err(why) => {
                    assert!(why.contains(&key), "{key} is refused without its name: {why}");
                    false
                }
            };
            let (value, meaning) = match value(name, property, default, &fits) {
                Some(value) => (value, meaning),
                None => meaning.split_once(": ").map(|(value, it)| (value.to_owned(), it)).expect(&key),
            };
            let default = shown(default).map_or_else(|| unset.to_owned(), |text| code(&text));
            vec![code(&key), sentence(&value), default, sentence(meaning)]
        }));
    }
    rows
}

/// Possible values of a number, switch or choice.
fn value(name: &str, schema: &Value, default: &Value, fits: &dyn Fn(Value) -> bool) -> Option<String> {
    if let Some(choices) = schema["oneOf"].as_array() {
        let choices = choices.iter().map(|it| code(it["const"].as_str().unwrap()));
        return Some(choices.collect::<Vec<_>>().join(" or "));
    }
    let is = |kind: &str| schema["type"] == kind || schema["type"][0] == kind;
    if is("boolean") {
        return Some("`true` or `false`".to_owned());
    }
    let units = [("_ms", " ms"), ("_s", " s"), ("_bytes", " bytes")];
    let unit = units.iter().find(|(end, _)| name.ends_with(end)).map_or("", |(_, unit)| unit);
    let inside = default.as_u64().unwrap_or(1);
    is("integer").then(|| {
        let least = last_good(inside, 0, fits);
        match last_good(inside, MANY, fits) {
            MANY => format!("{least} or more{unit}"),
            most => format!("{least} to {most}{unit}"),
        }
    })
}

/// The number next to `end` that fits, where `good` fits.
fn last_good(mut good: u64, end: u64, fits: &dyn Fn(Value) -> bool) -> u64 {
    if fits(json!(end)) {
        return end;
    }
    let mut bad = end;
    while good.abs_diff(bad) > 1 {
        let middle = good.midpoint(bad);
        *if fits(json!(middle)) { &mut good } else { &mut bad } = middle;
    }
    good
}

/// Compares the keys that a page names with those that there are. The chapter `other` is about another program.
pub fn check_keys<C: Serialize + Default>(page: &str, other: &str) {
    let keys: BTreeSet<String> = leaves(&C::default()).into_keys().collect();
    let whole = json!(C::default());
    let is_section =
        |word: &str| whole.pointer(&format!("/{}", word.replace('.', "/"))).is_some_and(Value::is_object);
    let is_key = |word: &str| {
        let section = word.split_once('.').map(|(section, _)| format!("{section}."));
        let is_known = section.is_some_and(|section| keys.iter().any(|key| key.starts_with(&section)));
        is_known
            && !is_section(word)
            && word.bytes().all(|it| matches!(it, b'_' | b'.') || it.is_ascii_lowercase())
    };
    assert_eq!(code_words_beside(page, other, is_key), keys, "docs/{page} names other keys than there are");
}

/// All keys with their values.
fn leaves(settings: &impl Serialize) -> BTreeMap<String, Value> {
    fn add(section: &str, keys: &Value, leaves: &mut BTreeMap<String, Value>) {
        for (name, value) in keys.as_object().unwrap() {
            match value.is_object() {
                true => add(name, value, leaves),
                false => drop(leaves.insert(format!("{section}.{name}"), value.clone())),
            }
        }
    }
    let mut leaves = BTreeMap::new();
    add("", &json!(settings), &mut leaves);
    leaves
}

fn shown(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::Array(all) if all.is_empty() => None,
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

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Default, JsonSchema, Serialize, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Config {
        api: Api,
    }

    #[derive(JsonSchema, Serialize, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Api {
        /// `HOST:PORT`: address of
        /// the API.
        listen: String,
        /// Limits.
        limits: Limits,
        /// PEM file: CA. Default: the system's.
        ca: Option<String>,
    }

    #[derive(Default, JsonSchema, Serialize, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Limits {
        /// Silence that ends a connection.
        idle_s: u32,
        /// Requests at once.
        streams: Option<u64>,
        /// Refusal of strangers.
        strict: bool,
    }

    impl Default for Api {
        fn default() -> Self {
            Self { listen: "a:1".to_owned(), limits: Limits { idle_s: 7, ..Limits::default() }, ca: None }
        }
    }

    fn check(config: &Config) -> Result<(), String> {
        let idle = (5..=900).contains(&config.api.limits.idle_s);
        idle.then_some(()).ok_or_else(|| "api.limits.idle_s is out of range".to_owned())
    }

    #[test]
    fn rows_say_what_the_check_takes() {
        let rows = [
            ["`api.listen`", "`HOST:PORT`", "`a:1`", "address of the API"],
            ["`api.ca`", "PEM file", "the system's", "CA"],
            ["`limits.idle_s`", "5 to 900 s", "`7`", "silence that ends a connection"],
            ["`limits.streams`", "0 or more", "none", "requests at once"],
            ["`limits.strict`", "`true` or `false`", "`false`", "refusal of strangers"],
        ];
        assert_eq!(settings(&["api", "api.limits"], check), rows.map(|row| row.map(str::to_owned).to_vec()));
        let keys: Vec<String> = leaves(&Config::default()).into_keys().collect();
        assert_eq!(keys, ["api.ca", "api.listen", "limits.idle_s", "limits.streams", "limits.strict"]);
    }
}
