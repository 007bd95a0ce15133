//! Completions of shells, with names that the server knows. They come from this command itself, which the shell runs with
//! `COMPLETE=SHELL` at each TAB; without an answer in time there are none.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::time::Duration;

use clap::builder::StyledStr;
use clap::{ArgMatches, Command, FromArgMatches as _};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{self, CompleteEnv, EnvCompleter, Shells};
use prost_reflect::{DynamicMessage, Value};

use crate::args::{self, Globals};
use crate::client::Client;
use crate::kinds::{self, BACKEND, HEALTH_CHECK, Kind, LOAD_BALANCER, Shape};
use crate::node;
use crate::resolve;
use crate::resource::Resource;
use crate::schema::{Schema, set_at};

/// Time for an answer: whoever presses TAB waits for it.
const DEADLINE: Duration = Duration::from_millis(900);
/// Most resources that are offered.
const MOST: usize = 500;

/// Answers a shell and ends the process, if it was a shell that ran this command.
pub(crate) fn answer_shell() {
    let shells = Shells(&[&Bash, &env::Elvish, &env::Fish, &env::Powershell, &env::Zsh]);
    CompleteEnv::with_factory(command).shells(shells).complete();
}

/// Command line whose references are completed.
fn command() -> Command {
    let whole = Schema::load().and_then(|schema| args::command(&schema));
    let Ok(command) = whole.map(args::with_environment) else { return Command::new("fiberlb") };
    command.mut_subcommands(|group| {
        let kind = kinds::ALL.into_iter().find(|kind| kind.command == group.get_name());
        let (name, group) = (group.get_name().to_owned(), completed(group, kind));
        group.mut_subcommands(|verb| match (kind, name.as_str()) {
            (Some(_), _) => completed(verb, kind),
            (None, "health") => completed(verb, Some(&BACKEND)),
            _ => completed(verb, None),
        })
    })
}

/// Adds completers to the arguments of one command, of a kind or of no kind.
fn completed(command: Command, kind: Option<&'static Kind>) -> Command {
    command.mut_args(|arg| {
        if arg.is_ignore_case_set() {
            let values: Vec<String> =
                arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
            return arg.add(ArgValueCompleter::new(move |typed: &OsStr| in_case_of(&values, typed)));
        }
        let wanted = match (arg.get_id().as_str(), kind) {
            ("ref" | "backend", Some(kind)) => Wanted::Path(kind),
            ("parent", Some(Kind { parent: Some(parent), .. })) => Wanted::Path(parent),
            ("load_balancer", _) => Wanted::Path(&LOAD_BALANCER),
            ("node", _) => Wanted::Node,
            ("network", _) => Wanted::Network,
            (flag, Some(kind)) => {
                let field = kind.fields.iter().find(|field| field.flag == flag).map(|field| field.shape);
                let Some(Shape::Reference(other) | Shape::Weighted(other)) = field else { return arg };
                Wanted::Sibling(other)
            }
            _ => return arg,
        };
        arg.add(ArgValueCompleter::new(move |typed: &OsStr| offered(wanted, typed)))
    })
}

/// Values that begin with `typed` in whichever case, in the one that is typed: small letters unless there is a capital one.
fn in_case_of(values: &[String], typed: &OsStr) -> Vec<CompletionCandidate> {
    let typed = typed.to_str().unwrap_or_default();
    let is_small = !typed.contains(char::is_uppercase);
    let fits = |value: &&String| value.to_lowercase().starts_with(&typed.to_lowercase());
    let shown = |value: &String| if is_small { value.to_lowercase() } else { value.to_uppercase() };
    values.iter().filter(fits).map(|value| CompletionCandidate::new(shown(value))).collect()
}

/// Names that an argument takes.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    /// Resource by its names from the load balancer on.
    Path(&'static Kind),
    /// Resource of the same load balancer, by its own name.
    Sibling(&'static Kind),
    /// Proxy node.
    Node,
    /// Network of a load balancer.
    Network,
}

/// Value, and a note on it.
type Offer = (String, String);

/// Candidates for an argument of which `typed` is there.
fn offered(wanted: Wanted, typed: &OsStr) -> Vec<CompletionCandidate> {
    let Some(typed) = typed.to_str() else { return Vec::new() };
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Vec::new();
    };
    let offers = runtime.block_on(async { tokio::time::timeout(DEADLINE, offers(wanted, typed)).await });
    // A name server that does not answer holds a thread up, which nobody waits for.
    runtime.shutdown_background();
    let offers = offers.ok().flatten().unwrap_or_default();
    let fitting = offers.into_iter().filter(|(value, _)| value.starts_with(typed));
    let candidate = |(value, note): Offer| {
        let note = Some(StyledStr::from(note)).filter(|note| !note.to_string().is_empty());
        CompletionCandidate::new(value).help(note)
    };
    fitting.map(candidate).collect()
}

