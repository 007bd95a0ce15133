//! Command line: its definition and its parsed form.

mod flags;
mod fleet;
mod ovn;
mod read;
mod resource;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::OsStr;
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches as _, ValueEnum, parser::ValueSource};
use clap_complete::Shell;

pub(crate) use fleet::NodeAction;
pub(crate) use read::{FieldChanges, duration_value, field_changes, filters, word, words};

use crate::failure::{EXIT_CODES, Failure};
use crate::kinds::{self, Kind};
use crate::schema::{Schema, internal};
use crate::value::{parse_duration, show_duration};

/// Format of results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Tables, for people.
    Table,
    /// Tables with ids and networks.
    Wide,
    /// References only, a line each, which other commands accept.
    Name,
    /// Canonical JSON of the API's messages, with the field names of the `.proto` files.
    Json,
    /// The same as YAML, which `apply` reads.
    Yaml,
    /// Values that a JSONPath (RFC 9535) selects in the JSON, a line each.
    JsonPath(String),
}

impl Format {
    /// True for text that people read; it has no fixed form.
    pub(crate) fn is_for_people(&self) -> bool {
        matches!(self, Self::Table | Self::Wide | Self::Name)
    }
}

/// Parses the value of `--output`.
///
/// # Errors
/// Message for the user.
fn parse_format(text: &str) -> Result<Format, String> {
    Ok(match text {
        "table" => Format::Table,
        "wide" => Format::Wide,
        "name" => Format::Name,
        "json" => Format::Json,
        "yaml" => Format::Yaml,
        _ => {
            let path = text
                .strip_prefix("jsonpath=")
                .ok_or("give table, wide, name, json, yaml or jsonpath=PATH")?;
            Format::JsonPath(json_path(path)?)
        }
    })
}

/// JSONPath in the form of RFC 9535. Braces and a missing `$`, as other commands have it, are accepted.
fn json_path(text: &str) -> Result<String, String> {
    let inner = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(text);
    let path = match inner.chars().next() {
        Some('$') => inner.to_owned(),
        Some('.' | '[') => format!("${inner}"),
        Some(_) => format!("$.{inner}"),
        None => return Err("give a path after jsonpath=, such as $[*].name of a list or $.name".to_owned()),
    };
    match serde_json_path::JsonPath::parse(&path) {
        Ok(_) => Ok(path),
        Err(error) => Err(format!("{path:?} is not a JSONPath (RFC 9535): {error}")),
    }
}

/// Use of colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl From<Color> for anstream::ColorChoice {
    fn from(color: Color) -> Self {
        match color {
            Color::Auto => Self::Auto,
            Color::Always => Self::Always,
            Color::Never => Self::Never,
        }
    }
}

/// Options of every command, before or after its name.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connection and output")]
pub(crate) struct Globals {
    /// Address of the plugin's API: `http://HOST:PORT`, or `https://` with `--ca-cert`; without a scheme it is `http://`
    #[arg(
        long,
        global = true,
        hide_env_values = true,
        env = "FIBERLB_ENDPOINT",
        default_value = "http://127.0.0.1:9630",
        value_name = "URL"
    )]
    pub(crate) endpoint: String,
    /// PEM file with the CA of the plugin's certificate; needed for `https://`
    #[arg(long, global = true, hide_env_values = true, env = "FIBERLB_CA_CERT", value_name = "FILE")]
    pub(crate) ca_cert: Option<PathBuf>,
    /// PEM file with your own certificate, for a server that asks for one (`fiberlb-plugin` does not); with `--client-key` and `--ca-cert`
    #[arg(long, global = true, hide_env_values = true, env = "FIBERLB_CLIENT_CERT", value_name = "FILE")]
    pub(crate) client_cert: Option<PathBuf>,
    /// PEM file with its private key
    #[arg(long, global = true, hide_env_values = true, env = "FIBERLB_CLIENT_KEY", value_name = "FILE")]
    pub(crate) client_key: Option<PathBuf>,
    /// Format of results: `table`, `wide` (with ids), `name`, `json`, `yaml`, or `jsonpath=PATH` (RFC 9535)
    #[arg(short, long, global = true, value_parser = parse_format, default_value = "table", value_name = "FORMAT")]
    pub(crate) output: Format,
    /// Colours: `auto`, `always` or `never`; `auto` is on a terminal, unless `NO_COLOR` is set
    #[arg(long, global = true, value_enum, hide_possible_values = true, default_value_t = Color::Auto, value_name = "WHEN")]
    pub(crate) color: Color,
    /// Timeout of the connection and of each call.
    #[arg(skip = DEFAULT_TIMEOUT)]
    pub(crate) timeout: Duration,
}

