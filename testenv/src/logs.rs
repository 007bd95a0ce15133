//! The logs of a lab's daemons: looked through for emergencies, kept when a test fails.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{LabError, Result};
use crate::world::World;

/// Where the logs of failed labs go, instead of the default `lab-failures` in cargo's target folder.
pub const FAILURES_ENV: &str = "FIBERLB_LAB_FAILURES";

/// Fails if a daemon logged an emergency: it aborted, and was perhaps restarted before anybody saw it.
pub(crate) fn check_for_emergencies(world: &World) -> Result<()> {
    let lines = emergencies(&world.path("/run/log"));
    if lines.is_empty() { Ok(()) } else { Err(LabError::Emergency(lines.join("\n"))) }
}

/// Copies all logs and the databases to a folder named after the lab; gives the folder.
pub(crate) fn save(world: &World) -> Result<PathBuf> {
    let folder = failures_folder().join(format!("{}-{}", world.name(), std::process::id()));
    fs::create_dir_all(&folder).map_err(LabError::io(folder.display().to_string()))?;
    let databases = ["/run/central/nb.db", "/run/central/sb.db"].map(|file| world.path(file));
    for source in files_of(&world.path("/run/log")).into_iter().chain(databases) {
        let Some(name) = source.file_name() else { continue };
        fs::copy(&source, folder.join(name)).map_err(LabError::io(source.display().to_string()))?;
    }
    Ok(folder)
}

fn emergencies(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for file in files_of(folder) {
        let text = fs::read(&file).unwrap_or_default();
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = String::from_utf8_lossy(&text);
        found.extend(
            text.lines().filter(|line| line.contains("|EMER|")).map(|line| format!("{name}: {line}")),
        );
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
}