/// All that the server has, whatever it begins with; `None`: it cannot be had.
async fn offers(wanted: Wanted, typed: &str) -> Option<Vec<Offer>> {
    let schema = Schema::load().ok()?;
    let matches = typed_before(&schema)?;
    let mut globals = Globals::from_arg_matches(&matches).ok()?;
    globals.timeout = DEADLINE;
    let client = Client::connect(schema, &globals).await.ok()?;
    match wanted {
        Wanted::Path(kind) => path(&client, kind, typed).await,
        Wanted::Sibling(kind) => siblings(&client, kind, innermost(&matches)).await,
        Wanted::Node => {
            let nodes = node::ids(&client).await.ok()?;
            Some(nodes.into_iter().map(|id| (id, String::new())).collect())
        }
        Wanted::Network => {
            let mut networks: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for balancer in children(&client, &LOAD_BALANCER, None).await? {
                networks.entry(balancer.show("network")).or_default().push(balancer.label());
            }
            Some(networks.into_iter().map(|(id, users)| (id, users.join(", "))).collect())
        }
    }
}

/// Words of the command line before the one that is completed, as far as they can be understood.
fn typed_before(schema: &Schema) -> Option<ArgMatches> {
    let mut words: Vec<OsString> = std::env::args_os().skip_while(|word| word != "--").skip(1).collect();
    words.pop();
    let command = args::with_environment(args::command(schema).ok()?).ignore_errors(true);
    command.try_get_matches_from(words).ok()
}

fn innermost(matches: &ArgMatches) -> &ArgMatches {
    matches.subcommand().map_or(matches, |(_, inner)| innermost(inner))
}

/// Resources on the level of the path that is being typed; those above the wanted one end with a slash.
async fn path(client: &Client, kind: &'static Kind, typed: &str) -> Option<Vec<Offer>> {
    let levels = levels(kind);
    let depth = typed.matches('/').count();
    let (level, above) = (*levels.get(depth)?, typed.rsplit_once('/').map(|(above, _)| above));
    let parent = match above {
        Some(above) => Some(resolve::id(client, levels.get(depth.checked_sub(1)?)?, above).await.ok()?),
        None => None,
    };
    let above = above.map(|above| format!("{above}/")).unwrap_or_default();
    let end = if depth + 1 < levels.len() { "/" } else { "" };
    let offer = |child: Resource| {
        let name = plain(&child);
        (format!("{above}{name}{end}"), child.show("state.operating_status"))
    };
    Some(children(client, level, parent.as_deref()).await?.into_iter().map(offer).collect())
}

