//! A run: a site, traffic and clients on it, chaos, and a judgement when all is quiet again.

use std::time::Duration;

use anyhow::{Context as _, Result};
use fastrand::Rng;

use crate::chaos::clients::{Board, Clients};
use crate::chaos::clock::Clock;
use crate::chaos::excuse::{Excuses, FLOWS_ARE_BACK};
use crate::chaos::history::Event;
use crate::chaos::judge::judge;
use crate::chaos::nemesis::{Nemesis, Ravage};
use crate::chaos::report::{Remains, Report, calls};
use crate::chaos::schedule::Schedule;
use crate::chaos::site::Site;
use crate::chaos::traffic::{Met, Traffic};
use crate::chaos::verify;
use crate::logs;

/// Clients of the API.
const CLIENTS: usize = 4;
/// Times that a run is made until Open vSwitch lives through enough of it.
const ATTEMPTS: usize = 3;
/// Longest wait for a plugin to take a write when all is well again.
const PATIENCE: Duration = Duration::from_secs(30);

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// For people, and for the folder that a failed run leaves.
    pub name: String,
    /// From which the faults follow.
    pub seed: u64,
    /// About how long there are faults.
    pub seconds: u64,
    /// How many plugins there are.
    pub plugins: usize,
    /// Print what happens when.
    pub is_loud: bool,
}

impl Options {
    /// What will fail when.
    #[must_use]
    pub fn schedule(&self) -> Schedule {
        Schedule::new(self.seed, self.seconds, &Site::population(self.plugins))
    }
}

/// Makes a run, and again where the lab's own Open vSwitch was away for most of it.
///
/// # Errors
/// The run itself could not be made. What came of one that was is in the report.
pub async fn run(options: &Options) -> Result<Report> {
    for attempt in 1..ATTEMPTS {
        let report = Box::pin(run_once(options)).await?;
        if !report.violations.is_empty() || report.is_telling {
            return Ok(report);
        }
        eprintln!("AGAIN: ovs-vswitchd aborted in its conntrack for most of the time (attempt {attempt})");
    }
    Box::pin(run_once(options)).await
}

async fn run_once(options: &Options) -> Result<Report> {
    let mut site = Site::start(&options.name, options.plugins).await?;
    Box::pin(on_site(&mut site, options)).await
}

async fn on_site(site: &mut Site, options: &Options) -> Result<Report> {
    let (shop, ground) = site.open().await?;
    site.lab.wait_for_sync().await?;
    let schedule = options.schedule();
    let clock = Clock::start(options.is_loud);
    let traffic = Traffic::start(&site.clients, shop)?;
    let clients = Clients::start(CLIENTS, options.seed, clock.clone(), ground, site.services());
    let ravage = Nemesis::new(site, clock.clone()).rage(&schedule).await;
    clock.note("all faults are undone");
    let board = clients.stop().await;
    let mut aftermath =
        Aftermath { violations: Vec::new(), aborts: Vec::new(), board: &board, clock: &clock };
    aftermath.settle(site, ravage.is_ok()).await;
    let met = traffic.stop().await;
    let (history, ravage) = (board.history(), aftermath.took_place(ravage));
    aftermath.judge(&ravage, &met, site);
    let mut report = Report { violations: aftermath.violations, ..Report::default() };
    let (end, aborts) = (schedule.end, aftermath.aborts);
    let rest = Excuses::of_aborts(&aborts, FLOWS_ARE_BACK).rest(end);
    report.is_telling = rest > end / 2;
    report.summary = summary(&history, &ravage, &met);
    report.summary.push(format!("aborts of Open vSwitch: {aborts:.1?}; {rest} of {end} ms without"));
    if !report.violations.is_empty() {
        let remains = Remains { schedule: &schedule, clock: &clock, history: &history, met: &met };
        report.folder = Some(remains.keep(&site.lab, &report)?);
    }
    Ok(report)
}

fn summary(history: &[Event], ravage: &Ravage, met: &Met) -> Vec<String> {
    let first = vec![calls(history), format!("{} faults", ravage.faults.len())];
    [first, met.summary(), ravage.usages.summary()].concat()
}

/// What is looked at when all faults are undone.
struct Aftermath<'a> {
    violations: Vec<String>,
    /// When Open vSwitch aborted.
    aborts: Vec<Duration>,
    board: &'a Board,
    clock: &'a Clock,
}

impl Aftermath<'_> {
    /// Waits until all is well; then everything must work again, and show what was written.
    async fn settle(&mut self, site: &mut Site, is_whole: bool) {
        if !is_whole {
            return;
        }
        if let Err(why) = self.try_settle(site).await {
            self.clock.note(format!("{why:#}"));
            self.violations.push(format!("{why:#}"));
        }
    }

    async fn try_settle(&mut self, site: &mut Site) -> Result<()> {
        site.until_well().await?;
        self.clock.note("all is well");
        let mut rng = Rng::with_seed(0);
        for replica in 0..site.replicas.len() {
            let taken = async {
                while !self.board.create_through(usize::MAX, replica, &mut rng).await {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            };
            tokio::time::timeout(PATIENCE, taken)
                .await
                .with_context(|| format!("plugin{replica} takes no writes, and all is well"))?;
        }
        site.until_well().await?;
        self.board.read_all(usize::MAX).await;
        if let Some(difference) = verify::northbound(site).await? {
            self.violations.push(format!("the northbound database is not as it should be: {difference}"));
        }
        self.clock.note("the northbound database was compared");
        Ok(())
    }

    /// The faults that took place; that they could not be carried out is a violation, too.
    fn took_place(&mut self, ravage: Result<Ravage>) -> Ravage {
        ravage.unwrap_or_else(|why| {
            self.violations.push(format!("{why:#}"));
            Ravage::default()
        })
    }

    fn judge(&mut self, ravage: &Ravage, met: &Met, site: &Site) {
        match logs::excused_aborts(site.lab.world()) {
            Ok(aborts) => self.aborts = aborts.iter().map(|abort| self.clock.at_wall(*abort)).collect(),
            Err(emergency) => self.violations.push(emergency.to_string()),
        }
        self.violations.extend(judge(&self.board.history()).iter().map(ToString::to_string));
        let nodes = Excuses::of(&ravage.faults, &ravage.northd_away);
        self.violations.extend(met.violations(&nodes, &self.aborts, self.clock));
        self.violations.extend(ravage.usages.growth());
        self.violations.extend(logs::panics(site.lab.world()));
    }
}
