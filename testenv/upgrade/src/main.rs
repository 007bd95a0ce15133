//! `fiberlb-upgrade`: two releases of FiberLB on one installation in a lab, under traffic. `make test-upgrade` builds both
//! releases, docs/operating.md says what operators may conclude from it.
//!
//! [`builds`] has the binaries of both releases; a [`site`] runs any mixture of them, with [`traffic`] on the [`trees`] that
//! tenants have. Each scenario proves a list of [`claims`], which [`report`] prints as they are proven and sums up at the end:
//! [`version_skew`] (agents and plugin of different releases), [`single_plugin`] (on an embedded store), [`several_plugins`]
//! (three on etcd), [`newer_store`] (stores of a later release).

mod builds;
mod checks;
mod claims;
mod newer_store;
mod report;
mod run;
mod several_plugins;
mod single_plugin;
mod site;
mod traffic;
mod trees;
mod version_skew;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::builds::Builds;
use crate::run::{Scenario, run};
use anyhow::{Context as _, Error, Result};
use clap::{Parser, ValueEnum as _};
use fiberlb_lab::{Release, requirements, workspace_binary};

/// Runs two releases of FiberLB on one installation, in every mixture that an upgrade has.
#[derive(Debug, Parser)]
struct Arguments {
    /// Folder with the binaries of the older release
    #[arg(long)]
    old: PathBuf,
    /// Folder with those of the release under test [default: that of this program]
    #[arg(long)]
    new: Option<PathBuf>,
    /// Scenarios to run [default: all]
    #[arg(value_enum)]
    scenarios: Vec<Scenario>,
}

fn main() -> ExitCode {
    match prove(Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("nothing was proven: {why:#}");
            ExitCode::from(2)
        }
    }
}

/// Runs scenarios, and tells whether all claims hold.
fn prove(arguments: Arguments) -> Result<bool> {
    let Arguments { old, new, scenarios } = arguments;
    let own = workspace_binary("fiberlb-plugin")?
        .parent()
        .map(PathBuf::from)
        .context("the binaries have no folder")?;
    let builds = Builds::new(&old, &new.unwrap_or(own))?;
    requirements().map_err(Error::msg)?;
    println!("{builds}");
    println!("{}", Release::chosen()?);
    let all = Scenario::value_variants();
    let chosen = if scenarios.is_empty() { all } else { scenarios.as_slice() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let report = runtime.block_on(run(&builds, chosen));
    println!("\n{report}");
    Ok(report.all_hold())
}