/// Default of `--timeout`.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Files with trees and resources.
#[derive(Args, Clone, Debug)]
pub(crate) struct FileArgs {
    /// YAML or JSON file, or a folder with such files; - for standard input; repeat for several
    #[arg(short, long = "file", value_name = "FILE", required_unless_present = "files")]
    file: Vec<PathBuf>,
    /// The same, without the flag
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

impl FileArgs {
    /// All paths, in the order of each way of giving them.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.file.iter().chain(&self.files).map(PathBuf::as_path)
    }
}

/// True if a write is only to be checked.
pub(crate) fn is_dry_run(matches: &ArgMatches) -> bool {
    matches.get_flag("dry-run")
}

/// Arguments of `delete`.
#[derive(Args, Clone, Debug)]
pub(crate) struct DeleteArgs {
    /// Files
    #[command(flatten)]
    pub(crate) files: FileArgs,
    /// Show what would be deleted, without deleting it
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Arguments of `apply`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ApplyArgs {
    /// Files
    #[command(flatten)]
    pub(crate) files: FileArgs,
    /// Check everything and show the changes, without writing them
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Show what is created, changed (field, old and new value) and deleted, by name
    #[arg(long)]
    pub(crate) diff: bool,
    /// Refuse if the load balancer itself (not its children) was changed since it had this etag
    #[arg(long)]
    pub(crate) etag: Option<String>,
}

/// Arguments of `watch` and `stats`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ScopeArgs {
    /// Load balancer: id or name [default: all]
    #[arg(value_name = "LB")]
    pub(crate) load_balancer: Option<String>,
}

/// Arguments of `tree`.
#[derive(Args, Clone, Debug)]
pub(crate) struct TreeArgs {
    /// Load balancers
    #[command(flatten)]
    pub(crate) scope: ScopeArgs,
    /// Print what `apply` reads and no more, as YAML to keep in git: no ids, no statuses, no defaults
    #[arg(long)]
    pub(crate) bare: bool,
    /// Draw only what is not ACTIVE, or neither ONLINE nor NO_MONITOR, and count it
    #[arg(long, conflicts_with = "bare")]
    pub(crate) bad: bool,
}

/// Arguments of `describe`.
#[derive(Args, Clone, Debug)]
pub(crate) struct DescribeArgs {
    /// Load balancer: id or name; or a kind, such as `backend`, with the REF of one
    #[arg(value_name = "LB|KIND")]
    load_balancer: String,
    /// Resource of that kind, as `get` takes it
    #[arg(value_name = "REF")]
    reference: Option<String>,
}

impl DescribeArgs {
    /// Kind, and reference.
    fn resource(self) -> Result<(&'static Kind, String), Failure> {
        let Some(reference) = self.reference else { return Ok((&kinds::LOAD_BALANCER, self.load_balancer)) };
        match Kind::of_word(&self.load_balancer) {
            Some(kind) => Ok((kind, reference)),
            None => Err(Failure::usage(format!(
                "{:?} is not a kind; give {}",
                self.load_balancer,
                kinds::ALL.map(|kind| kind.command).join(", ")
            ))),
        }
    }
}

