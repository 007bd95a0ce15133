//! The binaries of two releases.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

/// Programs that a release has.
const PROGRAMS: [&str; 3] = ["fiberlb-plugin", "fiberlb-proxy", "fiberlb"];

/// One of the two releases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Build {
    /// The release that is upgraded from.
    Old,
    /// The release under test.
    New,
}

/// Folders with the binaries of both.
#[derive(Debug, Clone)]
pub(crate) struct Builds {
    old: PathBuf,
    new: PathBuf,
}

impl Build {
    /// Both, in the order of their age.
    pub(crate) const BOTH: [Build; 2] = [Build::Old, Build::New];

    /// The other one.
    #[must_use]
    pub(crate) fn other(self) -> Build {
        match self {
            Build::Old => Build::New,
            Build::New => Build::Old,
        }
    }
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Build::Old => "old",
            Build::New => "new",
        })
    }
}

impl Builds {
    /// Binaries in two folders.
    ///
    /// # Errors
    /// A program is missing; says how it is built.
    pub(crate) fn new(old: &Path, new: &Path) -> Result<Self> {
        for folder in [old, new] {
            for program in PROGRAMS {
                ensure!(
                    folder.join(program).is_file(),
                    "{} has no {program}: `make test-upgrade FROM=COMMIT` builds both releases",
                    folder.display()
                );
            }
        }
        // Processes are started in other working directories.
        Ok(Self { old: old.canonicalize()?, new: new.canonicalize()? })
    }

    /// A program of a release.
    #[must_use]
    pub(crate) fn program(&self, build: Build, program: &str) -> PathBuf {
        self.folder(build).join(program)
    }

    fn folder(&self, build: Build) -> &Path {
        match build {
            Build::Old => &self.old,
            Build::New => &self.new,
        }
    }
}

impl fmt::Display for Builds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "old: {}\nnew: {}", self.old.display(), self.new.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_all_programs_is_refused() {
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for program in PROGRAMS {
            std::fs::write(new.path().join(program), "").unwrap();
            let refused = Builds::new(old.path(), new.path()).unwrap_err().to_string();
            assert!(refused.contains(&old.path().display().to_string()), "{refused}");
            assert!(refused.contains("make test-upgrade"), "{refused}");
        }
        assert!(Builds::new(new.path(), new.path()).is_ok());
    }
}
