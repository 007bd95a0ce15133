//! Carries a schedule out on a site: each fault at its time, and its end.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use fiberlb_lab::process::Process;
use fiberlb_lab::{Central, Link, Member, Stop};

use crate::clock::Clock;
use crate::growth::Usages;
use crate::schedule::{Fault, Harm, Kind, Schedule, Unit};
use crate::site::Site;

/// From one look at all processes to the next.
const ROUND: Duration = Duration::from_millis(500);

/// Injects faults.
#[derive(Debug)]
pub struct Nemesis<'a> {
    site: &'a mut Site,
    clock: Clock,
    /// Faults that are in force.
    under_way: Vec<Fault>,
    /// Faults that have begun, as they took place.
    done: Vec<Fault>,
    usages: Usages,
    /// Since when northd has no northbound database.
    northd_away: Option<u64>,
    northd_was_away: Vec<(u64, u64)>,
}

/// Result of the faults.
#[derive(Debug, Clone, Default)]
pub struct NemesisOutcome {
    /// The faults, at the times when they really took place.
    pub faults: Vec<Fault>,
    /// Resources that processes held from time to time.
    pub usages: Usages,
    /// Spans in which northd, which is none of ours, had no northbound database; milliseconds.
    pub northd_away: Vec<(u64, u64)>,
}

impl<'a> Nemesis<'a> {
    /// One that has done nothing yet.
    #[must_use]
    pub fn new(site: &'a mut Site, clock: Clock) -> Self {
        let (northd_away, northd_was_away) = (None, Vec::new());
        let (under_way, done, usages) = (Vec::new(), Vec::new(), Usages::default());
        Self { site, clock, under_way, done, usages, northd_away, northd_was_away }
    }

    /// Does all that is scheduled. All faults are undone when it returns.
    ///
    /// # Errors
    /// A process or link is not as it should be.
    pub async fn run(mut self, schedule: &Schedule) -> Result<NemesisOutcome> {
        let mut planned = schedule.faults.iter().copied().peekable();
        let mut look = Instant::now();
        loop {
            let now = u64::try_from(self.clock.now().as_millis())?;
            self.end_due(now).await?;
            while let Some(fault) = planned.next_if(|fault| fault.begin <= now) {
                self.begin(fault).await?;
            }
            if look.elapsed() >= ROUND {
                look = Instant::now();
                self.look_after().await?;
                self.look_at_northd(now).await;
            }
            if now >= schedule.end {
                self.northd_was_away.extend(self.northd_away.map(|since| (since, now)));
                let (faults, usages, northd_away) = (self.done, self.usages, self.northd_was_away);
                return Ok(NemesisOutcome { faults, usages, northd_away });
            }
            let next = planned.peek().map_or(schedule.end, |fault| fault.begin);
            let end = self.under_way.iter().map(|fault| fault.end).min().unwrap_or(next);
            let due = self.clock.moment(next.min(end)).min(look + ROUND);
            tokio::time::sleep_until(due.into()).await;
        }
    }

    async fn begin(&mut self, planned: Fault) -> Result<()> {
        let begin = u64::try_from(self.clock.now().as_millis())?;
        // On a busy machine it is late, and lasts as long as it was to last.
        let fault = Fault { begin, end: begin + (planned.end - planned.begin), ..planned };
        self.clock.note(format!("{fault}"));
        self.harm(fault.unit, fault.harm).await.with_context(|| format!("{fault}"))?;
        self.under_way.push(fault);
        Ok(())
    }

    async fn end_due(&mut self, now: u64) -> Result<()> {
        let (due, left) = self.under_way.drain(..).partition(|fault| fault.end <= now);
        self.under_way = left;
        let due: Vec<Fault> = due;
        for fault in due {
            self.heal(fault.unit, fault.harm).await.with_context(|| format!("the end of {fault}"))?;
            self.clock.note(format!("{} is back from {:?}", fault.unit, fault.harm));
            self.done.push(Fault { end: u64::try_from(self.clock.now().as_millis())?, ..fault });
        }
        Ok(())
    }

