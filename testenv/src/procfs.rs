//! What `/proc` tells of processes: when they started, and which of them are labs.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::world::{MARK, World};

/// Ticks of the kernel's CPU accounting in a second, the same on every Linux (USER_HZ).
const CLOCK_TICKS: u64 = 100;

/// A lab that runs on this machine.
#[derive(Debug, Clone)]
pub struct FoundLab {
    /// Its world.
    pub world: World,
    /// The pid of the process that holds it.
    pub owner: u32,
    /// Whether that process still runs. If not, the lab is about to end by itself.
    pub owner_alive: bool,
}

/// All labs of this machine that the caller can see, by pid.
#[must_use]
pub fn find_labs() -> Vec<FoundLab> {
    let mut pids: Vec<u32> = pids().collect();
    pids.sort_unstable();
    pids.into_iter().filter_map(lab_of).collect()
}

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

/// When a process started, in clock ticks since boot. With it a pid names one process for ever.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Field 22. The second, the name in brackets, may hold spaces and brackets: count from the last bracket.
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(19)?.parse().ok()
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn lab_of(pid: u32) -> Option<FoundLab> {
    let cmdline = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let (name, owner, owner_start) = parse_cmdline(&cmdline)?;
    let owner_alive = start_time(owner) == Some(owner_start);
    Some(FoundLab { world: World::new(&name, pid), owner, owner_alive })
}

/// Name, owner and owner's start time in the command line of a world's PID 1; nothing for any other process.
fn parse_cmdline(cmdline: &[u8]) -> Option<(String, u32, u64)> {
    let words: Vec<&str> =
        cmdline.split(|byte| *byte == 0).map(std::str::from_utf8).collect::<Result<_, _>>().ok()?;
    match words.as_slice() {
        ["sh", "-c", _, mark, name, owner, start, ..] if *mark == MARK => {
            Some(((*name).to_owned(), owner.parse().ok()?, start.parse().ok()?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cmdline(words: &[&str]) -> Vec<u8> {
        words.iter().flat_map(|word| word.bytes().chain([0])).collect()
    }

    #[test]
    fn a_world_is_known_by_its_command_line() {
        let line = cmdline(&["sh", "-c", "set -eu\nx", "fiberlb-lab", "demo", "17", "9000"]);
        assert_eq!(parse_cmdline(&line), Some(("demo".to_owned(), 17, 9000)));
    }

    #[test]
    fn other_processes_are_not_worlds() {
        let others = [
            cmdline(&[]),
            cmdline(&["unshare", "--mount", "sh", "-c", "x", "fiberlb-lab", "demo", "17", "9000"]),
            cmdline(&["sh", "-c", "x", "other", "demo", "1", "2"]),
            cmdline(&["sh", "-c", "x", "fiberlb-lab", "demo", "x", "2"]),
            vec![0xff, 0],
        ];
        for other in others {
            assert_eq!(parse_cmdline(&other), None, "{other:?}");
        }
    }

    #[test]
    fn this_process_has_a_start_time() {
        assert!(start_time(std::process::id()).is_some_and(|ticks| ticks > 0));
        assert_eq!(start_time(u32::MAX), None);
    }
}
