//! The options of a command line.

use std::collections::BTreeSet;

use clap::{Arg, ArgAction, Command};
use serde_json::Value;

use crate::settings::text;
use crate::{Page, leaves, one_sided, only_span};

/// Head of a table of options that stand for keys of a file.
const OPTIONS: [&str; 4] = ["option", "environment", "key", "meaning"];
/// Head of a table of subcommands.
const COMMANDS: [&str; 3] = ["command", "arguments", "meaning"];

/// What the table of options on a page says differently from `command`, whose options stand for keys of a file. `parse` is
/// the configuration that a command line makes of `default`, if it can be one.
///
/// Which key an option sets is tried: the one that differs then. A default that the help tells is that of the key.
pub fn option_faults(
    page: &Page,
    command: &Command,
    default: &Value,
    parse: impl Fn(&[&str]) -> Option<Value>,
) -> Vec<String> {
    let rows = page.tables(&OPTIONS);
    let options: Vec<&Arg> = command.get_arguments().filter(|arg| is_own(arg)).collect();
    let mut faults = one_sided(
        &options.iter().map(|arg| spelled(arg)).collect(),
        &rows.iter().filter_map(|row| only_span(row.first()?)).map(str::to_owned).collect(),
    );
    for arg in options {
        let name = spelled(arg);
        let row = rows.iter().find(|row| row.first().and_then(|cell| only_span(cell)) == Some(name.as_str()));
        let Some([_, environment, key, _]) = row.map(Vec::as_slice) else { continue };
        let variable = arg.get_env().map(|name| name.to_string_lossy().into_owned());
        if only_span(environment) != variable.as_deref() {
            faults.push(format!("{name}: the variable is {variable:?}, not {environment}"));
        }
        let set = key_of(arg, default, &parse);
        if only_span(key) != set.as_deref() {
            faults.push(format!("{name}: the key is {set:?}, not {key}"));
        }
        faults.extend(set.and_then(|key| help_fault(arg, &key, default)));
    }
    faults
}

/// What the table of subcommands on a page says differently from `command`. Arguments are in the order of the help, each with
/// its default in parentheses; where the options of `command` itself are taken too, `all options above` is the last one.
pub fn command_faults(page: &Page, command: &Command) -> Vec<String> {
    let above: BTreeSet<String> = command.get_arguments().filter(|arg| is_own(arg)).map(spelled).collect();
    let code: BTreeSet<String> = ends(command, "")
        .map(|(path, end)| {
            let own = |arg: &&Arg| is_own(arg) && !above.contains(&spelled(arg));
            let mut arguments: Vec<String> = end.get_arguments().filter(own).map(described).collect();
            if end.get_arguments().any(|arg| above.contains(&spelled(arg))) {
                arguments.push("all options above".to_owned());
            }
            format!("| `{path}` | {} |", arguments.join(", "))
        })
        .collect();
    let row = |row: Vec<String>| Some(format!("| {} | {} |", row.first()?, row.get(1)?));
    one_sided(&code, &page.tables(&COMMANDS).into_iter().filter_map(row).collect())
}

/// An argument as a page writes it: `-o, --output FORMAT`, `--insecure`, `FILE`.
#[must_use]
pub fn spelled(arg: &Arg) -> String {
    let value = arg.get_value_names().unwrap_or_default().iter().map(|name| name.as_str()).next();
    let value = value.unwrap_or(arg.get_id().as_str());
    let flag = match (arg.get_short(), arg.get_long()) {
        (None, None) => return value.to_owned(),
        (Some(short), Some(long)) => format!("-{short}, --{long}"),
        (Some(short), None) => format!("-{short}"),
        (None, Some(long)) => format!("--{long}"),
    };
    if takes_value(arg) { format!("{flag} {value}") } else { flag }
}

fn described(arg: &Arg) -> String {
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let default = if defaults.is_empty() || !takes_value(arg) {
        String::new()
    } else {
        format!(" ({})", defaults.join(","))
    };
    format!("`{}`{default}", spelled(arg))
}

fn takes_value(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
}

fn is_own(arg: &Arg) -> bool {
    !matches!(arg.get_id().as_str(), "help" | "version")
}

