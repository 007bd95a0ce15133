//! The logs of a lab's daemons: looked through for emergencies, kept when a test fails.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::abort;
use crate::error::{LabError, Result};
use crate::run;
use crate::world::World;

/// Variable with the folder for logs of failed labs; the default is `lab-failures` in cargo's target folder.
pub const FAILURES_ENV: &str = "FIBERLB_LAB_FAILURES";

/// Fails if a daemon logged an emergency: it aborted, and was perhaps restarted before anybody saw it.
pub(crate) fn check_for_emergencies(world: &World) -> Result<()> {
    let lines = emergencies(&world.path("/run/log"));
    if lines.is_empty() { Ok(()) } else { Err(LabError::Emergency(lines.join("\n"))) }
}

/// Copies all logs and the databases to a folder named after the lab; gives the folder.
pub fn save(world: &World) -> Result<PathBuf> {
    let folder = folder_of(world);
    save_to(world, &folder)?;
    Ok(folder)
}

/// Folder for the logs and databases of a failed lab.
pub fn folder_of(world: &World) -> PathBuf {
    failures_folder().join(format!("{}-{}", world.name(), std::process::id()))
}

/// Commands of `ovs-appctl` whose output is kept of each chassis: state of its datapath.
const DATAPATH: [&[&str]; 5] = [
    &["dpctl/dump-conntrack"],
    &["dpctl/dump-flows", "-m"],
    &["dpif/show"],
    &["ovs/route/show"],
    &["tnl/neigh/show"],
];

/// Copies all logs and the databases, and what the chassis' datapaths hold now, to a folder, which is made.
pub fn save_to(world: &World, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(LabError::io(folder.display().to_string()))?;
    let databases = files_of(&world.path("/run/central")).into_iter();
    let databases = databases.filter(|file| file.extension().is_some_and(|extension| extension == "db"));
    for source in files_of(&world.path("/run/log")).into_iter().chain(databases) {
        let Some(name) = source.file_name() else { continue };
        fs::copy(&source, folder.join(name)).map_err(LabError::io(source.display().to_string()))?;
    }
    for chassis in fs::read_dir(world.path("/run/chassis")).into_iter().flatten().flatten() {
        let file = folder.join(format!("{}.datapath.txt", chassis.file_name().to_string_lossy()));
        let text = datapath(&chassis.path().join("vswitchd.ctl"));
        fs::write(&file, text).map_err(LabError::io(file.display().to_string()))?;
    }
    Ok(())
}

/// Output of [`DATAPATH`]'s commands by the ovs-vswitchd behind a control socket, errors included.
fn datapath(control: &Path) -> String {
    let mut text = String::new();
    for question in DATAPATH {
        let mut command = run::command("ovs-appctl").into_std();
        command.arg(format!("--target={}", control.display())).arg("--timeout=5").args(question);
        let said = command.output().map_or_else(
            |error| error.to_string(),
            |output| String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        );
        text.extend(["# ", &question.join(" "), "\n", &said, "\n"]);
    }
    text
}

/// Times of the emergencies that daemons logged, all of which are known of this release of Open vSwitch.
///
/// # Errors
/// [`LabError::Emergency`] with the others.
pub fn excused_aborts(world: &World) -> Result<Vec<SystemTime>> {
    let lines = emergencies(&world.path("/run/log"));
    let others: Vec<String> = lines.iter().filter(|line| !abort::excuses(line)).cloned().collect();
    if !others.is_empty() {
        return Err(LabError::Emergency(others.join("\n")));
    }
    Ok(lines.iter().filter_map(|line| time_of(line)).collect())
}

/// The time of a line such as `ch1.vswitchd.log: 2026-01-31T14:58:22.129Z|00058|...`.
fn time_of(line: &str) -> Option<SystemTime> {
    let (_, line) = line.split_once(": ")?;
    let time: prost_types::Timestamp = line.split('|').next()?.parse().ok()?;
    time.try_into().ok()
}

/// Lines of the logs in which a program of ours says that it panicked.
pub fn panics(world: &World) -> Vec<String> {
    lines_with(&world.path("/run/log"), "panicked at")
}

fn emergencies(folder: &Path) -> Vec<String> {
    lines_with(folder, "|EMER|")
}

/// Lines of a folder's files with some text in them, each behind its file's name.
fn lines_with(folder: &Path, part: &str) -> Vec<String> {
    let mut found = Vec::new();
    for file in files_of(folder) {
        let text = fs::read(&file).unwrap_or_default();
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = String::from_utf8_lossy(&text);
        found.extend(text.lines().filter(|line| line.contains(part)).map(|line| format!("{name}: {line}")));
    }
    found
}

fn files_of(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect()
}

fn failures_folder() -> PathBuf {
    if let Some(folder) = std::env::var_os(FAILURES_ENV) {
        return folder.into();
    }
    let program = std::env::current_exe().unwrap_or_default();
    // Cargo marks its target folder by this file, wherever it is.
    let target = program.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file());
    target.map_or_else(std::env::temp_dir, Path::to_owned).join("lab-failures")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_emergencies_are_found() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.log"), "x|00001|vlog|INFO|opened\n").unwrap();
        fs::write(folder.path().join("b.log"), "x|00002|util|EMER|conntrack.c:1: assertion failed\n")
            .unwrap();
        assert_eq!(emergencies(folder.path()), ["b.log: x|00002|util|EMER|conntrack.c:1: assertion failed"]);
        assert!(emergencies(&folder.path().join("none")).is_empty());
    }

    #[test]
    fn the_time_of_a_line_is_read() {
        let time = time_of("ch1.vswitchd.log: 1970-01-02T00:00:01.500Z|00058|util|EMER|x: y").unwrap();
        assert_eq!(time, SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(86_401_500));
        assert_eq!(time_of("ch1.vswitchd.log: nonsense"), None);
    }
}
