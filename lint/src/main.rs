//! `fiberlb-lint`: checks of FiberLB's sources that clippy cannot make.
//!
//! Run from the repository's root. It prints every violation as `path:line: message` and ends with 1 if there is one,
//! else it prints a line for each check. It ends with 2 where it cannot read the sources.

mod cycles;
mod layers;
mod names;
mod openings;
mod prose;
mod scope;
mod source;
mod test_code;
mod unlayered;
mod violation;
mod words;
mod workspace;

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use violation::Report;
use workspace::Workspace;

fn main() -> ExitCode {
    match check(Path::new(".")).and_then(|reports| print(&reports)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("fiberlb-lint: {error}");
            ExitCode::from(2)
        }
    }
}

fn check(root: &Path) -> io::Result<[Report; 6]> {
    let list = |path| workspace::read(root, path);
    let (unlayered, names) = (list(unlayered::FILE)?, list(names::FILE)?);
    let (workspace, pages) = (Workspace::read(root)?, prose::read(root)?);
    Ok([
        layers::check(&workspace),
        unlayered::check(&workspace, &unlayered),
        openings::check(&workspace),
        names::check(&workspace, &names),
        prose::check(&pages),
        words::check(&workspace, &pages),
    ])
}

fn print(reports: &[Report]) -> io::Result<ExitCode> {
    let mut out = io::stdout().lock();
    let mut violations = reports.iter().flat_map(|report| &report.violations).peekable();
    if violations.peek().is_none() {
        reports.iter().try_for_each(|report| writeln!(out, "{}", report.summary))?;
        return Ok(ExitCode::SUCCESS);
    }
    violations.try_for_each(|violation| writeln!(out, "{violation}"))?;
    Ok(ExitCode::FAILURE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::examples;

    #[test]
    fn all_checks_run() {
        let repository = examples::repository(&[
            ("lint/names.txt", ""),
            ("lint/unlayered.txt", ""),
            ("d/Cargo.toml", ""),
            ("d/src/lib.rs", ""),
            ("c/Cargo.toml", ""),
            ("c/layers.txt", "a\nb\n"),
            ("c/src/a.rs", "struct S;"),
            ("c/src/b.rs", "/// When forgotten.\nstruct S; use crate::a;"),
        ]);
        let found = check(repository.path()).unwrap().map(|report| report.violations.len());
        assert_eq!(found, [1, 1, 1, 1, 0, 1]);
    }

    #[test]
    fn a_missing_list_is_an_error() {
        let repository = examples::repository(&[("lint/unlayered.txt", "")]);
        assert!(check(repository.path()).unwrap_err().to_string().contains("lint/names.txt"));
    }
}
