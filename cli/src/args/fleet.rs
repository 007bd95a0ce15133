//! The commands about the proxy nodes: who they are, and what they say of backends.

use std::time::Duration;

use clap::{Arg, ArgMatches, Args as _, Command, FromArgMatches as _};

use super::{HealthArgs, timeout_flag, wait};
use crate::failure::Failure;
use crate::schema::internal;
use crate::value::parse_duration;

/// What is to be done with proxy nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NodeAction {
    /// List all.
    List,
    /// Show one.
    Show(String),
    /// Let it keep what it has, and get no more.
    Cordon(String),
    /// Let it take part again.
    Uncordon(String),
    /// Move what it has to others, and wait so long for the end of that, if at all.
    Drain(String, Option<Duration>),
    /// Forget it.
    Remove(String),
}

/// `node` and `health`.
pub(super) fn commands() -> [Command; 2] {
    let show = HealthArgs::augment_args(Command::new("show").visible_alias("get"));
    let show =
        show.arg(timeout()).about("Show whether a backend is up, and what each node that checks it says");
    [
        group("node", node_verbs()).alias("nodes").about("Proxy nodes: where health checks and proxies run"),
        group("health", [show.after_help(SHOW_HELP)]).about("Health of backends, as the proxy nodes see it"),
    ]
}

fn node_verbs() -> [Command; 6] {
    let verb = |name: &'static str, about: &'static str| {
        let node =
            Arg::new("node").value_name("NODE").required(true).help("Node id, as `node list` shows it");
        Command::new(name).about(about).arg(node).arg(timeout())
    };
    let list = Command::new("list").visible_alias("ls").about("List proxy nodes").arg(timeout());
    [
        list.after_help(LIST_HELP),
        verb("show", "Show a node, and how far its drain is").visible_alias("get"),
        verb("cordon", "Place no more networks on a node; what it has stays"),
        verb("uncordon", "Let a node take its share of the networks again; ends a drain, too"),
        verb("drain", "Move all networks of a node to others").arg(drain_wait()).after_help(DRAIN_HELP),
        verb("remove", "Forget a node that is dead and does not return").visible_alias("rm"),
    ]
}

pub(super) fn timeout() -> Arg {
    timeout_flag("timeout").alias("call-timeout")
}

/// How long to wait for the end of a drain.
fn drain_wait() -> Arg {
    Arg::new("wait")
        .long("wait")
        .value_name("DURATION")
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("10m")
        .value_parser(parse_duration)
        .help("Wait until the node has no network any more, so long at most [default: 10m]")
}

/// A command with these verbs.
pub(super) fn group(name: &'static str, verbs: impl IntoIterator<Item = Command>) -> Command {
    Command::new(name)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .subcommands(verbs)
}

/// What was typed behind `node`.
///
/// # Errors
/// A fault of this program's tables.
pub(super) fn node(matches: &ArgMatches) -> Result<NodeAction, Failure> {
    let (verb, inner) = matches.subcommand().ok_or_else(|| internal("node"))?;
    let node = || inner.get_one::<String>("node").cloned().ok_or_else(|| internal("NODE"));
    Ok(match verb {
        "list" => NodeAction::List,
        "show" => NodeAction::Show(node()?),
        "cordon" => NodeAction::Cordon(node()?),
        "uncordon" => NodeAction::Uncordon(node()?),
        "drain" => NodeAction::Drain(node()?, wait(inner)),
        "remove" => NodeAction::Remove(node()?),
        verb => return Err(internal(verb)),
    })
}

/// What was typed behind `health`.
///
/// # Errors
/// A fault of this program's tables.
pub(super) fn health(matches: &ArgMatches) -> Result<HealthArgs, Failure> {
    let (_, show) = matches.subcommand().ok_or_else(|| internal("health"))?;
    HealthArgs::from_arg_matches(show).map_err(|error| internal(&error.to_string()))
}

const LIST_HELP: &str = "\
ALIVE: connected. SILENT: away for a moment, nothing is taken from it. DEAD: nothing is sent to it until it returns.
CORDONED: no more networks are placed on it. DRAINING: its networks move to others. DRAINED: it has none any more.

Examples:
  fiberlb node list
  fiberlb node list -o json | jq '.[] | select(.status != \"NODE_STATUS_ALIVE\")'";

const DRAIN_HELP: &str = "\
A network leaves the node once other nodes serve it; established connections may go on until they end, or until the
plugin's fleet.drain_s is over. Without another node that can take it, a network stays, and so does its traffic.

Examples:
  fiberlb node drain node-1 --wait
  fiberlb node drain node-1 --wait=30m && ssh node-1 systemctl stop fiberlb-proxy";

const SHOW_HELP: &str = "\
A backend is down when every node that has a verdict on it says so; where the nodes disagree it is DEGRADED and stays in
rotation.

Examples:
  fiberlb health show web/app/10.0.1.11:8080
  fiberlb health show web/app/[fd00::11]:8080 -o json";
