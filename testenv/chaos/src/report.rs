//! Result of a run, and the artifacts of a run with violations.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use fiberlb_lab::{Lab, logs};

use crate::clock::Clock;
use crate::history::{self, Event, Outcome};
use crate::schedule::Schedule;
use crate::traffic::Met;

/// Result of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// Descriptions of violations.
    pub violations: Vec<String>,
    /// Lines of the summary.
    pub summary: Vec<String>,
    /// True if Open vSwitch ran for enough of the time.
    pub is_telling: bool,
    /// Folder of the artifacts, if there were violations.
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

/// Summary of a history's calls, in a line.
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
pub struct RunArtifacts<'a> {
    /// Planned faults.
    pub schedule: &'a Schedule,
    /// Times of what happened.
    pub clock: &'a Clock,
    /// Calls of the API's clients.
    pub history: &'a [Event],
    /// Requests of the load balancer's clients.
    pub met: &'a Met,
}

impl RunArtifacts<'_> {
    /// Writes all of it, with the logs of all processes, to a folder named after the lab; gives the folder.
    ///
    /// # Errors
    /// A file that cannot be written.
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
