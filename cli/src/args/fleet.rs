//! Commands about proxy nodes, and about the health of backends.

use std::time::Duration;

use clap::{Arg, ArgMatches, Args as _, Command, FromArgMatches as _};

use super::{HealthArgs, timeout_flag};
use crate::failure::Failure;
use crate::schema::internal;
use crate::value::parse_duration;

/// Action on proxy nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NodeAction {
    /// Lists all nodes.
    List,
    /// Shows a node.
    Show(String),
    /// Excludes a node from the placement of further networks.
    Cordon(String),
    /// Includes a node in placement again.
    Uncordon(String),
    /// Moves the networks of a node to others, and waits for the end of that, up to the given time.
    Drain(String, Option<Duration>),
    /// Removes the record of a dead node.
    Remove(String),
}

/// Commands `node` and `health`.
pub(super) fn commands() -> [Command; 2] {
    let show = HealthArgs::augment_args(Command::new("show").visible_alias("get"));
    let show = show
        .arg(timeout())
        .about("Show the health of a backend, and the verdict of each node that checks it");
    [
        group("node", node_verbs()).alias("nodes").about("Proxy nodes, which run health checks and proxies"),
        group("health", [show.after_help(SHOW_HELP)])
            .about("Health of backends, as the proxy nodes report it"),
    ]
}

fn node_verbs() -> [Command; 6] {
    let verb = |name: &'static str, about: &'static str| {
        let node = Arg::new("node").value_name("NODE").required(true).help("Id of the node; see `node list`");
        Command::new(name).about(about).arg(node).arg(timeout())
    };
    let list = Command::new("list").visible_alias("ls").about("List proxy nodes").arg(timeout());
    [
        list.after_help(LIST_HELP),
        verb("show", "Show a node, and the progress of its drain").visible_alias("get"),
        verb("cordon", "Place no further networks on a node; it keeps those that it has"),
        verb("uncordon", "Place networks on a node again; also ends a drain"),
        verb("drain", "Move all networks of a node to other nodes").arg(drain_wait()).after_help(DRAIN_HELP),
        verb("remove", "Remove a dead node that will not return").visible_alias("rm"),
    ]
}

pub(super) fn timeout() -> Arg {
    timeout_flag("timeout").alias("call-timeout")
}

/// Flag `--wait` of a drain.
fn drain_wait() -> Arg {
    Arg::new("wait")
        .long("wait")
        .value_name("DURATION")
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("10m")
        .value_parser(parse_duration)
        .help("Wait until the node has no networks, up to this time [default: 10m]")
}

/// Command with these verbs.
pub(super) fn group(name: &'static str, verbs: impl IntoIterator<Item = Command>) -> Command {
    Command::new(name).subcommand_required(true).arg_required_else_help(true).subcommands(verbs)
}

/// Parses the action of `node`.
///
/// # Errors
/// Internal error.
pub(super) fn node(matches: &ArgMatches) -> Result<NodeAction, Failure> {
    let (verb, inner) = matches.subcommand().ok_or_else(|| internal("node"))?;
    let node = || inner.get_one::<String>("node").cloned().ok_or_else(|| internal("NODE"));
    Ok(match verb {
        "list" => NodeAction::List,
        "show" => NodeAction::Show(node()?),
        "cordon" => NodeAction::Cordon(node()?),
        "uncordon" => NodeAction::Uncordon(node()?),
        "drain" => NodeAction::Drain(node()?, inner.get_one("wait").copied()),
        "remove" => NodeAction::Remove(node()?),
        verb => return Err(internal(verb)),
    })
}

/// Parses the arguments of `health show`.
///
/// # Errors
/// Internal error.
pub(super) fn health(matches: &ArgMatches) -> Result<HealthArgs, Failure> {
    let (_, show) = matches.subcommand().ok_or_else(|| internal("health"))?;
    HealthArgs::from_arg_matches(show).map_err(|error| internal(&error.to_string()))
}

const LIST_HELP: &str = "\
ALIVE: connected. SILENT: disconnected for a moment; it keeps its networks. DEAD: it gets no traffic until it returns.
CORDONED: no further networks are placed on it. DRAINING: its networks move to other nodes. DRAINED: it has no networks.

Examples:
  fiberlb node list
  fiberlb node list -o json | jq '.[] | select(.status != \"NODE_STATUS_ALIVE\")'";

const DRAIN_HELP: &str = "\
A network leaves the node once other nodes serve it. Established connections may continue until they end, or until the
drain deadline of the plugin (fleet.drain_s). A network that no other node can take stays, with its traffic.

Examples:
  fiberlb node drain node-1 --wait
  fiberlb node drain node-1 --wait=30m && ssh node-1 systemctl stop fiberlb-proxy";

const SHOW_HELP: &str = "\
A backend is down if every node with a verdict reports it down. If the nodes disagree, it is DEGRADED and stays in
rotation. INCONCLUSIVE: the node's probes say nothing about it, such as without a route; its verdict before stands.
LEFT OUT UNTIL: connections to it failed, and by the pool's passive health check the node chooses others, whatever probes say.

Examples:
  fiberlb health show web/app/10.0.1.11:8080
  fiberlb health show web/app/[fd00::11]:8080 -o json";
