//! Comparison of `docs/configuration.md` with the common options, environment variables and exit codes.

use std::collections::BTreeSet;

use clap::{Arg, Command};
use fiberlb_pages::{Page, one_sided, spans, spelled};

use super::{AFTER_HELP, DEFAULT_TIMEOUT, command};
use crate::failure::Exit;
use crate::schema::Schema;
use crate::value::{parse_duration, show_duration};

fn page() -> Page {
    Page::read("configuration.md").unwrap().below("fiberlb").unwrap()
}

fn root() -> Command {
    let mut command = command(&Schema::load().unwrap()).unwrap();
    command.build();
    command
}

fn is_own(arg: &&Arg) -> bool {
    !matches!(arg.get_id().as_str(), "help" | "version")
}

/// Expected row of an option: its spelling, variable and default.
fn row(arg: &Arg) -> String {
    let code = |text: Option<String>| text.map_or_else(String::new, |text| format!("`{text}`"));
    let variable = code(arg.get_env().map(|name| name.to_string_lossy().into_owned()));
    let default = arg.get_default_values().first().map(|value| value.to_string_lossy().into_owned());
    let default = match arg.get_id().as_str() {
        "call-timeout" => Some(show_duration(DEFAULT_TIMEOUT)),
        _ => default,
    };
    let default = default.map_or_else(|| "none".to_owned(), |text| format!("`{text}`"));
    format!("| `{}` | {variable} | {default} |", spelled(arg))
}

#[test]
fn each_common_option_is_there_with_its_variable_and_default() {
    let rows = page().tables(&["option", "environment", "default", "meaning"]);
    let said = rows.iter().map(|row| format!("| {} |", row[..3].join(" | "))).collect();
    let known = root().get_arguments().filter(is_own).map(row).collect();
    assert_eq!(one_sided(&known, &said), Vec::<String>::new());
}

#[test]
fn a_choice_is_told_whole() {
    let rows = page().tables(&["option", "environment", "default", "meaning"]);
    for arg in root().get_arguments().filter(is_own) {
        let meaning =
            rows.iter().find(|row| row[0] == format!("`{}`", spelled(arg))).map(|row| row[3].clone());
        let told = meaning.unwrap_or_default();
        for choice in arg.get_possible_values() {
            assert!(spans(&told).contains(&choice.get_name()), "{}: {}", spelled(arg), choice.get_name());
        }
    }
}

/// Environment variables of all commands.
fn variables(command: &Command) -> BTreeSet<String> {
    let own =
        command.get_arguments().filter_map(Arg::get_env).map(|name| name.to_string_lossy().into_owned());
    own.chain(command.get_subcommands().flat_map(variables)).collect()
}

#[test]
fn no_other_variable_is_named_or_read() {
    assert_eq!(one_sided(&variables(&root()), &page().words("FIBERLB_")), Vec::<String>::new());
}

/// Commands whose timeout of calls is not named `--timeout`.
fn otherwise_named(command: &Command, path: &str) -> BTreeSet<String> {
    let below = command
        .get_subcommands()
        .flat_map(|sub| otherwise_named(sub, format!("{path} {}", sub.get_name()).trim()));
    let is_other = command.get_arguments().any(|arg| arg.get_long() == Some("call-timeout"));
    below.chain(is_other.then(|| path.to_owned())).collect()
}

#[test]
fn the_commands_with_a_timeout_of_their_own_are_named() {
    let rows = page().tables(&["option", "environment", "default", "meaning"]);
    let row = rows.iter().find(|row| row[0].starts_with("`--timeout ")).unwrap();
    let named = spans(&row[3]).into_iter().filter(|span| span.contains(' ')).map(str::to_owned).collect();
    assert_eq!(one_sided(&otherwise_named(&root(), ""), &named), Vec::<String>::new());
    let durations = spans(&row[3]).into_iter().filter(|span| span.starts_with(|c: char| c.is_ascii_digit()));
    assert!(durations.map(parse_duration).all(|read| read.is_ok()), "{row:?}");
}

#[test]
fn each_exit_code_is_there_and_in_the_help() {
    // A new exit code must be added here.
    let all = [Exit::Error, Exit::Usage, Exit::TimedOut];
    let code = |exit: Exit| match exit {
        Exit::Error | Exit::Usage | Exit::TimedOut => (exit as u8).to_string(),
    };
    let codes: BTreeSet<String> = all.map(code).into_iter().chain(["0".to_owned()]).collect();
    let said = page().tables(&["exit code", "meaning"]).into_iter().map(|row| row[0].clone()).collect();
    assert_eq!(one_sided(&codes, &said), Vec::<String>::new());
    let (_, help) = AFTER_HELP.split_once("Exit codes:").unwrap();
    for code in codes {
        assert!(
            help.contains(&format!(" {code} ")) || help.contains(&format!("\n{code} ")),
            "{code}: {help}"
        );
    }
}