/// The subcommands without further ones below them, by their names.
fn ends<'a>(command: &'a Command, path: &str) -> Box<dyn Iterator<Item = (String, &'a Command)> + 'a> {
    let path = path.to_owned();
    Box::new(command.get_subcommands().filter(|sub| sub.get_name() != "help").flat_map(move |sub| {
        let path = format!("{path} {}", sub.get_name()).trim().to_owned();
        let here = (!sub.has_subcommands()).then(|| (path.clone(), sub));
        here.into_iter().chain(ends(sub, &path))
    }))
}

/// The key that an option sets, found by trying values of all kinds.
fn key_of(arg: &Arg, default: &Value, parse: &impl Fn(&[&str]) -> Option<Value>) -> Option<String> {
    const VALUES: [&str; 6] = ["127.0.0.1:1", "unix:/x", "1500", "json", "x", "/x"];
    let option = format!("--{}", arg.get_long()?);
    let tries: Vec<Vec<&str>> = match takes_value(arg) {
        true => VALUES.iter().map(|value| vec![option.as_str(), value]).collect(),
        false => vec![vec![option.as_str()]],
    };
    let before = leaves(default);
    tries.iter().filter_map(|arguments| parse(arguments)).find_map(|changed| {
        let different = |(key, value): &(String, Value)| before.get(key) != Some(value);
        let mut keys = leaves(&changed).into_iter().filter(different).map(|(key, _)| key);
        keys.next().filter(|_| keys.next().is_none())
    })
}

/// Whether the help tells another default than the key has.
fn help_fault(arg: &Arg, key: &str, default: &Value) -> Option<String> {
    let help = arg.get_help()?.to_string();
    let (_, told) = help.split_once("[default: ")?;
    let told = told.strip_suffix(']')?;
    let real = text(leaves(default).get(key)?)?;
    (told != real).then(|| format!("{}: the help tells the default {told}, and it is {real}", spelled(arg)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const HEAD: &str = "| option | environment | key | meaning |\n|---|---|---|---|\n";

    fn command() -> Command {
        let listen =
            Arg::new("listen").long("listen").value_name("WHERE").help("Where [default: x]").env("P_LISTEN");
        let on = Arg::new("on").long("on").action(ArgAction::SetTrue);
        let import = Command::new("import")
            .arg(listen.clone())
            .arg(Arg::new("file").value_name("FILE"))
            .arg(Arg::new("days").long("days").value_name("N").default_value("7"));
        Command::new("p").arg(listen).arg(on).subcommand(Command::new("store").subcommand(import))
    }

    fn parse(arguments: &[&str]) -> Option<Value> {
        let matches = command().try_get_matches_from([&["p"], arguments].concat()).ok()?;
        let listen = matches.get_one::<String>("listen").map_or("x", String::as_str);
        Some(json!({"a": {"listen": listen, "on": matches.get_flag("on")}}))
    }

    fn faults(rows: &str) -> Vec<String> {
        let default = json!({"a": {"listen": "x", "on": false}});
        option_faults(&Page::of(&format!("{HEAD}{rows}")), &command(), &default, parse)
    }

    #[test]
    fn options_variables_and_keys_are_compared() {
        let (listen, on) =
            ("| `--listen WHERE` | `P_LISTEN` | `a.listen` | |\n", "| `--on` | | `a.on` | |\n");
        assert_eq!(faults(&[listen, on].concat()), Vec::<String>::new());
        let wrong = [
            (on.to_owned(), "--listen WHERE is not on the page"),
            ([listen, on, "| `--off` | | | |"].concat(), "--off is on the page"),
            ([&listen.replace("P_L", "L"), on].concat(), "the variable is"),
            ([&listen.replace("`P_LISTEN`", ""), on].concat(), "the variable is"),
            ([listen, &on.replace("a.on", "a.off")].concat(), "the key is Some(\"a.on\")"),
        ];
        for (rows, words) in wrong {
            let faults = faults(&rows);
            assert!(faults.iter().any(|fault| fault.contains(words)), "{rows}: {faults:?}");
        }
    }

    #[test]
    fn a_default_in_the_help_is_compared() {
        let rows = "| `--listen WHERE` | `P_LISTEN` | `a.listen` | |\n| `--on` | | `a.on` | |\n";
        let page = Page::of(&format!("{HEAD}{rows}"));
        let default = json!({"a": {"listen": "y", "on": false}});
        let found = option_faults(&page, &command(), &default, |arguments| {
            let mut value = parse(arguments)?;
            if value["a"]["listen"] == "x" {
                value["a"]["listen"] = json!("y");
            }
            Some(value)
        });
        assert!(found.iter().any(|fault| fault.contains("tells the default x, and it is y")), "{found:?}");
    }

    #[test]
    fn subcommands_are_compared_whole() {
        let page = |row: &str| Page::of(&format!("| command | arguments | meaning |\n|---|---|---|\n{row}"));
        let right = "| `store import` | `FILE`, `--days N` (7), all options above | |";
        assert_eq!(command_faults(&page(right), &command()), Vec::<String>::new());
        for wrong in ["", &right.replace("(7)", "(8)"), &right.replace(", all options above", "")] {
            assert!(!command_faults(&page(wrong), &command()).is_empty(), "{wrong}");
        }
    }
}
