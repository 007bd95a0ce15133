//! The keys of a configuration file.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::{Page, one_sided, only_span, spans};

/// Head of a table of keys.
const HEAD: [&str; 4] = ["key", "value", "default", "meaning"];

/// What the tables of keys on a page say differently from a program. `default` is the program's default configuration, and
/// `load` says why it would not start with another one.
///
/// Defaults are compared; of a number's range the ends are tried, of a choice each word; and a key that does not exist must
/// be refused by its name.
pub fn setting_faults(
    page: &Page,
    default: &Value,
    load: impl Fn(Value) -> Result<(), String>,
) -> Vec<String> {
    let rows = page.tables(&HEAD);
    let known = leaves(default);
    let mut named = BTreeSet::new();
    let mut faults = Vec::new();
    for row in &rows {
        let [key, value, default_cell, _] = row.as_slice() else {
            faults.push(format!("{row:?} has not four cells"));
            continue;
        };
        let Some(key) = only_span(key) else {
            faults.push(format!("{key} is no key in backquotes"));
            continue;
        };
        if !named.insert(key.to_owned()) {
            faults.push(format!("{key} is there twice"));
        }
        let Some(leaf) = known.get(key) else { continue };
        faults.extend(default_fault(key, leaf, default_cell));
        let try_it = |value: Value| load(with(default, key, value));
        faults.extend(value_faults(key, leaf, value, &try_it));
    }
    faults.extend(one_sided(&known.keys().cloned().collect(), &named));
    faults.extend(unknown_key_faults(default, &load));
    faults
}

/// All values of a configuration by their keys, such as `api.listen`. A table that several sections have alike, such as
/// `api.connections`, stands there once, without its section: `connections.total`.
#[must_use]
pub fn leaves(configuration: &Value) -> BTreeMap<String, Value> {
    let mut leaves = BTreeMap::new();
    for (section, keys) in configuration.as_object().into_iter().flatten() {
        for (key, value) in keys.as_object().into_iter().flatten() {
            match value.as_object() {
                Some(table) => {
                    let named = table.iter().map(|(name, value)| (format!("{key}.{name}"), value.clone()));
                    leaves.extend(named);
                }
                None => drop(leaves.insert(format!("{section}.{key}"), value.clone())),
            }
        }
    }
    leaves
}

/// A value as the page writes it; `None` where there is none.
pub(crate) fn text(leaf: &Value) -> Option<String> {
    match leaf {
        Value::Null => None,
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        Value::Array(all) => {
            let texts: Vec<String> = all.iter().filter_map(text).collect();
            Some(texts.join(",")).filter(|text| !text.is_empty())
        }
        other => Some(other.to_string()),
    }
}

fn default_fault(key: &str, leaf: &Value, cell: &str) -> Option<String> {
    match (text(leaf), only_span(cell)) {
        (Some(value), Some(said)) if value == said => None,
        (Some(value), _) => Some(format!("{key} is {value:?} by default, not {cell}")),
        (None, None) if !cell.is_empty() => None,
        (None, _) => Some(format!("{key} has no value by default: say so in words, not {cell:?}")),
    }
}

fn with(configuration: &Value, key: &str, value: Value) -> Value {
    let mut changed = configuration.clone();
    let path = format!("/{}", key.replace('.', "/"));
    if let Some(place) = changed.pointer_mut(&path) {
        *place = value;
        return changed;
    }
    let sections = changed.as_object_mut().into_iter().flat_map(|sections| sections.values_mut());
    for place in sections.filter_map(|section| section.pointer_mut(&path)) {
        *place = value.clone();
    }
    changed
}

type Try<'a> = &'a dyn Fn(Value) -> Result<(), String>;

