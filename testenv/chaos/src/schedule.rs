//! Plan of faults: a pure function of a seed. Times are milliseconds from the beginning of the run.
//!
//! A schedule is a row of acts with a calm after each. In a mixed act anything may fail, but of each kind only so many at a
//! time that the rest can go on: a minority of a cluster, all plugins but one, one proxy node. In an act of nodes alone only
//! proxy nodes fail, so that it can be told how soon clients are rid of a dead one. In an act of a lost quorum most of one
//! cluster are away, for a few seconds.

use std::fmt;
use std::ops::Range;

use fastrand::Rng;
use serde::Serialize;

/// Before the first act.
const PRELUDE: u64 = 2_000;
/// Length of an act.
const ACT: Range<u64> = 8_000..14_000;
/// Calm after an act: leaders are found anew, and nodes come back.
const CALM: Range<u64> = 5_000..7_000;
/// From one fault to the next.
const GAP: Range<u64> = 200..1_600;
/// Time for which a process is dead, frozen, or cut off: less and more than a leader's lease of 3 s.
const AWAY: Range<u64> = 500..6_000;
/// Time for which a link is slow.
const SLOW: Range<u64> = 2_000..6_000;
/// Time for which a quorum is lost.
const LOST: Range<u64> = 3_000..8_000;
/// From the end of a fault to the next one of the same process.
const REST: u64 = 1_000;
/// From the return of a proxy node until another one may fail: it must be in OVN's rows again, and have shown it for a
/// moment.
const NODE_REST: u64 = 7_000;

/// Number of units of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Population {
    /// Members of the store's cluster.
    pub etcd: usize,
    /// Plugins.
    pub plugins: usize,
    /// Servers of the northbound database.
    pub northbound: usize,
    /// Proxy nodes.
    pub proxies: usize,
}

/// A kind of process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A member of the store's cluster.
    Etcd,
    /// `fiberlb-plugin`.
    Plugin,
    /// A server of the northbound database.
    Northbound,
    /// `fiberlb-proxy`.
    Proxy,
    /// `ovn-northd`.
    Northd,
}

/// One process, with the link of its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Unit {
    /// Kind of it.
    pub kind: Kind,
    /// Index among them, from 0.
    pub index: usize,
}

/// Fault that is injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Harm {
    /// `kill -9`; at the end it is started again.
    Kill,
    /// SIGSTOP; at the end SIGCONT.
    Pause,
    /// Its link to the management network is down; a northbound server's is that to the other servers.
    Cut,
    /// The same link delays.
    Slow,
}

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// Time of its injection.
    pub begin: u64,
    /// Time of its removal.
    pub end: u64,
    /// Unit that it is injected into.
    pub unit: Unit,
    /// Harm that is done.
    pub harm: Harm,
}

/// Kind of an act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Theme {
    /// Anything that leaves a quorum.
    Mixed,
    /// Proxy nodes, and nothing else.
    Nodes,
    /// Most of a cluster at the same time.
    QuorumLost(Kind),
}

/// All that fails in a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Schedule {
    /// Seed that it is computed from.
    pub seed: u64,
    /// Acts in their order, with begin and end.
    pub acts: Vec<(Theme, u64, u64)>,
    /// Faults in the order of their beginnings.
    pub faults: Vec<Fault>,
    /// Time at which the last one has been undone, and a calm has passed.
    pub end: u64,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", format!("{:?}", self.kind).to_lowercase(), self.index)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {} for {} ms", self.harm, self.unit, self.end - self.begin)
    }
}

impl Population {
    fn of(&self, kind: Kind) -> usize {
        match kind {
            Kind::Etcd => self.etcd,
            Kind::Plugin => self.plugins,
            Kind::Northbound => self.northbound,
            Kind::Proxy => self.proxies,
            Kind::Northd => 1,
        }
    }

    /// So many of a kind may be away at the same time in a mixed act. One alone may, too: then there is none for a while.
    fn spare(&self, kind: Kind) -> usize {
        match kind {
            Kind::Etcd | Kind::Northbound => (self.of(kind).saturating_sub(1) / 2).max(1),
            Kind::Plugin => self.plugins.saturating_sub(1).max(1),
            Kind::Proxy | Kind::Northd => 1,
        }
    }

    fn units(&self, kinds: &[Kind]) -> Vec<Unit> {
        let of_kind = |kind: &Kind| {
            let kind = *kind;
            (0..self.of(kind)).map(move |index| Unit { kind, index })
        };
        kinds.iter().flat_map(of_kind).collect()
    }

