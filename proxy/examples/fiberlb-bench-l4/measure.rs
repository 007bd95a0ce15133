//! Costs of one proxy in one round.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::Figure;
use crate::client::{CONNECTIONS, IDLE, Load, REQUESTS, STREAM_GIGABYTES};
use crate::rivals::Rival;
use crate::world::World;

/// Starts a proxy, and measures the figures on it, latency at a pace of so many requests a second; `None`: it does not serve
/// that protocol.
pub(crate) fn costs(
    world: &World,
    rival: Rival,
    figures: &[Figure],
    pace: u32,
) -> anyhow::Result<Vec<Option<f64>>> {
    let (proxy, _files) = rival.start(world)?;
    let pid = proxy.id();
    run(world, Load::WarmUp)?;
    let cost = |figure: &Figure| {
        let is_served = rival.has_udp() || !figure.load.is_udp();
        is_served.then(|| cost(world, pid, figure.load, pace)).transpose()
    };
    figures.iter().map(cost).collect()
}

/// Requests a second that a proxy serves at most.
pub(crate) fn request_rate(world: &World, rival: Rival) -> anyhow::Result<f64> {
    let (_proxy, _files) = rival.start(world)?;
    run(world, Load::WarmUp)?;
    let began = Instant::now();
    run(world, Load::Requests)?;
    Ok(f64::from(REQUESTS) / began.elapsed().as_secs_f64())
}

fn cost(world: &World, pid: u32, load: Load, pace: u32) -> anyhow::Result<f64> {
    if load == Load::Idle {
        let before = resident(pid)?;
        let mut client = world.start_client(&[&load.to_string()])?;
        client.line()?;
        return Ok((resident(pid)? as f64 - before as f64) / f64::from(IDLE));
    }
    let mut client = world.start_client(&[&load.to_string(), &pace.to_string()])?;
    if load.is_udp() {
        client.line().context("the sessions")?;
    }
    let before = cpu(pid)?;
    client.go_on()?;
    let said = client.line().with_context(|| format!("the client of load {load}"))?;
    let micros = (cpu(pid)? - before).as_secs_f64() * 1e6;
    Ok(match load {
        Load::Connections => micros / f64::from(CONNECTIONS),
        Load::Requests => micros / f64::from(REQUESTS),
        Load::Stream => micros / 1e3 / STREAM_GIGABYTES as f64,
        Load::Datagrams(_) | Load::Saturated => {
            let (answers, lost) = said.split_once(' ').context("no number of answers")?;
            println!("{load}: {lost} % lost");
            // There and back.
            micros / (2.0 * answers.parse::<f64>()?)
        }
        Load::Paced => said.parse().context("a latency")?,
        Load::WarmUp | Load::Idle => f64::NAN,
    })
}

/// Runs a load to its end, and returns what its client says.
fn run(world: &World, load: Load) -> anyhow::Result<String> {
    let mut client = world.start_client(&[&load.to_string()])?;
    client.go_on()?;
    client.line().with_context(|| format!("the client of load {load}"))
}

/// CPU that all threads of a process have used.
fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        sum += text.split(' ').next().context("an empty schedstat")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(sum))
}

/// Resident memory of a process, in bytes.
fn resident(pid: u32) -> anyhow::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}