fn value_faults(key: &str, leaf: &Value, cell: &str, try_it: Try<'_>) -> Vec<String> {
    if let Some(range) = Range::read(cell) {
        return range.faults(key, try_it);
    }
    if leaf.is_number() {
        return vec![format!("the value of {key} is a number: give its range as `1 to 5 s` or `1 or more`")];
    }
    let words: Vec<&str> =
        spans(cell).into_iter().filter(|word| !word.contains(char::is_uppercase)).collect();
    if words.is_empty() {
        return Vec::new();
    }
    choice_faults(key, leaf, &words, try_it)
}

/// Each word must be taken.
fn choice_faults(key: &str, leaf: &Value, words: &[&str], try_it: Try<'_>) -> Vec<String> {
    let value = |word: &str| match leaf {
        Value::Bool(_) => word.parse::<bool>().map_or_else(|_| json!(word), Value::Bool),
        _ => json!(word),
    };
    let refused = words.iter().filter_map(|word| {
        let why = try_it(value(word)).err()?;
        Some(format!("{key} cannot be {word}: {why}"))
    });
    refused.collect()
}

/// `1 to 5 s`, `1 or more`.
struct Range {
    least: i64,
    most: Option<i64>,
    unit: String,
}

impl Range {
    fn read(cell: &str) -> Option<Self> {
        let (least, rest) = cell.split_once(' ')?;
        let least = least.parse().ok()?;
        let (most, unit) = match rest.strip_prefix("or more") {
            Some(unit) => (None, unit),
            None => {
                let rest = rest.strip_prefix("to ")?;
                let (most, unit) = rest.split_once(' ').unwrap_or((rest, ""));
                (Some(most.parse().ok()?), unit)
            }
        };
        Some(Self { least, most, unit: unit.trim().to_owned() })
    }

    fn faults(&self, key: &str, try_it: Try<'_>) -> Vec<String> {
        let mut faults = Vec::new();
        let units = [("_ms", "ms"), ("_s", "s"), ("_bytes", "bytes")];
        if let Some((_, unit)) = units.iter().find(|(end, unit)| key.ends_with(end) && self.unit != *unit) {
            faults.push(format!("the unit of {key} is {unit}, not {:?}", self.unit));
        }
        let inside = [self.least, self.most.unwrap_or(i64::from(u32::MAX))];
        for number in inside {
            let refused = try_it(json!(number)).err();
            faults.extend(refused.map(|why| format!("{key} cannot be {number}: {why}")));
        }
        for number in [Some(self.least - 1), self.most.map(|most| most + 1)].into_iter().flatten() {
            match try_it(json!(number)) {
                Ok(()) => faults.push(format!("{key} can be {number}")),
                Err(why) if number >= 0 && !why.contains(key) => {
                    faults.push(format!("{key} is refused as {number} without its name: {why}"));
                }
                Err(_) => {}
            }
        }
        faults
    }
}

/// A key that does not exist must be refused by its name, in each section.
fn unknown_key_faults(default: &Value, load: &impl Fn(Value) -> Result<(), String>) -> Vec<String> {
    const UNKNOWN: &str = "no_such_key";
    let sections = default.as_object().into_iter().flat_map(Map::keys).map(|section| Some(section.as_str()));
    let is_taken = |section: Option<&str>| {
        let mut changed = default.clone();
        let place = match section {
            Some(section) => changed.get_mut(section),
            None => Some(&mut changed),
        };
        if let Some(place) = place.and_then(Value::as_object_mut) {
            place.insert(UNKNOWN.to_owned(), json!(0));
        }
        !load(changed).is_err_and(|why| why.contains(UNKNOWN))
    };
    let taken = sections.chain([None]).filter(|section| is_taken(*section));
    taken.map(|section| format!("an unknown key of {section:?} is not refused by its name")).collect()
}

