//! A run: a site, traffic and clients on it, chaos, and a judgement when all is quiet again.

use std::time::Duration;

use anyhow::{Context as _, Result};
use fastrand::Rng;
use fiberlb_lab::logs;

use crate::checker::check;
use crate::clients::{Board, Clients};
use crate::clock::Clock;
use crate::history::Event;
use crate::nemesis::{Nemesis, NemesisOutcome};
use crate::report::{Report, RunArtifacts, calls};
use crate::schedule::Schedule;
use crate::site::Site;
use crate::tolerance::{FLOWS_ARE_BACK, Tolerances};
use crate::traffic::{Met, Traffic};
use crate::verification;

/// Clients of the API.
const CLIENTS: usize = 4;
/// Times that a run is made until Open vSwitch lives through enough of it.
const ATTEMPTS: usize = 3;
/// Longest wait for a plugin to take a write when all is well again.
const PATIENCE: Duration = Duration::from_secs(30);

/// Settings of a run.
#[derive(Debug, Clone)]
pub struct Options {
    /// For people, and for the folder that a failed run leaves.
    pub name: String,
    /// From which the faults follow.
    pub seed: u64,
    /// About how long there are faults.
    pub seconds: u64,
    /// Number of plugins.
    pub plugins: usize,
    /// Print what happens when.
    pub is_loud: bool,
}

impl Options {
    /// Plan of the faults.
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
    let (target, parents) = site.open().await?;
    site.lab.wait_for_sync().await?;
    let schedule = options.schedule();
    let clock = Clock::start(options.is_loud);
    let traffic = Traffic::start(&site.clients, target)?;
    let clients = Clients::start(CLIENTS, options.seed, clock.clone(), parents, site.services());
    let outcome = Nemesis::new(site, clock.clone()).run(&schedule).await;
    clock.note("all faults are undone");
    let board = clients.stop().await;
    let mut checks = FinalChecks { violations: Vec::new(), aborts: Vec::new(), board: &board, clock: &clock };
    checks.settle(site, outcome.is_ok()).await;
    let met = traffic.stop().await;
    let (history, outcome) = (board.history(), checks.took_place(outcome));
    checks.check(&outcome, &met, site);
    let mut report = Report { violations: checks.violations, ..Report::default() };
    let (end, aborts) = (schedule.end, checks.aborts);
    let rest = Tolerances::of_aborts(&aborts, FLOWS_ARE_BACK).rest(end);
    report.is_telling = rest > end / 2;
    report.summary = summary(&history, &outcome, &met);
    report.summary.push(format!("aborts of Open vSwitch: {aborts:.1?}; {rest} of {end} ms without"));
    if !report.violations.is_empty() {
        let artifacts = RunArtifacts { schedule: &schedule, clock: &clock, history: &history, met: &met };
        report.folder = Some(artifacts.keep(&site.lab, &report)?);
    }
    Ok(report)
}

fn summary(history: &[Event], outcome: &NemesisOutcome, met: &Met) -> Vec<String> {
    let first = vec![calls(history), format!("{} faults", outcome.faults.len())];
    [first, met.summary(), outcome.usages.summary()].concat()
}

/// Checks that follow when all faults are undone.
struct FinalChecks<'a> {
    violations: Vec<String>,
    /// Times of Open vSwitch's aborts.
    aborts: Vec<Duration>,
    board: &'a Board,
    clock: &'a Clock,
}

impl FinalChecks<'_> {
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
        if let Some(difference) = verification::northbound(site).await? {
            self.violations.push(format!("the northbound database is not as it should be: {difference}"));
        }
        self.clock.note("the northbound database was compared");
        Ok(())
    }

    /// The faults that took place; that they could not be carried out is a violation, too.
    fn took_place(&mut self, outcome: Result<NemesisOutcome>) -> NemesisOutcome {
        outcome.unwrap_or_else(|why| {
            self.violations.push(format!("{why:#}"));
            NemesisOutcome::default()
        })
    }

    fn check(&mut self, outcome: &NemesisOutcome, met: &Met, site: &Site) {
        match logs::excused_aborts(site.lab.world()) {
            Ok(aborts) => self.aborts = aborts.iter().map(|abort| self.clock.at_wall(*abort)).collect(),
            Err(emergency) => self.violations.push(emergency.to_string()),
        }
        self.violations.extend(check(&self.board.history()).iter().map(ToString::to_string));
        let nodes = Tolerances::of(&outcome.faults, &outcome.northd_away);
        self.violations.extend(met.violations(&nodes, &self.aborts, self.clock));
        self.violations.extend(outcome.usages.growth());
        self.violations.extend(logs::panics(site.lab.world()));
    }
}
