//! `fiberlb-upgrade`: proves in labs which mixtures of two releases work, under traffic. `make test-upgrade` builds both.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Error, Result};
use clap::{Parser, ValueEnum as _};
use fiberlb_testenv::plugin::beside;
use fiberlb_testenv::upgrade::builds::Builds;
use fiberlb_testenv::upgrade::run::{Scenario, run};
use fiberlb_testenv::{Release, requirements};

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
    let own = beside("fiberlb-plugin")?.parent().map(PathBuf::from).context("the binaries have no folder")?;
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