/// Arguments of `logs`.
#[derive(Args, Clone, Debug)]
pub(crate) struct LogsArgs {
    /// Listener: id, name, LB/NAME, LB/PORT or LB/PROTOCOL:PORT
    #[arg(value_name = "LISTENER")]
    pub(crate) listener: String,
    /// Follow: what there is anyway, since nodes keep no connections that have ended
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// End after so many connections
    #[arg(short = 'n', long = "count", value_parser = clap::value_parser!(u64).range(1..), value_name = "COUNT")]
    pub(crate) count: Option<u64>,
}

/// Arguments of `health show`.
#[derive(Args, Clone, Debug)]
pub(crate) struct HealthArgs {
    /// Backend: id, name, POOL/NAME or POOL/ADDRESS:PORT ([v6]:PORT); POOL may be LB/POOL
    #[arg(value_name = "BACKEND")]
    pub(crate) backend: String,
}

/// Arguments of `completions`.
#[derive(Args, Clone, Debug)]
pub(crate) struct CompletionsArgs {
    /// Your shell
    #[arg(value_enum)]
    pub(crate) shell: Shell,
}

/// Arguments of `manual`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ManualArgs {
    /// Directory for the pages; it must be there
    pub(crate) directory: PathBuf,
}

/// Verb on a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Creates one.
    Create,
    /// Shows some.
    Get,
    /// Lists all that match.
    List,
    /// Changes one.
    Update,
    /// Deletes some.
    Delete,
}

/// Wait for what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WaitFor {
    /// True: also until it serves.
    pub(crate) online: bool,
    /// Timeout.
    pub(crate) time: Duration,
}

/// Status that `fiberlb wait` waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Condition {
    /// Everything in the tree is active.
    Active,
    /// The same, and the load balancer serves.
    Online,
    /// The load balancer is deleted.
    Deleted,
}

/// Arguments of `wait`.
#[derive(Args, Clone, Debug)]
pub(crate) struct WaitArgs {
    /// Load balancer: id or name
    #[arg(value_name = "LB")]
    pub(crate) load_balancer: String,
    /// Status to wait for, `active`, `online` or `deleted`
    #[arg(long = "for", value_enum, hide_possible_values = true, default_value_t = Condition::Online, value_name = "STATUS")]
    pub(crate) condition: Condition,
    /// Timeout, after which the exit code is 3
    #[arg(long, default_value = "60s", value_parser = parse_duration, value_name = "DURATION")]
    pub(crate) timeout: Duration,
}

