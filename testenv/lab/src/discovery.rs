//! The labs that run on this machine, found in `/proc`.

use std::fs;

use crate::procfs::start_time;
use crate::world::{MARK, World};

/// A lab that runs on this machine.
#[derive(Debug, Clone)]
pub struct FoundLab {
    /// Its world.
    pub world: World,
    /// The pid of the process that holds it.
    pub owner: u32,
    /// True while that process runs. Without it the lab ends by itself.
    pub owner_alive: bool,
}

/// Finds all labs of this machine that the caller can see, in the order of their pids.
#[must_use]
pub fn find_labs() -> Vec<FoundLab> {
    let mut pids: Vec<u32> = pids().collect();
    pids.sort_unstable();
    pids.into_iter().filter_map(lab_of).collect()
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
}
