//! Neighbour tables of the kernel. There is one for each family, for all namespaces of the machine together, and it is bounded in
//! the first namespace alone. A table that is full drops packets silently: to a process a backend just does not answer.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::configuration::NeighbourCounts;
use crate::shortage::{NodeResource, Shortages};

/// Entries for others than backends: clients on the tenants' networks, nodes, gateways, the rest of the machine.
const OTHERS: usize = 1024;

/// Time after an overflow for which the tables count as full.
const FULL: Duration = Duration::from_secs(10);

/// Bounds of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TableBounds {
    /// `gc_thresh2`: entries above which unused ones are removed within 5 s.
    soft: usize,
    /// `gc_thresh3`: entries above which no other is added.
    hard: usize,
}

impl TableBounds {
    /// The least bounds with which so many neighbours of backends stay in the table, and twice as many find room.
    fn needed(backends: usize) -> Self {
        let soft = backends + OTHERS / 2;
        Self { soft, hard: 2 * soft }
    }

    /// Bounds that are at least as high as both. None: these are.
    fn raised(self, needed: Self) -> Option<Self> {
        let raised = Self { soft: self.soft.max(needed.soft), hard: self.hard.max(needed.hard) };
        (raised != self).then_some(raised)
    }
}

/// Table of one family.
#[derive(Debug)]
struct NeighbourTable {
    /// Directory of its bounds.
    bounds: PathBuf,
    /// File of its statistics.
    statistics: PathBuf,
    /// The setting to raise, for people.
    setting: &'static str,
    /// Trouble with its bounds, for people.
    trouble: Option<String>,
    /// Overflows since the machine started, when last read.
    overflows: Option<u64>,
}

/// The tables of both families.
#[derive(Debug)]
pub struct NeighbourTables {
    v4: NeighbourTable,
    v6: NeighbourTable,
    counts: Option<NeighbourCounts>,
    overflowed_at: Option<Instant>,
}

impl NeighbourTables {
    /// The tables of this machine, below `/proc`. In another namespace than the machine's first one they are not
    /// there, and nothing is known of them.
    #[must_use]
    pub fn new(proc: &Path) -> Self {
        let table = |family: &str, statistics: &str, setting| NeighbourTable {
            bounds: proc.join(format!("sys/net/{family}/neigh/default")),
            statistics: proc.join(format!("net/stat/{statistics}")),
            setting,
            trouble: None,
            overflows: None,
        };
        Self {
            v4: table("ipv4", "arp_cache", "net.ipv4.neigh.default.gc_thresh3"),
            v6: table("ipv6", "ndisc_cache", "net.ipv6.neigh.default.gc_thresh3"),
            counts: None,
            overflowed_at: None,
        }
    }

    /// Raises the bounds to what so many neighbours need, if they are lower. What cannot be raised becomes a trouble.
    pub fn fit(&mut self, counts: NeighbourCounts) {
        if self.counts == Some(counts) {
            return;
        }
        self.counts = Some(counts);
        self.v4.fit(counts.v4);
        self.v6.fit(counts.v6);
    }

    /// Counts overflows since the last call as shortages.
    pub fn poll(&mut self, now: Instant, shortages: &Shortages) {
        let overflows = self.v4.new_overflows() + self.v6.new_overflows();
        if overflows > 0 {
            self.overflowed_at = Some(now);
            shortages.add(NodeResource::Neighbours, overflows);
        }
        let is_full = self.overflowed_at.is_some_and(|at| now.saturating_duration_since(at) < FULL);
        shortages.set_neighbours_full(is_full);
    }

    /// Bounds that are too low and could not be raised, for people.
    pub fn troubles(&self) -> impl Iterator<Item = &str> {
        [&self.v4, &self.v6].into_iter().filter_map(|table| table.trouble.as_deref())
    }
}

impl NeighbourTable {
    fn fit(&mut self, backends: usize) {
        self.trouble = None;
        let (setting, needed) = (self.setting, TableBounds::needed(backends));
        let Some(now) = self.read_bounds() else { return };
        let Some(raised) = now.raised(needed) else { return };
        match self.write_bounds(raised) {
            Ok(()) => {
                tracing::info!(
                    setting,
                    before = now.hard,
                    now = raised.hard,
                    backends,
                    "raised a neighbour table"
                );
            }
            Err(error) => {
                let TableBounds { hard, .. } = needed;
                tracing::error!(setting, now = now.hard, needed = hard, %error, "cannot raise a neighbour table");
                self.trouble = Some(format!(
                    "its kernel keeps {} neighbours, and {hard} are needed: set {setting}",
                    now.hard
                ));
            }
        }
    }

    fn read_bounds(&self) -> Option<TableBounds> {
        let read = |name| std::fs::read_to_string(self.bounds.join(name)).ok()?.trim().parse().ok();
        Some(TableBounds { soft: read("gc_thresh2")?, hard: read("gc_thresh3")? })
    }

    fn write_bounds(&self, bounds: TableBounds) -> std::io::Result<()> {
        std::fs::write(self.bounds.join("gc_thresh3"), bounds.hard.to_string())?;
        std::fs::write(self.bounds.join("gc_thresh2"), bounds.soft.to_string())
    }