/// Parsed command.
#[derive(Debug)]
pub(crate) enum Action {
    /// Verb on a resource, with its flags.
    Resource(&'static Kind, Verb, ArgMatches),
    /// Application of files, and `--wait`.
    Apply(ApplyArgs, Option<WaitFor>),
    /// Comparison of files with what is stored.
    Diff(FileArgs),
    /// Deletion of the load balancers of files, and `--wait`.
    Delete(DeleteArgs, Option<WaitFor>),
    /// Wait for a status of a tree.
    Wait(WaitArgs),
    /// All that is known of resources of a kind.
    Describe(&'static Kind, Vec<String>),
    /// Drawing of one tree or all.
    Tree(TreeArgs),
    /// Events of one tree or all.
    Watch(ScopeArgs),
    /// Traffic of one tree or all.
    Stats(ScopeArgs),
    /// Connections of a listener.
    Logs(LogsArgs),
    /// Action on proxy nodes.
    Node(NodeAction),
    /// Health of a backend, by node.
    Health(HealthArgs),
    /// Compare OVN with what it should hold.
    VerifyOvn,
    /// Completions for a shell.
    Completions(Shell),
    /// Manual pages, into a directory.
    Manual(PathBuf),
    /// Version of this program.
    Version,
}

impl Action {
    /// Refuses a format that means nothing here.
    fn check(&self, format: &Format) -> Result<(), Failure> {
        let takes = match self {
            Self::Resource(..) | Self::Delete(..) | Self::Wait(_) => return Ok(()),
            Self::Completions(_) | Self::Manual(_) => return Ok(()),
            Self::Tree(TreeArgs { bare: true, .. }) => "yaml, json or jsonpath=PATH",
            Self::Tree(TreeArgs { bad: true, .. }) | Self::Describe(..) => "table",
            Self::Apply(..) | Self::Tree(_) | Self::Node(_) => "table, name, json, yaml or jsonpath=PATH",
            Self::Watch(_) => "table, wide, json, yaml or jsonpath=PATH",
            Self::Diff(_)
            | Self::Stats(_)
            | Self::Logs(_)
            | Self::Health(_)
            | Self::Version
            | Self::VerifyOvn => "table, json, yaml or jsonpath=PATH",
        };
        let word = match format {
            Format::Table => return Ok(()),
            Format::Wide => "wide",
            Format::Name => "name",
            Format::Json => "json",
            Format::Yaml => "yaml",
            Format::JsonPath(_) => "jsonpath",
        };
        if takes.contains(word) {
            return Ok(());
        }
        Err(Failure::usage(format!("-o {word} is not possible here; give {takes}")))
    }
}

/// Definition of the whole command line.
///
/// # Errors
/// Internal error.
pub(crate) fn command(schema: &Schema) -> Result<Command, Failure> {
    let mut command = Command::new("fiberlb")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true);
    command = Globals::augment_args(command)
        .arg(timeout_flag("timeout").alias("call-timeout"))
        .about("Load balancers on OVN overlays: create, change and watch them")
        .after_help(
            EXIT_CODES
                .iter()
                .fold(AFTER_HELP.to_owned(), |help, (code, meaning)| format!("{help}  {code}  {meaning}\n")),
        );
    for kind in kinds::ALL {
        command = command.subcommand(resource::command(kind, schema)?);
    }
    Ok(command.subcommands(fleet::commands()).subcommand(ovn::command()).subcommands(other_commands()))
}

/// Turns what the environment sets into defaults, so that usage lines and `arg_required_else_help` count only what was typed. An
/// empty variable counts as unset.
pub(crate) fn with_environment(command: Command) -> Command {
    let command = command.mut_args(|arg| {
        let Some(variable) = arg.get_env().map(|name| name.to_string_lossy().into_owned()) else {
            return arg;
        };
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let value = std::env::var_os(&variable).filter(|value| !value.is_empty());
        let arg = arg.env(None::<&str>).help(format!("{help} [env: {variable}]"));
        match value {
            Some(value) => arg.hide_default_value(true).default_value(OsStr::from(value)),
            None => arg,
        }
    });
    command.mut_subcommands(with_environment)
}

/// Refuses a value after `--wait`, which it takes after `=` only: without that a resource may be called so.
///
/// # Errors
/// Usage failure with what to write.
pub(crate) fn check_wait(words: &[OsString]) -> Result<(), Failure> {
    let words = words.iter().map(|word| word.to_str().unwrap_or_default()).take_while(|word| *word != "--");
    let words: Vec<&str> = words.collect();
    let is_value = |text: &&str| resource::parse_wait(text).is_ok();
    let value = words.windows(2).find_map(|pair| match pair {
        ["--wait", value] => Some(*value).filter(is_value),
        _ => None,
    });
    value.map_or(Ok(()), |value| Err(Failure::usage(format!("--wait {value}: write --wait={value}"))))
}

/// Removes the tip to write another flag, and the usage with that flag, unless that begins as the unknown one does.
pub(crate) fn without_far_tip(mut error: clap::Error) -> clap::Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.clone(),
        _ => String::new(),
    };
    let (given, tip) = (text(ContextKind::InvalidArg), text(ContextKind::SuggestedArg));
    let first = |flag: &str| flag.trim_start_matches('-').chars().next();
    if !tip.is_empty() && first(&given) != first(&tip) {
        error.remove(ContextKind::SuggestedArg);
        error.remove(ContextKind::Usage);
    }
    error
}

