//! The commands about the proxy nodes: who they are, and what they say of backends.

use clap::{ArgMatches, Args as _, Command, FromArgMatches as _};

use super::{HealthArgs, timeout_flag};
use crate::failure::Failure;
use crate::schema::internal;

/// `node` and `health`.
pub(super) fn commands() -> [Command; 2] {
    let timeout = || timeout_flag("timeout").alias("call-timeout");
    let list = Command::new("list").visible_alias("ls").about("List proxy nodes").arg(timeout());
    let show = HealthArgs::augment_args(Command::new("show").visible_alias("get")).arg(timeout());
    let show = show.about("Show whether a backend is up, and what each node that checks it says");
    [
        group("node", list.after_help(LIST_HELP))
            .alias("nodes")
            .about("Proxy nodes: where health checks and proxies run"),
        group("health", show.after_help(SHOW_HELP)).about("Health of backends, as the proxy nodes see it"),
    ]
}

/// A command that has one verb so far.
fn group(name: &'static str, verb: Command) -> Command {
    Command::new(name)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .subcommand(verb)
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

Examples:
  fiberlb node list
  fiberlb node list -o json | jq '.[] | select(.status != \"NODE_STATUS_ALIVE\")'";

const SHOW_HELP: &str = "\
A backend is down when every node that has a verdict on it says so; where the nodes disagree it is DEGRADED and stays in
rotation.

Examples:
  fiberlb health show web/app/10.0.1.11:8080
  fiberlb health show web/app/[fd00::11]:8080 -o json";
