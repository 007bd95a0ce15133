//! The targets of the Makefile that the pages name are there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::{Failed, Trial};

/// Pages that name targets.
const PAGES: [&str; 5] =
    ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs/getting-started.md", "docs/operating.md"];

/// A test for each page.
pub(crate) fn trials(repository: &Path) -> Vec<Trial> {
    let trial = |page: &str| {
        let (repository, page) = (repository.to_owned(), page.to_owned());
        Trial::test(format!("targets in {page}"), move || {
            check(&repository, &page).map_err(|error| Failed::from(format!("{error:#}")))
        })
    };
    PAGES.into_iter().map(trial).collect()
}

fn check(repository: &Path, page: &str) -> Result<()> {
    let read = |path: &str| fs::read_to_string(repository.join(path)).context(path.to_owned());
    let (makefile, text) = (read("Makefile")?, read(page)?);
    let rules = makefile.lines().filter(|line| line.starts_with(|first: char| first.is_ascii_lowercase()));
    let targets: BTreeSet<&str> =
        rules.filter_map(|line| line.split_once(':')).map(|(target, _)| target).collect();
    let named: BTreeSet<&str> =
        ["`make ", "$ make "].into_iter().flat_map(|call| named(&text, call)).collect();
    ensure!(!named.is_empty(), "it names none");
    for target in named {
        ensure!(targets.contains(target), "make {target} is no target of the Makefile");
    }
    Ok(())
}

/// Targets behind each occurrence of a call.
fn named<'a>(text: &'a str, call: &'a str) -> impl Iterator<Item = &'a str> {
    let words = text
        .split(call)
        .skip(1)
        .filter_map(|rest| rest.split(|next: char| !next.is_ascii_lowercase() && next != '-').next());
    words.filter(|word| word.starts_with(|first: char| first.is_ascii_lowercase()))
}
