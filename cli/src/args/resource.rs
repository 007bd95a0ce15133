//! Commands of one kind of resource: the same five verbs for each, with the flags of its table.

use clap::{Arg, ArgAction, ArgGroup, Command, builder::PossibleValuesParser};

use super::{Verb, WaitFor, flags, timeout_flag};
use crate::failure::Failure;
use crate::kinds::{Kind, Settable};
use crate::schema::Schema;
use crate::value::{choices, parse_duration};

/// Verb of a subcommand, by its name; `None`: `describe`.
pub(super) fn verb(name: &str) -> Option<Verb> {
    Some(match name {
        "create" => Verb::Create,
        "get" => Verb::Get,
        "list" => Verb::List,
        "update" => Verb::Update,
        "delete" => Verb::Delete,
        _ => return None,
    })
}

/// Command of a kind with its verbs.
pub(super) fn command(kind: &'static Kind, schema: &Schema) -> Result<Command, Failure> {
    let verbs = [
        create(kind, schema)?,
        get(kind),
        describe(kind),
        list(kind, schema)?,
        update(kind, schema)?,
        delete(kind),
    ];
    Ok(Command::new(kind.command)
        .about(kind.about)
        .visible_aliases(kind.short)
        .aliases(kind.aliases.iter().copied())
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands(verbs.map(with_timeout)))
}

/// Adds the timeout of calls, under a name that the verb's own flags do not use.
fn with_timeout(command: Command) -> Command {
    let is_taken = command.get_arguments().any(|arg| arg.get_long() == Some("timeout"));
    if is_taken {
        return command.arg(timeout_flag("call-timeout"));
    }
    command.arg(timeout_flag("timeout").alias("call-timeout"))
}

fn create(kind: &'static Kind, schema: &Schema) -> Result<Command, Failure> {
    let flags = flags::of_kind(kind, schema, |when| Some(when == Settable::Required))?;
    let command = Command::new("create")
        .about(format!("Create a {}", kind.label))
        .after_help(format!("Examples:\n{}", kind.examples.create))
        .args(parent(kind, true))
        .args(flags)
        .arg(
            text("id", "UUID")
                .help("Id, a UUID of your choice, so that a retry cannot create a second one [default: new]"),
        )
        .arg(
            text("request-id", "TEXT")
                .help("Idempotency key of this request: a retry returns what the first one created"),
        )
        .arg(dry_run());
    Ok(with_admin_state(command).arg(wait_flag()))
}

fn get(kind: &'static Kind) -> Command {
    Command::new("get")
        .about(format!("Show {}s with all their fields", kind.label))
        .visible_alias("show")
        .after_help(format!(
            "Examples:\n  fiberlb {0} get NAME\n  fiberlb {0} get NAME -o yaml",
            kind.command
        ))
        .arg(references(kind))
}

fn describe(kind: &'static Kind) -> Command {
    Command::new("describe")
        .about(format!("Show {}s with their statuses, health and recent events", kind.label))
        .after_help(format!(
            "Examples:\n  fiberlb {0} describe NAME\n  fiberlb describe {0} NAME",
            kind.command
        ))
        .arg(references(kind))
}

fn list(kind: &'static Kind, schema: &Schema) -> Result<Command, Failure> {
    let status = |flag: &'static str, name: &str| {
        let choices = PossibleValuesParser::new(choices(&schema.enumeration(name)?));
        Ok::<Arg, Failure>(text(flag, "STATUS").ignore_case(true).value_parser(choices))
    };
    let number = |flag: &'static str| text(flag, "N").value_parser(clap::value_parser!(u32).range(1..));
    Ok(Command::new("list")
        .about(format!("List {}s", kind.label))
        .visible_alias("ls")
        .after_help(format!(
            "Examples:\n  fiberlb {0} list\n  fiberlb {0} list --operating-status degraded --tag prod -o json",
            kind.command
        ))
        .args(parent(kind, false))
        .arg(text("name", "NAME").help("Only resources with exactly this name"))
        .arg(text("tag", "TAG").action(ArgAction::Append).help("Only resources with this tag; repeat for several, all of which they must have"))
        .arg(status("status", "ProvisioningStatus")?.help("Only resources with this provisioning status"))
        .arg(status("operating-status", "OperatingStatus")?.help("Only resources with this operating status"))
        .arg(text("sort-by", "FIELD").allow_hyphen_values(true).help("Order by this field, such as name, port or state.created_at; -FIELD or FIELD:desc for the descending order [default: by creation]"))
        .arg(number("limit").help("Maximum number of resources [default: all]"))
        .arg(number("page-size").help("Number of resources in each call [default: the server's]")))
}

