//! Type names: one word, one meaning among the modules that a `layers.txt` orders.
//!
//! `lint/names.txt` has a line `Name reason...` for each name that two of the modules may both declare.

use std::collections::BTreeMap;

use crate::violation::{Place, Report, Violation};
use crate::workspace::{Layered, Workspace};

/// Path of the file with the names.
pub(crate) const FILE: &str = "lint/names.txt";

/// Checks the type names of every crate and folder that has a `layers.txt`.
pub(crate) fn check(workspace: &Workspace, text: &str) -> Report {
    let layered: Vec<Layered<'_>> = workspace.layered().collect();
    if layered.is_empty() {
        return Report { summary: "type names: no crate has a layers.txt".to_owned(), ..Report::default() };
    }
    let (allowed, mut violations) = parse(text);
    let duplicates: Vec<Duplicate> = layered.iter().flat_map(|layered| duplicates(*layered)).collect();
    for duplicate in duplicates.iter().filter(|duplicate| !allowed.contains_key(duplicate.name.as_str())) {
        violations.push(duplicate.violation());
    }
    for (name, line) in &allowed {
        if !duplicates.iter().any(|duplicate| duplicate.name == *name) {
            let message = format!("{name} is no longer declared by two modules: remove the line");
            violations.push(Place::new(FILE, *line).violation(message));
        }
    }
    let folders: Vec<&str> = layered.iter().map(|layered| layered.folder()).collect();
    let summary = format!(
        "type names: {} declared twice and listed in {FILE} ({})",
        duplicates.len(),
        folders.join(", ")
    );
    Report { violations, summary }
}

/// The listed names with their lines, and the lines that are wrong.
fn parse(text: &str) -> (BTreeMap<&str, usize>, Vec<Violation>) {
    let (mut allowed, mut violations) = (BTreeMap::new(), Vec::new());
    for (line, text) in (1..).zip(text.lines()).filter(|(_, text)| !text.starts_with('#')) {
        let mut words = text.split_whitespace();
        let Some(name) = words.next() else { continue };
        if words.next().is_none() {
            violations.push(Place::new(FILE, line).violation(format!("{name} has no reason")));
        }
        if allowed.insert(name, line).is_some() {
            violations.push(Place::new(FILE, line).violation(format!("{name} has two lines")));
        }
    }
    (allowed, violations)
}

/// A name that more than one module declares.
struct Duplicate {
    name: String,
    /// The first place of each module.
    places: Vec<Place>,
}

impl Duplicate {
    fn violation(&self) -> Violation {
        let places: Vec<String> = self.places.iter().skip(1).map(ToString::to_string).collect();
        let message = format!("type {} is declared in other modules too: {}", self.name, places.join(", "));
        self.places.first().unwrap_or(&Place::new(FILE, 0)).violation(message)
    }
}

fn duplicates(layered: Layered<'_>) -> Vec<Duplicate> {
    let mut names: BTreeMap<String, BTreeMap<&str, Place>> = BTreeMap::new();
    for found in layered.declarations() {
        names.entry(found.name).or_default().entry(found.top).or_insert(found.place);
    }
    names
        .into_iter()
        .filter(|(_, modules)| modules.len() > 1)
        .map(|(name, modules)| Duplicate { name, places: modules.into_values().collect() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::examples;

    fn report(allowed: &str) -> Report {
        let workspace = examples::layered(
            "a b",
            &[
                (
                    "a.rs",
                    "struct State; mod x { enum State {} }\nstruct Own; impl X for Own { type Item = u8; }",
                ),
                ("b/mod.rs", "impl X for Other { type Item = u8; }\n#[cfg(test)] mod tests { struct Own; }"),
                ("b/c.rs", "// struct Own;\ntrait State {} struct Here;"),
                ("b/d.rs", "struct Here;"),
            ],
        );
        check(&workspace, allowed)
    }

    fn found(allowed: &str) -> Vec<String> {
        report(allowed).violations.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_name_of_two_modules_is_found() {
        let expected = "c/src/a.rs:1: type State is declared in other modules too: c/src/b/c.rs:2";
        assert_eq!(found("# none\n\n"), [expected]);
    }

    #[test]
    fn a_listed_name_passes() {
        let report = report("State to be renamed\n");
        assert_eq!(report.violations, []);
        assert_eq!(report.summary, "type names: 1 declared twice and listed in lint/names.txt (c)");
    }

    #[test]
    fn the_list_can_only_shrink() {
        assert_eq!(
            found("State why\nOwn once\nState\n"),
            [
                "lint/names.txt:3: State has no reason",
                "lint/names.txt:3: State has two lines",
                "lint/names.txt:2: Own is no longer declared by two modules: remove the line",
            ]
        );
    }

    #[test]
    fn crates_without_layers_are_not_looked_at() {
        let workspace = examples::workspace(&[("src/a.rs", "struct A;"), ("src/b.rs", "struct A;")]);
        let report = check(&workspace, "B is gone");
        assert_eq!(
            (report.violations.len(), report.summary.as_str()),
            (0, "type names: no crate has a layers.txt")
        );
    }
}