/// Commands that are not verbs on a resource.
fn other_commands() -> [Command; 12] {
    let timeout = || timeout_flag("timeout").alias("call-timeout");
    // `about` comes last: the derived arguments have their own.
    let apply = ApplyArgs::augment_args(Command::new("apply")).arg(resource::wait_flag()).arg(timeout());
    let describe = DescribeArgs::augment_args(Command::new("describe")).arg(timeout());
    let tree = TreeArgs::augment_args(Command::new("tree")).arg(timeout());
    let watch = ScopeArgs::augment_args(Command::new("watch")).arg(timeout());
    let stats = ScopeArgs::augment_args(Command::new("stats")).arg(timeout());
    let logs = LogsArgs::augment_args(Command::new("logs")).arg(timeout());
    let diff = FileArgs::augment_args(Command::new("diff")).arg(timeout());
    let delete = DeleteArgs::augment_args(Command::new("delete")).arg(resource::wait_flag()).arg(timeout());
    let wait = WaitArgs::augment_args(Command::new("wait")).arg(timeout_flag("call-timeout"));
    let completions = CompletionsArgs::augment_args(Command::new("completions"));
    [
        apply.about("Create or replace whole trees from files").after_help(APPLY_HELP),
        diff.about("Show what apply would create, change and delete").after_help(DIFF_HELP),
        delete.about("Delete the load balancers and resources that files describe").after_help(DELETE_HELP),
        wait.about("Wait until a load balancer with everything below it has a status").after_help(WAIT_HELP),
        describe
            .about("Show all that is known of a load balancer, or of a resource in it, with recent events")
            .after_help(DESCRIBE_HELP),
        tree.about("Draw a load balancer with everything below it, and its statuses").after_help(TREE_HELP),
        watch.about("Show changes as they happen, a line each, until interrupted").after_help(WATCH_HELP),
        stats
            .about("Show the traffic of listeners, and of one load balancer's backends, over all nodes")
            .after_help(STATS_HELP),
        logs.about("Show the connections of a listener as they end, a line each, until interrupted")
            .after_help(LOGS_HELP),
        completions.about("Print the completions of a shell").after_help(COMPLETIONS_HELP),
        Command::new("version").about("Print the version of this command"),
        // For packages.
        ManualArgs::augment_args(Command::new("manual")).hide(true),
    ]
}

/// Flag of the timeout of calls. Each command has its own, since `healthcheck` needs the name `--timeout` for probes.
fn timeout_flag(name: &'static str) -> Arg {
    Arg::new("call-timeout")
        .long(name)
        .env("FIBERLB_TIMEOUT")
        .hide_env(true)
        .value_name("DURATION")
        .value_parser(parse_duration)
        .help_heading("Connection and output")
        .help(format!(
            "Timeout of the connection and of each answer: `5s`, `500ms`, `2m30s`; where a command has a \
             `--timeout` of its own it is `--call-timeout` [default: {}]",
            show_duration(DEFAULT_TIMEOUT)
        ))
}

/// Converts what clap has matched.
///
/// # Errors
/// Internal error: clap has refused the errors of users.
pub(crate) fn parse(matches: &ArgMatches) -> Result<(Globals, Action), Failure> {
    let mut globals = Globals::from_arg_matches(matches).map_err(|error| internal(&error.to_string()))?;
    globals.timeout = call_timeout(matches).unwrap_or(DEFAULT_TIMEOUT);
    let action = action(matches)?;
    action.check(&globals.output)?;
    Ok((globals, action))
}

