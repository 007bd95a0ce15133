//! What a run came to, and what it leaves when that was not as it should be.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::chaos::clock::Clock;
use crate::chaos::history::{self, Event, Outcome};
use crate::chaos::schedule::Schedule;
use crate::chaos::traffic::Met;
use crate::lab::Lab;
use crate::logs;

/// What a run came to.
#[derive(Debug, Default)]
pub struct Report {
    /// What must not be, in words.
    pub violations: Vec<String>,
    /// What there was, a line each.
    pub summary: Vec<String>,
    /// Whether Open vSwitch lived through enough of it.
    pub is_telling: bool,
    /// Where all of it is kept, if something was not as it should be.
    pub folder: Option<PathBuf>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.summary {
            writeln!(f, "{line}")?;
        }
        for violation in &self.violations {
            writeln!(f, "VIOLATION  {violation}")?;
        }
        match &self.folder {
            Some(folder) => write!(f, "all that is needed to see why is in {}", folder.display()),
            None => write!(f, "nothing was lost, doubled or broken"),
        }
    }
}

/// How the calls of a history ended, in a line.
#[must_use]
pub fn calls(history: &[Event]) -> String {
    let count = |is: fn(&Outcome) -> bool| history.iter().filter(|event| is(&event.outcome)).count();
    let unknown = count(|outcome| matches!(outcome, Outcome::Unknown { .. }));
    let refused = count(|outcome| matches!(outcome, Outcome::Refused { .. }));
    let objects: std::collections::BTreeSet<&str> =
        history.iter().map(|event| event.object.as_str()).collect();
    let (all, objects) = (history.len(), objects.len());
    format!("{all} calls about {objects} objects: {refused} refused, {unknown} of unknown outcome")
}

/// All that is kept of a run.
#[derive(Debug)]
pub struct Remains<'a> {
    /// What was to fail when.
    pub schedule: &'a Schedule,
    /// What happened when.
    pub clock: &'a Clock,
    /// What clients of the API met.
    pub history: &'a [Event],
    /// What clients of the load balancer met.
    pub met: &'a Met,
}

impl Remains<'_> {
    /// Writes all of it, with the logs of all processes, to a folder named after the lab; gives the folder.
    ///
    /// # Errors
    /// What the system says.
    pub fn keep(&self, lab: &Lab, report: &Report) -> Result<PathBuf> {
        let folder = logs::folder_of(lab.world());
        logs::save_to(lab.world(), &folder.join("logs"))?;
        let write = |name: &str, text: &str| write(&folder, name, text);
        write("report.txt", &format!("seed {}\n{report}\n", self.schedule.seed))?;
        write("schedule.json", &serde_json::to_string_pretty(self.schedule)?)?;
        write("timeline.txt", &self.clock.timeline())?;
        write("history.jsonl", &history::to_lines(self.history))?;
        write("failed-requests.txt", &self.met.failed(self.clock))?;
        Ok(folder)
    }
}

fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}