    fn harms(unit: Unit) -> &'static [Harm] {
        match unit.kind {
            Kind::Northd => &[Harm::Kill],
            Kind::Northbound => &[Harm::Kill, Harm::Pause, Harm::Cut],
            _ => &[Harm::Kill, Harm::Kill, Harm::Pause, Harm::Pause, Harm::Cut, Harm::Slow],
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (theme, begin, end) in &self.acts {
            writeln!(f, "{begin:6} ms  {theme:?}")?;
            let within = self.faults.iter().filter(|fault| (*begin..=*end).contains(&fault.begin));
            for fault in within {
                writeln!(f, "{:6} ms    {fault}", fault.begin)?;
            }
        }
        write!(f, "{:6} ms  the end", self.end)
    }
}

impl Schedule {
    /// The schedule of a seed, for a run of about so many seconds.
    #[must_use]
    pub fn new(seed: u64, seconds: u64, population: &Population) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut schedule = Self { seed, acts: Vec::new(), faults: Vec::new(), end: 0 };
        let (mut at, mut themes) = (PRELUDE, Vec::new());
        while at < (seconds * 1000).saturating_sub(CALM.start) || schedule.acts.is_empty() {
            let theme = themes.pop().unwrap_or_else(|| {
                themes = round(&mut rng);
                themes.pop().unwrap_or(Theme::Mixed)
            });
            let end = schedule.add_act(theme, at, &mut rng, population);
            schedule.acts.push((theme, at, end));
            at = end + rng.u64(CALM);
        }
        schedule.end = at;
        schedule.faults.sort_by_key(|fault| (fault.begin, fault.unit));
        schedule
    }

    /// Fills an act with faults, and gives when the last one of them is undone.
    fn add_act(&mut self, theme: Theme, begin: u64, rng: &mut Rng, population: &Population) -> u64 {
        let end = begin + rng.u64(ACT);
        let first = self.faults.len();
        match theme {
            Theme::Mixed => {
                let all = [Kind::Etcd, Kind::Plugin, Kind::Northbound, Kind::Proxy, Kind::Northd];
                self.mix(&population.units(&all), begin..end, rng, population);
            }
            Theme::Nodes => self.mix(&population.units(&[Kind::Proxy]), begin..end, rng, population),
            Theme::QuorumLost(kind) => self.lose(kind, begin, rng, population),
        }
        self.faults.iter().skip(first).map(|fault| fault.end).max().unwrap_or(end)
    }

    fn mix(&mut self, units: &[Unit], act: Range<u64>, rng: &mut Rng, population: &Population) {
        let mut at = act.start;
        while at < act.end {
            if let Some(&unit) = rng.choice(units) {
                let harm = rng.choice(Population::harms(unit)).copied().unwrap_or(Harm::Kill);
                let time = rng.u64(if harm == Harm::Slow { SLOW } else { AWAY });
                let fault = Fault { begin: at, end: at + time, unit, harm };
                if self.is_bearable(&fault, population.spare(unit.kind)) {
                    self.faults.push(fault);
                }
            }
            at += rng.u64(GAP);
        }
    }

    /// True if the process is well by then, and with it enough of its kind.
    fn is_bearable(&self, new: &Fault, spare: usize) -> bool {
        let rest = if new.unit.kind == Kind::Proxy { NODE_REST } else { REST };
        let overlaps = |fault: &&Fault| fault.unit.kind == new.unit.kind && new.begin < fault.end + rest;
        let of_kind: Vec<&Fault> = self.faults.iter().filter(overlaps).collect();
        of_kind.len() < spare && of_kind.iter().all(|fault| fault.unit != new.unit)
    }

    /// Takes a majority of a cluster away, all for the same time.
    fn lose(&mut self, kind: Kind, begin: u64, rng: &mut Rng, population: &Population) {
        let mut units = population.units(&[kind]);
        rng.shuffle(&mut units);
        let majority = units.len() / 2 + 1;
        let end = begin + rng.u64(LOST);
        for unit in units.into_iter().take(majority) {
            let harms = Population::harms(unit).iter().filter(|harm| **harm != Harm::Slow);
            let harm = rng.choice(harms.collect::<Vec<_>>()).copied().unwrap_or(Harm::Kill);
            self.faults.push(Fault { begin, end, unit, harm });
        }
    }
}

/// Each theme once, mixed acts twice, in any order.
fn round(rng: &mut Rng) -> Vec<Theme> {
    let mut themes = vec![
        Theme::Mixed,
        Theme::Mixed,
        Theme::Nodes,
        Theme::QuorumLost(Kind::Etcd),
        Theme::QuorumLost(Kind::Northbound),
    ];
    rng.shuffle(&mut themes);
    themes
}

#[cfg(test)]
mod tests;
