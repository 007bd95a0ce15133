//! Figures of the control plane: the real plugin on its embedded store, and three of them on a real etcd of three members,
//! against a real ovsdb-server with the northbound schema. Each figure ends in a line `FIGURE <name> <value> <unit> goal
//! <goal> met|missed`. Given `embedded` or `chainfire`, only the figures of that store are measured; given `northd`, and the number of
//! load balancers that are present, only what northd spends.

mod chainfire;
mod database;
mod flips;
mod largest;
mod northd;
mod report;
mod snapshot;
mod trees;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use fiberlb_lab::Release;

use crate::largest::Bounds;
use crate::report::Report;
use crate::trees::Bench;

/// Trees in each timed round.
const ROUND: u32 = 2000;
/// Load balancers that are present for the figures at scale.
const SCALE: u32 = 10_000;

fn main() -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let missed = runtime.block_on(run())?;
    if missed > 0 {
        println!("{missed} figures missed their goal");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

async fn run() -> anyhow::Result<u32> {
    let mut report = Report::default();
    println!("{}", Release::chosen()?);
    let dir = tempfile::tempdir()?;
    println!("fsync of 4 KiB, p50: {:.2} ms", fsync_p50(dir.path())?.as_secs_f64() * 1e3);

    let only = std::env::args().nth(1);
    let present = std::env::args().nth(2).map_or(Ok(SCALE), |number| number.parse())?;
    let is_wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
    if is_wanted("embedded") {
        embedded(dir.path(), &mut report).await?;
        snapshot::measure(&mut report).await?;
    }
    if is_wanted("northd") {
        northd::measure(present, &mut report).await?;
    }
    if is_wanted("chainfire") {
        chainfire::measure(&mut report).await?;
    }
    Ok(report.missed)
}

async fn embedded(dir: &Path, report: &mut Report) -> anyhow::Result<()> {
    let mut bench = Bench::start(dir).await?;
    trees(&mut bench, report).await?;
    flips::measure(&bench, report).await?;

    println!("the largest trees, beside {} others:", bench.made());
    let bounds = Bounds { new: 1.0, again: 0.5, read: 0.1, write: 1.0 };
    let network = bench.networks.first().context("no network")?;
    largest::measure(&bench.plugin.channel()?, network, report, "", bounds).await?;

    println!("trees again, with northd running, beside:");
    let _northd = bench.database.start_northd(dir).await?;
    let beside = bench.trees(16, ROUND).await?;
    println!("trees_per_second_16_at_10000 with northd: {beside:.0} 1/s");
    Ok(())
}

async fn trees(bench: &mut Bench, report: &mut Report) -> anyhow::Result<()> {
    let one = bench.rounds(1, ROUND / 2).await?;
    report.at_least("trees_per_second_1", one, "1/s", 500.0);
    let transactions = bench.plugin.northbound_transactions().await?;
    let before = bench.made();
    let sixteen = bench.rounds(16, ROUND).await?;
    report.at_least("trees_per_second_16", sixteen, "1/s", 2000.0);
    let per_tree =
        (bench.plugin.northbound_transactions().await? - transactions) / f64::from(bench.made() - before);
    report.below("nb_transactions_per_tree", per_tree, "", 0.2);

    println!("filling up to {SCALE} load balancers");
    bench.trees(16, SCALE.saturating_sub(bench.made())).await?;
    bench.restart(report).await?;
    let scaled = bench.rounds(16, ROUND / 2).await?;
    report.at_least("trees_per_second_16_at_10000", scaled, "1/s", 0.9 * 2000.0);
    Ok(())
}

/// The median time of an fsync after a write of 4 KiB.
fn fsync_p50(dir: &Path) -> anyhow::Result<Duration> {
    let mut file = fs::File::create(dir.join("fsync"))?;
    file.write_all(&[0; 4096])?;
    let mut times = Vec::new();
    for _ in 0..101 {
        let started = Instant::now();
        file.write_all_at(&[1; 4096], 0)?;
        file.sync_data()?;
        times.push(started.elapsed());
    }
    times.sort();
    times.get(times.len() / 2).copied().context("no measurement")
}
