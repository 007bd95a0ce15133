//! `fiberlb`: the command line of tenants and operators. It knows the public API and nothing else: neither OVN, nor the store, nor
//! the proxies. Resources are tables (`kinds`) over the API's own descriptors (`schema`), so that each function is written once for
//! all kinds.

mod apply;
mod args;
mod bare;
mod changes;
mod client;
mod codec;
mod complete;
mod delete;
mod describe;
mod diff;
#[cfg(test)]
mod docs;
mod document;
mod event;
mod event_stream;
mod failure;
mod health;
mod kinds;
mod logs;
mod names;
mod node;
mod ovn;
mod render;
mod resolve;
mod resource;
mod schema;
mod stats;
mod tree;
mod value;
mod verbs;
mod wait;
mod watch;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::process::ExitCode;

use args::{Action, FileArgs, Globals};
use client::Client;
use document::{Documents, Placed};
use failure::Failure;
use render::{Output, canonical, escape::clean};
use schema::Schema;

fn main() -> ExitCode {
    complete::answer_shell();
    let (schema, globals, action) = match parse_arguments() {
        Ok(parsed) => parsed,
        Err(failure) => {
            let mut out = Output::new(args::Format::Table, anstream::ColorChoice::Auto);
            return exit_code(&mut out, Err(failure));
        }
    };
    let mut out = Output::new(globals.output.clone(), globals.color.into());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(Box::pin(run(schema, &globals, action, &mut out))),
        Err(error) => Err(Failure::error(format!("cannot start: {error}"))),
    };
    exit_code(&mut out, outcome)
}

/// Parses the command line. Exits where clap answers by itself: help, version, a usage error.
fn parse_arguments() -> Result<(Schema, Globals, Action), Failure> {
    let schema = Schema::load()?;
    let words: Vec<OsString> = std::env::args_os().collect();
    args::check_wait(&words)?;
    let matches = args::with_environment(args::command(&schema)?).try_get_matches_from(words);
    let matches = matches.unwrap_or_else(|error| args::without_far_tip(error).exit());
    let (globals, action) = args::parse(&matches)?;
    Ok((schema, globals, action))
}

async fn run(schema: Schema, globals: &Globals, action: Action, out: &mut Output) -> Result<(), Failure> {
    match action {
        Action::Version => version(out),
        Action::Completions(shell) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut args::command(&schema)?, "fiberlb", &mut script);
            out.result(&String::from_utf8_lossy(&script))
        }
        Action::Manual(directory) => clap_mangen::generate_to(args::command(&schema)?, &directory)
            .map_err(|error| Failure::usage(format!("{}: {error}", directory.display()))),
        Action::Resource(kind, verb, matches) => {
            verbs::run(&Client::connect(schema, globals).await?, out, kind, verb, &matches).await
        }
        Action::Apply(args, wait) => {
            let documents = documents(&schema, &args.files, out)?;
            apply::run(&Client::connect(schema, globals).await?, out, documents, &args, wait).await
        }
        Action::Diff(args) => {
            let documents = documents(&schema, &args, out)?;
            diff::run(&Client::connect(schema, globals).await?, out, documents).await
        }
        Action::Delete(args, wait) => {
            let documents = documents(&schema, &args.files, out)?;
            delete::run(&Client::connect(schema, globals).await?, out, documents, &args, wait).await
        }
        Action::Describe(kind, references) => {
            describe::run(&Client::connect(schema, globals).await?, out, kind, &references).await
        }
        Action::Wait(args) => wait::run(&Client::connect(schema, globals).await?, out, &args).await,
        Action::Tree(args) => tree::run(&Client::connect(schema, globals).await?, out, &args).await,
        Action::Stats(args) => {
            stats::run(&Client::connect(schema, globals).await?, out, args.load_balancer.as_deref()).await
        }
        Action::Logs(args) => {
            logs::run(&Client::connect(schema, globals).await?, out, &args.listener, args.count).await
        }
        Action::Node(action) => node::run(&Client::connect(schema, globals).await?, out, action).await,
        Action::VerifyOvn => ovn::verify(&Client::connect(schema, globals).await?, out).await,
        Action::Health(args) => {
            health::show(&Client::connect(schema, globals).await?, out, &args.backend).await
        }
        Action::Watch(args) => {
            watch::run(&Client::connect(schema, globals).await?, out, args.load_balancer.as_deref()).await
        }
    }
}

fn version(out: &mut Output) -> Result<(), Failure> {
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    let text = match &out.format {
        format if format.is_for_people() => format!("fiberlb {VERSION}\n"),
        format => canonical::write(&BTreeMap::from([("version", VERSION)]), format)?,
    };
    out.result(&text)
}

/// Documents of files. Says which folders are left out.
fn documents(schema: &Schema, files: &FileArgs, out: &mut Output) -> Result<Vec<Placed>, Failure> {
    let Documents { documents, skipped } = document::read_all(schema, files.paths())?;
    for folder in skipped {
        let folder = folder.display().to_string();
        out.progress(&format!(
            "{}: a folder within a folder, skipped; name it to have it, too",
            clean(&folder)
        ));
    }
    Ok(documents)
}

/// Prints a failure; returns the exit code of the outcome.
fn exit_code(out: &mut Output, outcome: Result<(), Failure>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            out.failure(&failure);
            ExitCode::from(failure.exit as u8)
        }
    }
}