    fn new_overflows(&mut self) -> u64 {
        let Some(now) = std::fs::read_to_string(&self.statistics).ok().and_then(|text| overflows(&text))
        else {
            return 0;
        };
        let before = self.overflows.replace(now).unwrap_or(now);
        now.saturating_sub(before)
    }
}

/// Overflows of a table, over all processors: the kernel's statistics are a line of names, and one of hexadecimal numbers for
/// each processor.
fn overflows(statistics: &str) -> Option<u64> {
    let mut lines = statistics.lines();
    let column = lines.next()?.split_whitespace().position(|name| name == "table_fulls")?;
    let of_line = |line: &str| u64::from_str_radix(line.split_whitespace().nth(column)?, 16).ok();
    lines.map(of_line).sum()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const HEAD: &str = "entries  allocs   destroys table_fulls hash_grows";

    /// A machine with these bounds of both tables.
    fn machine(soft: usize, hard: usize) -> (tempfile::TempDir, NeighbourTables) {
        let proc = tempfile::tempdir().unwrap();
        for family in ["ipv4", "ipv6"] {
            let bounds = proc.path().join(format!("sys/net/{family}/neigh/default"));
            fs::create_dir_all(&bounds).unwrap();
            fs::write(bounds.join("gc_thresh2"), format!("{soft}\n")).unwrap();
            fs::write(bounds.join("gc_thresh3"), format!("{hard}\n")).unwrap();
        }
        fs::create_dir_all(proc.path().join("net/stat")).unwrap();
        let tables = NeighbourTables::new(proc.path());
        (proc, tables)
    }

    fn bounds(proc: &Path, family: &str) -> [String; 2] {
        ["gc_thresh2", "gc_thresh3"].map(|name| {
            fs::read_to_string(proc.join(format!("sys/net/{family}/neigh/default/{name}")))
                .unwrap()
                .trim()
                .to_owned()
        })
    }

    #[test]
    fn bounds_are_raised_to_what_backends_need_and_never_lowered() {
        let (proc, mut tables) = machine(512, 1024);
        tables.fit(NeighbourCounts { v4: 5000, v6: 0 });
        assert_eq!(bounds(proc.path(), "ipv4"), ["5512", "11024"]);
        assert_eq!(bounds(proc.path(), "ipv6"), ["512", "1024"]);
        tables.fit(NeighbourCounts { v4: 100, v6: 1 });
        assert_eq!(bounds(proc.path(), "ipv4"), ["5512", "11024"]);
        assert_eq!(bounds(proc.path(), "ipv6"), ["513", "1026"]);
        assert_eq!(tables.troubles().count(), 0);
    }

    #[test]
    fn a_bound_that_cannot_be_raised_is_told_until_it_is_high_enough() {
        let (proc, mut tables) = machine(512, 1024);
        let file = proc.path().join("sys/net/ipv4/neigh/default/gc_thresh3");
        fs::remove_file(&file).unwrap();
        tables.fit(NeighbourCounts { v4: 1000, v6: 0 });
        assert_eq!(tables.troubles().count(), 0, "nothing is known");
        // A small number that nobody can write.
        std::os::unix::fs::symlink("/proc/sys/kernel/cap_last_cap", &file).unwrap();
        tables.fit(NeighbourCounts { v4: 1001, v6: 0 });
        let told: Vec<&str> = tables.troubles().collect();
        assert!(told[0].ends_with("3026 are needed: set net.ipv4.neigh.default.gc_thresh3"), "{told:?}");
        fs::remove_file(&file).unwrap();
        fs::write(&file, "3026").unwrap();
        tables.fit(NeighbourCounts { v4: 1000, v6: 0 });
        assert_eq!(tables.troubles().count(), 0);
    }

    #[test]
    fn overflows_are_counted_from_the_first_look_and_tables_are_full_for_a_while_after() {
        let (proc, mut tables) = machine(512, 1024);
        let shortages = Shortages::default();
        let start = Instant::now();
        let mut poll = |seconds: u64, file: Option<(&str, &str)>| {
            if let Some((name, lines)) = file {
                fs::write(proc.path().join("net/stat").join(name), format!("{HEAD}\n{lines}")).unwrap();
            }
            tables.poll(start + Duration::from_secs(seconds), &shortages);
            let neighbours = shortages.totals().find(|(it, _)| *it == NodeResource::Neighbours).unwrap().1;
            (neighbours, shortages.are_neighbours_full())
        };
        assert_eq!(poll(0, None), (0, false), "another namespace");
        assert_eq!(
            poll(1, Some(("arp_cache", "0003 001e 0024 0010 01\n0003 0017 000e 0001 00\n"))),
            (0, false)
        );
        assert_eq!(
            poll(2, Some(("arp_cache", "0003 001e 0024 001a 01\n0003 0017 000e 0002 00\n"))),
            (11, true)
        );
        assert_eq!(poll(3, Some(("ndisc_cache", "0003 001e 0024 0000 01\n"))), (11, true));
        assert_eq!(poll(11, None), (11, true));
        assert_eq!(poll(12, None), (11, false));
        assert_eq!(poll(13, Some(("ndisc_cache", "garbage"))), (11, false));
    }
}
