//! The units in packaging/systemd are ones that systemd takes, and start what is built here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use fiberlb_lab::workspace_binary;
use libtest_mimic::{Failed, Trial};

/// Settings that systemd has since 254, and earlier ones name and ignore.
const NEWER: [&str; 2] = ["'RestartSteps'", "'RestartMaxDelaySec'"];

/// A test for each unit.
pub(crate) fn trials(repository: &Path) -> Vec<Trial> {
    let entries = fs::read_dir(repository.join("packaging/systemd")).into_iter().flatten().flatten();
    let units: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    let trial = |unit: &PathBuf| {
        let (name, unit) = (unit.file_name().unwrap_or_default().display().to_string(), unit.clone());
        Trial::test(format!("packaging/systemd/{name}"), move || {
            check(&unit).map_err(|error| Failed::from(format!("{error:#}")))
        })
    };
    units.iter().map(trial).collect()
}

fn check(unit: &Path) -> Result<()> {
    let text = fs::read_to_string(unit)?;
    let command = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).context("no ExecStart")?;
    let program = command.split(' ').next().unwrap_or_default();
    ensure!(!program.contains('/'), "{command} is in /usr/bin or in /usr/local/bin: give the name alone");
    ensure!(unit.file_stem().is_some_and(|stem| stem == program), "{program} has another unit's name");
    // On this machine it is elsewhere.
    let binary = workspace_binary(program)?.display().to_string();
    let text = text.replace(&format!("ExecStart={program}"), &format!("ExecStart={binary}"));
    let folder = tempfile::TempDir::new()?;
    let copy = folder.path().join(unit.file_name().unwrap_or_default());
    fs::write(&copy, text)?;
    verify(&copy)
}

fn verify(unit: &Path) -> Result<()> {
    let mut command = Command::new("systemd-analyze");
    match command.args(["verify", "--man=no"]).arg(unit).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("SKIPPED {}: missing: systemd-analyze", unit.display());
            Ok(())
        }
        Err(error) => Err(error.into()),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            let is_newer = |line: &str| NEWER.iter().any(|setting| line.contains(setting));
            let is_well = output.status.success() && text.lines().all(is_newer);
            if is_well { Ok(()) } else { bail!("{text}") }
        }
    }
}
