//! CPU of a process, and probes of a namespace.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

/// Probes that are measured at once.
const PROBES: u64 = 20_000;
/// Longest that so many may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// Microseconds of CPU per probe, over many of them. Nobody else in the namespace may connect meanwhile.
pub(crate) fn cost(pid: u32) -> anyhow::Result<f64> {
    let (connections, cpu) = (connections()?, cpu(pid)?);
    let probes = until(connections + PROBES)? - connections;
    let cpu = self::cpu(pid)? - cpu;
    Ok(cpu.as_secs_f64() * 1e6 / probes as f64)
}

/// Waits until so many more connections were tried.
pub(crate) fn warm_up(probes: u64) -> anyhow::Result<()> {
    until(connections()? + probes).map(|_| ())
}

fn until(wanted: u64) -> anyhow::Result<u64> {
    let began = Instant::now();
    loop {
        let now = connections()?;
        if now >= wanted {
            return Ok(now);
        }
        ensure!(began.elapsed() < PATIENCE, "there should be {wanted} probes by now, there are {now}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

/// CPU that all threads of a process have used.
fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        let used = text.split(' ').next().context("an empty schedstat")?;
        sum += used.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(sum))
}

/// Connections tried in this namespace since it was made.
fn connections() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/net/snmp")?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next().context("no Tcp line")?, lines.next().context("no Tcp values")?);
    let column = names.split(' ').position(|name| name == "ActiveOpens").context("no ActiveOpens")?;
    Ok(values.split(' ').nth(column).context("no value of ActiveOpens")?.parse()?)
}