/// Keys of a section that exists (`store.nonsense`) which the page names and the program does not know. `default` is the
/// default configuration.
#[must_use]
pub fn unknown_keys(page: &Page, default: &Value) -> Vec<String> {
    let known = leaves(default);
    let sections: BTreeSet<&str> = known.keys().filter_map(|key| Some(key.split_once('.')?.0)).collect();
    let is_key = |code: &&String| {
        let parts = code.split_once('.');
        parts.is_some_and(|(section, name)| {
            sections.contains(section) && name.bytes().all(|it| it == b'_' || it.is_ascii_lowercase())
        })
    };
    page.code().iter().filter(is_key).filter(|key| !known.contains_key(*key)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "| key | value | default | meaning |\n|---|---|---|---|\n";

    fn default() -> Value {
        json!({"a": {"listen": "x:1", "wait_s": 5, "ca": null, "on": false}})
    }

    /// A program that knows these keys and takes 1 to 9 for `wait_s`.
    fn load(value: &Value) -> Result<(), String> {
        let known = leaves(&default());
        if let Some(top) = value.as_object().into_iter().flatten().map(|(key, _)| key).find(|key| *key != "a")
        {
            return Err(format!("unknown {top}"));
        }
        for (key, value) in leaves(value) {
            match (key.as_str(), value.as_i64()) {
                (key, _) if !known.contains_key(key) => return Err(format!("unknown {key}")),
                ("a.wait_s", number) if !number.is_some_and(|it| (1..=9).contains(&it)) => {
                    return Err(format!("a.wait_s is {value}"));
                }
                ("a.on", _) if !value.is_boolean() => return Err("a.on is no boolean".to_owned()),
                _ => {}
            }
        }
        Ok(())
    }

    fn faults(rows: &[&str]) -> Vec<String> {
        setting_faults(&Page::of(&format!("{HEAD}{}", rows.join("\n"))), &default(), |value| load(&value))
    }

    const RIGHT: [&str; 4] = [
        "| `a.listen` | `HOST:PORT` | `x:1` | |",
        "| `a.wait_s` | 1 to 9 s | `5` | |",
        "| `a.ca` | file | none | |",
        "| `a.on` | `true` or `false` | `false` | |",
    ];

    #[test]
    fn a_page_that_is_right_has_no_fault() {
        assert_eq!(faults(&RIGHT), Vec::<String>::new());
    }

    #[test]
    fn each_fault_is_told() {
        let wrong = [
            (0, "", "a.listen is not on the page"),
            (0, "| `a.lisen` | | `x:1` | |", "a.lisen is on the page and does not exist"),
            (0, "| `a.listen` | | `x:2` | |", "\"x:1\" by default"),
            (0, "| `a.listen` | | x:1 | |", "\"x:1\" by default"),
            (1, "| `a.wait_s` | 0 to 9 s | `5` | |", "cannot be 0"),
            (1, "| `a.wait_s` | 2 to 9 s | `5` | |", "a.wait_s can be 1"),
            (1, "| `a.wait_s` | 1 to 10 s | `5` | |", "cannot be 10"),
            (1, "| `a.wait_s` | 1 to 8 s | `5` | |", "a.wait_s can be 9"),
            (1, "| `a.wait_s` | 1 or more s | `5` | |", "cannot be 4294967295"),
            (1, "| `a.wait_s` | 1 to 9 ms | `5` | |", "the unit of a.wait_s is s"),
            (1, "| `a.wait_s` | seconds | `5` | |", "give its range"),
            (2, "| `a.ca` | file | `none` | |", "has no value"),
            (2, "| `a.ca` | file | | |", "has no value"),
            (3, "| `a.on` | `yes` or `false` | `false` | |", "cannot be yes"),
        ];
        for (index, line, words) in wrong {
            let mut rows = RIGHT;
            rows[index] = line;
            let faults = faults(&rows);
            assert!(faults.iter().any(|fault| fault.contains(words)), "{line}: {faults:?}");
        }
    }

    #[test]
    fn a_program_that_takes_any_key_is_told_of() {
        let faults =
            setting_faults(&Page::of(&format!("{HEAD}{}", RIGHT.join("\n"))), &default(), |_| Ok(()));
        assert!(faults.iter().any(|fault| fault.contains("unknown key of Some(\"a\")")), "{faults:?}");
        assert!(faults.iter().any(|fault| fault.contains("unknown key of None")), "{faults:?}");
    }
}