fn action(matches: &ArgMatches) -> Result<Action, Failure> {
    let Some((name, inner)) = matches.subcommand() else { return Err(internal("no command")) };
    let wrong = |error: clap::Error| internal(&error.to_string());
    Ok(match name {
        "apply" => Action::Apply(ApplyArgs::from_arg_matches(inner).map_err(wrong)?, wait(inner)),
        "diff" => Action::Diff(FileArgs::from_arg_matches(inner).map_err(wrong)?),
        "delete" => Action::Delete(DeleteArgs::from_arg_matches(inner).map_err(wrong)?, wait(inner)),
        "wait" => Action::Wait(WaitArgs::from_arg_matches(inner).map_err(wrong)?),
        "describe" => {
            let (kind, reference) = DescribeArgs::from_arg_matches(inner).map_err(wrong)?.resource()?;
            Action::Describe(kind, vec![reference])
        }
        "tree" => Action::Tree(TreeArgs::from_arg_matches(inner).map_err(wrong)?),
        "stats" => Action::Stats(ScopeArgs::from_arg_matches(inner).map_err(wrong)?),
        "logs" => Action::Logs(LogsArgs::from_arg_matches(inner).map_err(wrong)?),
        "watch" => Action::Watch(ScopeArgs::from_arg_matches(inner).map_err(wrong)?),
        "node" => Action::Node(fleet::node(inner)?),
        "health" => Action::Health(fleet::health(inner)?),
        "ovn" => Action::VerifyOvn,
        "completions" => Action::Completions(CompletionsArgs::from_arg_matches(inner).map_err(wrong)?.shell),
        "version" => Action::Version,
        "manual" => Action::Manual(ManualArgs::from_arg_matches(inner).map_err(wrong)?.directory),
        name => {
            let (kind, (verb, matches)) =
                Kind::of_word(name).zip(inner.subcommand()).ok_or_else(|| internal(name))?;
            match resource::verb(verb) {
                Some(verb) => Action::Resource(kind, verb, matches.clone()),
                None => Action::Describe(kind, words(matches, "ref")),
            }
        }
    })
}

/// Timeout of calls: of the innermost command that has the flag, or else of the environment.
fn call_timeout(matches: &ArgMatches) -> Option<Duration> {
    let typed = |matches: &ArgMatches| {
        let is_typed = matches.try_contains_id("call-timeout").is_ok()
            && matches.value_source("call-timeout") == Some(ValueSource::CommandLine);
        if is_typed { matches.get_one("call-timeout").copied() } else { None }
    };
    let (mut current, mut found) = (matches, typed(matches));
    while let Some((_, inner)) = current.subcommand() {
        found = typed(inner).or(found);
        current = inner;
    }
    found.or_else(|| matches.get_one("call-timeout").copied())
}

/// Value of `--wait`; `None` without the flag.
pub(crate) fn wait(matches: &ArgMatches) -> Option<WaitFor> {
    matches.get_one("wait").copied()
}

const AFTER_HELP: &str = "\
Examples:
  fiberlb lb create --name web --network tenant-a --wait
  fiberlb pool create --load-balancer web --name app --protocol tcp
  fiberlb backend create --pool web/app --address 10.0.1.11 --port 8080
  fiberlb listener create --load-balancer web --protocol tcp --port 80 --default-pool app --wait
  fiberlb tree web
  fiberlb health show web/app/10.0.1.11:8080
  fiberlb tree web --bare > web.yaml; $EDITOR web.yaml; fiberlb apply -f web.yaml --wait

A resource is given by its id, by its name if the name is unique, or as PARENT/NAME:
  web/app, web/app/10.0.1.11:8080, web/tcp:80 (a listener by its port)

Exit codes:
";

const APPLY_HELP: &str = "\
Each document of the file is one tree: load_balancer, listeners, pools (each with pool, backends, health_check).
Resources that are not stored yet are created, stored ones that are not in the tree are deleted, others are updated, in
one atomic write for each tree. Keys may be snake_case or camelCase, enum values short (TCP), durations 5s or 500ms.
A listener's default_pool_id, and pool_id in its weighted_pools, may be the name of a pool of the same tree. Output-only
fields (state) are ignored, so that the output of `tree -o yaml`, and of `tree --bare`, is valid input. A document with
a single resource (the output of `get -o yaml`) updates that resource, or creates it if its id is unknown. With
--dry-run --diff the exit code is 4 if something would change, as of `diff`.

