//! Start and CPU times of processes, from `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Ticks of the kernel's CPU accounting in a second, the same on every Linux (USER_HZ).
const CLOCK_TICKS: u64 = 100;

/// CPU time that a process has used since it started, in user and kernel mode.
///
/// # Errors
/// It is not there.
pub fn cpu(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Fields after the name, which is in parentheses: utime and stime are the 14th and the 15th of all (proc(5)).
    let (_, fields) = stat.rsplit_once(')').context("no name")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    Ok(Duration::from_millis(ticks.sum::<Result<u64, _>>()? * 1000 / CLOCK_TICKS))
}

/// Start time of a process, in clock ticks since boot. Pid and start time together identify a process for ever.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Field 22. The second, the name in brackets, may hold spaces and brackets: count from the last bracket.
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_start_time() {
        assert!(start_time(std::process::id()).is_some_and(|ticks| ticks > 0));
        assert_eq!(start_time(u32::MAX), None);
    }
}
