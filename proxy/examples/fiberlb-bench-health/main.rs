//! CPU of one health check, against HAProxy: both check the same 10,000 backends, one after the other, several times. Ends
//! in lines `FIGURE <name> <value> ratio goal <=0.9 met|missed`, where the value is our CPU per probe over HAProxy's.
//!
//! Needs root and `haproxy`. All of it runs in a network namespace of its own, which is gone with the program.

mod load;
mod measure;
mod rivals;

use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use nix::sched::{CloneFlags, unshare};

use crate::load::Probe;
use crate::rivals::Rival;

/// Rounds of each measurement; the median counts.
const ROUNDS: usize = 5;
/// Most that our CPU per probe may be of HAProxy's.
const GOAL: f64 = 0.9;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => compare(),
        ["backends"] => load::serve(),
        ["checker", probe] => load::check(probe.parse()?),
        _ => bail!("usage: fiberlb-bench-health"),
    }
}

fn compare() -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("a network namespace of its own needs root")?;
    ip("link set lo up")?;
    // Some hosts have BBR as their default, whose pacing costs timers.
    ip("route replace local 127.0.0.0/8 dev lo table local congctl cubic")?;
    let _backends = rivals::backends()?;
    let mut missed = 0;
    for probe in [Probe::Tcp, Probe::Http] {
        let ratio = ratio(probe)?;
        let met = ratio <= GOAL;
        missed += u32::from(!met);
        println!(
            "FIGURE health_cpu_{probe} {ratio:.3} ratio goal <={GOAL} {}",
            if met { "met" } else { "missed" }
        );
    }
    ensure!(missed == 0, "{missed} figures missed their goal");
    Ok(())
}

/// The rivals take turns, so that what else the machine does meets both.
fn ratio(probe: Probe) -> anyhow::Result<f64> {
    let (mut ours, mut haproxy) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        for (rival, costs) in [(Rival::Ours, &mut ours), (Rival::HaProxy, &mut haproxy)] {
            let cost = rivals::cost(rival, probe)?;
            println!("round {round} {probe} {rival:?}: {cost:.2} us of CPU per probe");
            costs.push(cost);
        }
    }
    let (ours, haproxy) = (median(ours), median(haproxy));
    println!("{probe}, median: {ours:.2} us against {haproxy:.2} us");
    Ok(ours / haproxy)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn ip(arguments: &str) -> anyhow::Result<()> {
    let status = Command::new("ip").args(arguments.split(' ')).status().context("ip")?;
    ensure!(status.success(), "ip {arguments} failed");
    Ok(())
}