Examples:
  fiberlb apply -f web.yaml --dry-run --diff
  fiberlb apply web.yaml dns.yaml --wait=online
  fiberlb apply balancers/
  fiberlb apply -f web.yaml --wait=2m
  fiberlb tree web -o yaml | sed 's/weight: 1/weight: 2/' | fiberlb apply -f -

  load_balancer: {name: web, network: tenant-a}
  listeners:
    - {protocol: TCP, port: 80, default_pool_id: app}
  pools:
    - pool: {name: app, protocol: TCP, algorithm: ROUND_ROBIN}
      backends:
        - {address: 10.0.1.11, port: 8080}
        - {address: 10.0.1.12, port: 8080, weight: 3}
      health_check: {type: TCP, delay: 5s, timeout: 2s}";

const DIFF_HELP: &str = "\
Exit code 0: nothing would change. 4: something would.

Examples:
  fiberlb diff -f web.yaml
  fiberlb diff -f balancers/ -o json | jq '.[] | select(.action == \"delete\")'";

const DELETE_HELP: &str = "\
A tree is found by its id, or by its name, and deleted with everything below it. What is not stored is skipped. A single
load balancer of a tree: fiberlb lb delete NAME --cascade.

Examples:
  fiberlb delete -f web.yaml --dry-run
  fiberlb delete -f web.yaml --wait";

const WAIT_HELP: &str = "\
online: everything in the tree is active, the load balancer serves, and each backend that is checked has been: a new
checked pool serves with its first good probe, one that served before goes on to.

Examples:
  fiberlb wait web
  fiberlb wait web --for deleted --timeout 2m";

const DESCRIBE_HELP: &str = "\
Shows its fields, what stands below it with statuses, what the nodes say of backends that are down or in doubt, and recent
events: changes of statuses that the answering plugin has seen since it started, the latest 100 of each load balancer.

Examples:
  fiberlb describe web
  fiberlb describe backend web/app/10.0.1.11:8080
  fiberlb pool describe web/app";

const TREE_HELP: &str = "\
--bare prints what `apply -f` reads: pools by name, other children by their ports and addresses. A load balancer or pool
that has no name, or shares it, keeps its id. Its output, applied, changes nothing.

Examples:
  fiberlb tree
  fiberlb tree web
  fiberlb tree --bad
  fiberlb tree web --bare > web.yaml; git add web.yaml";

const WATCH_HELP: &str = "\
Shows the present state first, then each change. With -o json, each line is one object.

Examples:
  fiberlb watch
  fiberlb watch web -o json | jq .backend.state.reason";

const STATS_HELP: &str = "\
ACTIVE: connections at this moment. FAILED: clients that were not served, for a limit or for want of a backend; of a backend,
attempts to connect that failed. Nodes report every 5 s. What OVN carries itself is not counted: OVN has no counters for it.

Examples:
  fiberlb stats web
  fiberlb stats -o json | jq '.[] | {id: .load_balancer_id, bytes: .traffic.bytes_out_total}'";

const LOGS_HELP: &str = "\
Each line: when the client was accepted, on which node; client and backend; why the connection ended, after how long; bytes
from and to the client; why it was this backend. What OVN carries itself is not logged: OVN knows no connections.

Examples:
  fiberlb logs web/80 -f
  fiberlb logs web/80 -o json | jq -r 'select(.reason != \"closed\") | .client'";

const COMPLETIONS_HELP: &str = "\
These complete commands, options and their values. With names of load balancers, pools, backends and nodes, which the
server at --endpoint or FIBERLB_ENDPOINT is asked for at each TAB (for at most a second):
  source <(COMPLETE=bash fiberlb)
  source <(COMPLETE=zsh fiberlb)
  COMPLETE=fish fiberlb | source

Examples:
  fiberlb completions bash > /etc/bash_completion.d/fiberlb
  source <(fiberlb completions zsh)";