/// Kinds on the way from a load balancer to this one. A health check goes by its pool.
fn levels(kind: &'static Kind) -> Vec<&'static Kind> {
    let own = if kind.field == HEALTH_CHECK.field { None } else { Some(kind) };
    let mut levels = kind.parent.map(levels).unwrap_or_default();
    levels.extend(own);
    levels
}

/// Resources of the load balancer that the rest of the command line names: by `--lb`, or by a path to one below it.
async fn siblings(client: &Client, kind: &'static Kind, matches: &ArgMatches) -> Option<Vec<Offer>> {
    let word = |name: &str| args::word(matches, name);
    let balancer = match matches.try_contains_id("parent") {
        Ok(true) => word("parent")?,
        _ => word("ref")?.split_once('/')?.0.to_owned(),
    };
    let balancer = resolve::id(client, &LOAD_BALANCER, &balancer).await.ok()?;
    let all = children(client, kind, Some(&balancer)).await?;
    let offer = |it: Resource| (plain(&it), String::new());
    Some(all.into_iter().map(offer).collect())
}

/// Name of a resource within its parent. Its id, where a shell would not take the name for a word: tenants choose names, and
/// shells put candidates on the command line as they are.
fn plain(resource: &Resource) -> String {
    resource.own().filter(|name| is_plain(name)).unwrap_or_else(|| resource.id())
}

fn is_plain(name: &str) -> bool {
    let is_plain = |c: char| c.is_alphanumeric() || "._:@%+,=[]-".contains(c);
    name.chars().all(is_plain) && !name.starts_with(['-', '='])
}

async fn children(client: &Client, kind: &'static Kind, parent: Option<&str>) -> Option<Vec<Resource>> {
    let fill = |request: &mut DynamicMessage| match kind.parent.zip(parent) {
        Some((kind, parent)) => set_at(request, &kind.id_field(), Value::String(parent.to_owned())),
        None => Ok(()),
    };
    client.list(kind, MOST, fill).await.ok()
}

/// Bash, which splits words at colons and equals signs: the script joins them again, since addresses and references have colons,
/// and takes from the candidates what bash itself will leave in place.
#[derive(Clone, Copy, Debug)]
struct Bash;

impl EnvCompleter for Bash {
    fn name(&self) -> &'static str {
        env::Bash.name()
    }

    fn is(&self, name: &str) -> bool {
        env::Bash.is(name)
    }

    fn write_registration(
        &self,
        variable: &str,
        _name: &str,
        _bin: &str,
        completer: &str,
        out: &mut dyn io::Write,
    ) -> io::Result<()> {
        let completer = completer.replace('\'', r"'\''");
        out.write_all(BASH.replace("VARIABLE", variable).replace("COMPLETER", &completer).as_bytes())
    }

    fn write_complete(
        &self,
        command: &mut Command,
        words: Vec<OsString>,
        directory: Option<&Path>,
        out: &mut dyn io::Write,
    ) -> io::Result<()> {
        env::Bash.write_complete(command, words, directory, out)
    }
}

const BASH: &str = r#"_fiberlb_complete() {
    local line=$COMP_LINE last=${COMP_WORDS[COMP_CWORD]} word kept= words=()
    # The part before the cursor, unless that ends with a colon.
    if [[ $last != [:=]* ]]; then last=$2; fi
    for word in "${COMP_WORDS[@]:0:COMP_CWORD}" "$last"; do
        if [[ ${#words[@]} -eq 0 || $line == [[:blank:]]* ]]; then
            words+=("$word")
        else
            words[${#words[@]} - 1]+=$word
        fi
        line=${line#"${line%%[![:blank:]]*}"}
        line=${line#"$word"}
    done
    word=${words[${#words[@]} - 1]}
    if [[ $word == *[:=]* && $COMP_WORDBREAKS == *:* ]]; then kept=${word%"${word##*[:=]}"}; fi
    mapfile -t COMPREPLY < <(
        _CLAP_IFS=$'\n' _CLAP_COMPLETE_INDEX=$((${#words[@]} - 1)) _CLAP_COMPLETE_COMP_TYPE=$COMP_TYPE \
            VARIABLE=bash 'COMPLETER' -- "${words[@]}" 2>/dev/null
    )
    COMPREPLY=("${COMPREPLY[@]#"$kept"}")
    if [[ ${COMPREPLY-} == *[=/:] ]]; then compopt -o nospace 2>/dev/null; fi
}
complete -o bashdefault -o nosort -F _fiberlb_complete fiberlb 2>/dev/null ||
    complete -o bashdefault -F _fiberlb_complete fiberlb
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_shell_would_carry_out_are_never_offered() {
        for name in ["web-1", "日本", "10.0.1.11:8080", "[fd00::1]:80", "a.b_c@d"] {
            assert!(is_plain(name), "{name}");
        }
        for name in
            ["$(reboot)", "`id`", "a b", "a;b", "a'b", "~root", "-rf", "a/b", "a*", "!!", "a\\b", "#x"]
        {
            assert!(!is_plain(name), "{name}");
        }
    }

    #[test]
    fn a_reference_is_typed_from_the_load_balancer_on() {
        let commands = |kind| levels(kind).iter().map(|kind| kind.field).collect::<Vec<_>>();
        assert_eq!(commands(&LOAD_BALANCER), ["load_balancer"]);
        assert_eq!(commands(&BACKEND), ["load_balancer", "pool", "backend"]);
        assert_eq!(commands(&HEALTH_CHECK), ["load_balancer", "pool"]);
    }
}
