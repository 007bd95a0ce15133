//! `fiberlb-chaos`: lets chaos loose on a whole installation in a lab, and judges what clients met. See docs/chaos.md.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::Parser;
use fiberlb_chaos::run::{Options, run};
use fiberlb_lab::Release;

/// Kills, freezes and cuts off everything of a FiberLB installation while clients use it.
#[derive(Debug, Parser)]
struct Arguments {
    /// Seed of the faults: the same seed has the same faults [default: another one each time]
    #[arg(long, env = "SEED")]
    seed: Option<u64>,
    /// About how long there are faults
    #[arg(long, env = "SECONDS", default_value_t = 180)]
    seconds: u64,
    /// Plugins on the store
    #[arg(long, default_value_t = 3)]
    plugins: usize,
    /// Only say what would fail when
    #[arg(long)]
    plan: bool,
}

fn main() -> Result<ExitCode> {
    let Arguments { seed, seconds, plugins, plan } = Arguments::parse();
    let seed = seed.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::from(now.subsec_nanos()) ^ now.as_secs()
    });
    println!("chaos for {seconds} s; SEED={seed} SECONDS={seconds} has the same faults again");
    match Release::chosen() {
        Ok(release) => println!("{release}"),
        Err(why) => println!("{why}"),
    }
    let options = Options { name: format!("chaos-{seed}"), seed, seconds, plugins, is_loud: true };
    if plan {
        println!("{}", options.schedule());
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let report = match runtime.block_on(run(&options)) {
        Ok(report) => report,
        Err(error) => {
            println!("the run could not be made: {error:#}");
            return Ok(ExitCode::FAILURE);
        }
    };
    println!("\n{report}");
    Ok(if report.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