    async fn harm(&mut self, unit: Unit, harm: Harm) -> Result<()> {
        match (unit.kind, harm) {
            (Kind::Northbound, Harm::Kill) => {
                self.site.lab.stop(Central::Member(member(unit)?), Stop::Kill).await?;
            }
            (Kind::Northbound, Harm::Pause) => self.site.lab.pause(Central::Member(member(unit)?)).await?,
            (Kind::Northbound, _) => self.site.lab.cut_member(member(unit)?).await?,
            (Kind::Northd, _) => self.site.lab.stop(Central::Northd, Stop::Kill).await?,
            // One that has ended by itself just now is started again in the next round.
            (_, Harm::Kill | Harm::Pause) if !self.process(unit)?.is_running() => {}
            (_, Harm::Kill) => self.process(unit)?.kill()?,
            (_, Harm::Pause) => self.process(unit)?.pause()?,
            (_, Harm::Cut) => self.link(unit)?.cut().await?,
            (_, Harm::Slow) => self.link(unit)?.slow().await?,
        }
        Ok(())
    }

    async fn heal(&mut self, unit: Unit, harm: Harm) -> Result<()> {
        match (unit.kind, harm) {
            (Kind::Northbound, Harm::Kill) => self.site.lab.restart(Central::Member(member(unit)?)).await?,
            (Kind::Northbound, Harm::Pause) => self.site.lab.resume(Central::Member(member(unit)?)).await?,
            (Kind::Northbound, _) => self.site.lab.heal_member(member(unit)?).await?,
            (Kind::Northd, _) => self.site.lab.restart(Central::Northd).await?,
            (_, Harm::Kill) => self.process(unit)?.start_again().await?,
            (_, Harm::Pause) if !self.process(unit)?.is_running() => {}
            (_, Harm::Pause) => self.process(unit)?.resume()?,
            (_, Harm::Cut) => self.link(unit)?.mend().await?,
            (_, Harm::Slow) => self.link(unit)?.fast().await?,
        }
        Ok(())
    }

    /// Does what a supervisor does on a real machine: starts again what ended by itself. Notes what processes of ours hold.
    async fn look_after(&mut self) -> Result<()> {
        for unit in units(self.site) {
            let killed = |fault: &Fault| fault.unit == unit && fault.harm == Harm::Kill;
            if self.under_way.iter().any(killed) {
                continue;
            }
            let process = self.process(unit)?;
            if !process.is_running() {
                process.start_again().await?;
                self.clock.note(format!("{unit} had ended by itself, and was started again"));
            } else if unit.kind != Kind::Etcd
                && let Ok(usage) = process.usage()
            {
                self.usages.note(&unit.to_string(), usage);
            }
        }
        Ok(())
    }

    async fn look_at_northd(&mut self, now: u64) {
        if self.site.lab.northd_is_connected().await {
            self.northd_was_away.extend(self.northd_away.take().map(|since| (since, now)));
        } else if self.northd_away.is_none() {
            // Perhaps since just after the last look.
            self.northd_away = Some(now.saturating_sub(u64::try_from(ROUND.as_millis()).unwrap_or_default()));
        }
    }

    fn process(&mut self, unit: Unit) -> Result<&mut Process> {
        let found = match unit.kind {
            Kind::Etcd => {
                self.site.store.members_mut().get_mut(unit.index).map(|member| member.process_mut())
            }
            Kind::Plugin => self.site.replicas.get_mut(unit.index).map(|replica| replica.process_mut()),
            Kind::Proxy => self.site.nodes.get_mut(unit.index).map(|(node, _)| node.process_mut()),
            Kind::Northbound | Kind::Northd => None,
        };
        found.with_context(|| format!("there is no process {unit}"))
    }

    fn link(&self, unit: Unit) -> Result<Link> {
        let host = match unit.kind {
            Kind::Etcd => self.site.store.members().get(unit.index).map(|member| member.host()),
            Kind::Plugin => self.site.replicas.get(unit.index).map(|replica| replica.host()),
            Kind::Proxy => self.site.nodes.get(unit.index).map(|(_, host)| host),
            Kind::Northbound | Kind::Northd => None,
        };
        Ok(host.with_context(|| format!("{unit} has no link"))?.link().clone())
    }
}

fn member(unit: Unit) -> Result<Member> {
    Member::ALL.get(unit.index).copied().with_context(|| format!("there is no {unit}"))
}

/// Processes that a supervisor restarts.
fn units(site: &Site) -> Vec<Unit> {
    let of_kind = |(kind, count)| (0..count).map(move |index| Unit { kind, index });
    let (etcd, plugins, proxies) = (site.store.members().len(), site.replicas.len(), site.nodes.len());
    [(Kind::Etcd, etcd), (Kind::Plugin, plugins), (Kind::Proxy, proxies)]
        .into_iter()
        .flat_map(of_kind)
        .collect()
}