fn update(kind: &'static Kind, schema: &Schema) -> Result<Command, Failure> {
    let flags = flags::of_kind(kind, schema, |when| (when == Settable::Always).then_some(false))?;
    let clearable = kind.fields.iter().filter(|field| field.when == Settable::Always).map(|field| field.flag);
    let clear = text("clear", "FLAG")
        .action(ArgAction::Append)
        .value_parser(PossibleValuesParser::new(clearable))
        .hide_possible_values(true)
        .help("Reset the field of this flag (without dashes) to its default; repeat for several");
    let command = Command::new("update")
        .about(format!("Change a {}; fields that are not given stay", kind.label))
        .visible_alias("set")
        .after_help(format!("Examples:\n{}", kind.examples.update))
        .arg(reference(kind))
        .args(flags)
        .arg(clear)
        .arg(etag())
        .arg(dry_run());
    Ok(with_admin_state(command).arg(wait_flag()))
}

fn delete(kind: &'static Kind) -> Command {
    let cascade = Arg::new("cascade")
        .long("cascade")
        .action(ArgAction::SetTrue)
        .help("Delete everything below it too; without it, refused if there is anything");
    let example = if kind.cascade { " --cascade" } else { "" };
    Command::new("delete")
        .about(format!("Delete {}s", kind.label))
        .visible_alias("rm")
        .after_help(format!(
            "Examples:\n  fiberlb {0} delete NAME{example} --wait\n  fiberlb {0} delete NAME OTHER",
            kind.command
        ))
        .arg(references(kind))
        .args(kind.cascade.then_some(cascade))
        .arg(etag())
        .arg(
            Arg::new("ignore-missing")
                .long("ignore-missing")
                .action(ArgAction::SetTrue)
                .help("Succeed also where there is none of a name or id"),
        )
        .arg(dry_run())
        .arg(wait_flag())
}

/// Flag `--dry-run` of a write.
fn dry_run() -> Arg {
    Arg::new("dry-run")
        .long("dry-run")
        .action(ArgAction::SetTrue)
        .help("Check everything and show the outcome, without writing it")
}

/// Flag of the parent.
fn parent(kind: &Kind, required: bool) -> Option<Arg> {
    let parent = kind.parent?;
    let help = format!("Parent {}: {}", parent.label, parent.reference);
    let arg = Arg::new("parent").long(parent.flag()).value_name("REF").required(required).help(help);
    Some(if parent.flag() == "load-balancer" { arg.visible_alias("lb") } else { arg })
}

/// Adds the three flags of the administrative state.
fn with_admin_state(command: Command) -> Command {
    let switch = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).action(ArgAction::SetTrue).help(help)
    };
    command
        .arg(switch("enable", "Enable it"))
        .arg(switch("disable", "Disable it: it stays stored, but serves nothing"))
        .arg(
            text("admin-state", "STATE")
                .value_parser(["up", "down"])
                .ignore_case(true)
                .help("Administrative state: up for --enable, down for --disable [default at create: up]"),
        )
        .group(ArgGroup::new("administrative state").args(["enable", "disable", "admin-state"]))
}

/// Flag `--wait`, `--wait=2m`, `--wait=online`, `--wait=online,2m`.
pub(super) fn wait_flag() -> Arg {
    Arg::new("wait")
        .long("wait")
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("60s")
        .value_name("DURATION|online")
        .value_parser(parse_wait)
        .help("Wait until it is active (or, for delete, deleted), or with `online` until it serves too, up to this time, else exit with code 3 [default: 60s]")
}

/// Parses the value of `--wait`.
///
/// # Errors
/// Message for the user.
pub(super) fn parse_wait(text: &str) -> Result<WaitFor, String> {
    let (online, time) = match text.strip_prefix("online") {
        Some("") => (true, "60s"),
        Some(rest) => (true, rest.strip_prefix(',').ok_or("write online or online,DURATION")?),
        None => (false, text),
    };
    let time = parse_duration(time).map_err(|why| format!("{why}, or online, or online,5m"))?;
    Ok(WaitFor { online, time })
}

fn etag() -> Arg {
    text("etag", "ETAG").help("Refuse if it was changed since it had this etag")
}

fn reference(kind: &Kind) -> Arg {
    Arg::new("ref").value_name("REF").required(true).help(format!(
        "{}: {}",
        capitalised(kind.label),
        kind.reference
    ))
}

fn references(kind: &Kind) -> Arg {
    reference(kind).num_args(1..)
}

fn text(flag: &'static str, value_name: &'static str) -> Arg {
    Arg::new(flag).long(flag).value_name(value_name)
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}
