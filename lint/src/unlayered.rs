//! Crates without a `layers.txt`: each of them is listed, so that a new crate is not overlooked.
//!
//! `lint/unlayered.txt` has a line `crate-folder` for a crate of at most one module below its root, which is too small for layers,
//! and a line `crate-folder reason...` for a larger one whose modules have no order yet.

use std::collections::BTreeMap;

use crate::violation::{Place, Report, Violation};
use crate::workspace::{Crate, Workspace};

/// Path of the list.
pub(crate) const FILE: &str = "lint/unlayered.txt";

/// Checks that every crate either has a `layers.txt` or is listed.
pub(crate) fn check(workspace: &Workspace, text: &str) -> Report {
    let (listed, mut violations) = parse(text);
    let crates = || workspace.crates.iter().filter(|krate| krate.modules().next().is_some());
    for krate in crates() {
        violations.extend(fault(krate, listed.get(krate.folder.as_str())));
    }
    for (folder, entry) in &listed {
        if !crates().any(|krate| krate.folder == *folder) {
            violations.push(entry.place.violation(format!("{folder} is the folder of no crate")));
        }
    }
    let pending = listed.iter().filter(|(_, entry)| entry.has_reason).map(|(folder, _)| *folder);
    let pending: Vec<&str> = pending.collect();
    let summary = match pending.as_slice() {
        [] => format!("crates without layers: {}, all of them small", listed.len()),
        _ => format!(
            "crates without layers: {}, of them several modules have {}",
            listed.len(),
            pending.join(", ")
        ),
    };
    Report { violations, summary }
}

/// A line of the list.
struct Entry {
    has_reason: bool,
    place: Place,
}

fn parse(text: &str) -> (BTreeMap<&str, Entry>, Vec<Violation>) {
    let (mut listed, mut violations) = (BTreeMap::new(), Vec::new());
    for (line, text) in (1..).zip(text.lines()) {
        let mut words = text.split('#').next().unwrap_or_default().split_whitespace();
        let Some(folder) = words.next() else { continue };
        let place = Place::new(FILE, line);
        if listed.contains_key(folder) {
            violations.push(place.violation(format!("{folder} has two lines")));
        } else {
            listed.insert(folder, Entry { has_reason: words.next().is_some(), place });
        }
    }
    (listed, violations)
}

fn fault(krate: &Crate, entry: Option<&Entry>) -> Option<Violation> {
    let folder = &krate.folder;
    let modules = krate.modules().filter(|(module, _)| !matches!(*module, "lib" | "main")).count();
    match (krate.has_layers(), entry) {
        (true, None) => None,
        (true, Some(entry)) => {
            Some(entry.place.violation(format!("{folder} has a layers.txt: remove the line")))
        }
        (false, None) => Some(Place::new(krate.path("Cargo.toml"), 1).violation(format!(
            "{folder} has no layers.txt: write one, or list the crate in {FILE} if it has at most one module"
        ))),
        (false, Some(Entry { has_reason: false, place })) if modules > 1 => {
            let message =
                format!("{folder} has {modules} modules: write a layers.txt, or a reason why it has none");
            Some(place.violation(message))
        }
        (false, Some(Entry { has_reason: true, place })) if modules <= 1 => {
            Some(place.violation(format!("{folder} has at most one module: remove the reason")))
        }
        (false, Some(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::examples;

    /// Crates with layers, with one module, with two modules, and one without sources of its own.
    fn report(list: &str) -> Report {
        check(
            &examples::workspace(&[
                ("layered/Cargo.toml", ""),
                ("layered/layers.txt", "lib"),
                ("layered/src/lib.rs", ""),
                ("small/Cargo.toml", ""),
                ("small/src/lib.rs", "mod a; #[cfg(test)] mod b;"),
                ("small/src/a.rs", ""),
                ("small/src/b.rs", "fn f() {}"),
                ("large/Cargo.toml", ""),
                ("large/src/main.rs", ""),
                ("large/src/a.rs", ""),
                ("large/src/b.rs", ""),
                ("scripts/Cargo.toml", ""),
                ("scripts/build.rs", ""),
            ]),
            list,
        )
    }

    fn found(list: &str) -> Vec<String> {
        report(list).violations.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_crate_without_layers_must_be_listed() {
        let missing = |folder: &str| {
            format!(
                "{folder}/Cargo.toml:1: {folder} has no layers.txt: write one, or list the crate in lint/unlayered.txt if \
                 it has at most one module"
            )
        };
        assert_eq!(found(""), [missing("large"), missing("small")]);
        assert_eq!(found("# none\nsmall\nlarge no order yet\n"), [""; 0]);
    }

    #[test]
    fn only_a_small_crate_needs_no_reason() {
        assert_eq!(
            found("small so far\nlarge\n"),
            [
                "lint/unlayered.txt:2: large has 2 modules: write a layers.txt, or a reason why it has none",
                "lint/unlayered.txt:1: small has at most one module: remove the reason",
            ]
        );
    }

    #[test]
    fn lines_that_say_nothing_are_found() {
        assert_eq!(
            found("small\nlarge no order yet\nsmall\nlayered\nscripts\n"),
            [
                "lint/unlayered.txt:3: small has two lines",
                "lint/unlayered.txt:4: layered has a layers.txt: remove the line",
                "lint/unlayered.txt:5: scripts is the folder of no crate",
            ]
        );
    }

    #[test]
    fn the_summary_names_the_large_ones() {
        assert_eq!(report("small\n").summary, "crates without layers: 1, all of them small");
        let summary = report("small\nlarge no order yet").summary;
        assert_eq!(summary, "crates without layers: 2, of them several modules have large");
    }
}
