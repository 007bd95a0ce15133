//! Options, arguments and subcommands of a command line.

use clap::{Arg, ArgAction, Command};

use crate::{Row, code, sentence};

/// Rows of option, variable, default and meaning, for the options of a command. The meaning is the help.
#[must_use]
pub fn arguments(command: &Command) -> Vec<Row> {
    let row = |arg: &Arg| {
        let default = default(arg).map_or_else(|| "none".to_owned(), |text| code(&text));
        let help = arg.get_help().expect("a help").to_string();
        let (meaning, _) = help.split_once(" [").unwrap_or((&help, ""));
        vec![code(&spelled(arg)), code(&variable(arg)), default, sentence(meaning)]
    };
    command.get_arguments().filter(is_own).map(row).collect()
}

/// Rows of command, arguments and meaning, for all subcommands. Arguments are in the order of the help, each with its
/// default in parentheses; `all options above` are those that `command` itself takes.
#[must_use]
pub fn commands(command: &Command) -> Vec<Row> {
    let above: Vec<String> = command.get_arguments().map(spelled).collect();
    below(command, "", &above)
}

fn below(command: &Command, path: &str, above: &[String]) -> Vec<Row> {
    let of = |command: &Command| {
        let path = format!("{path} {}", command.get_name()).trim().to_owned();
        if command.has_subcommands() {
            return below(command, &path, above);
        }
        let (common, own): (Vec<&Arg>, Vec<&Arg>) =
            command.get_arguments().filter(is_own).partition(|arg| above.contains(&spelled(arg)));
        let own = own.into_iter().map(|arg| match default(arg).filter(|_| takes_value(arg)) {
            Some(default) => format!("{} ({default})", code(&spelled(arg))),
            None => code(&spelled(arg)),
        });
        let common = (!common.is_empty()).then(|| "all options above".to_owned());
        let about = command.get_about().expect("an about").to_string();
        vec![vec![code(&path), own.chain(common).collect::<Vec<_>>().join(", "), sentence(&about)]]
    };
    command.get_subcommands().filter(|it| it.get_name() != "help" && !it.is_hide_set()).flat_map(of).collect()
}

/// An argument as it is typed: `-o, --output FORMAT`, `--insecure`, `FILE`.
pub(crate) fn spelled(arg: &Arg) -> String {
    let value = arg.get_value_names().and_then(|names| names.first());
    let value = value.map_or(arg.get_id().as_str(), |name| name.as_str());
    let Some(long) = arg.get_long() else { return value.to_owned() };
    let short = arg.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
    let value = if takes_value(arg) { format!(" {value}") } else { String::new() };
    format!("{short}--{long}{value}")
}

pub(crate) fn variable(arg: &Arg) -> String {
    arg.get_env().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

fn default(arg: &Arg) -> Option<String> {
    let value = arg.get_default_values().first().map(|value| value.to_string_lossy().into_owned());
    value.or_else(|| told_default(arg))
}

/// The default in the help: `[default: 10s]`.
pub(crate) fn told_default(arg: &Arg) -> Option<String> {
    let help = arg.get_help()?.to_string();
    Some(help.split_once("[default: ")?.1.split_once(']')?.0.to_owned())
}

fn takes_value(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append)
}

pub(crate) fn is_own(arg: &&Arg) -> bool {
    !matches!(arg.get_id().as_str(), "help" | "version")
}
