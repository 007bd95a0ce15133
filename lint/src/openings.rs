//! First words of doc comments: a noun or a verb, as the project's vocabulary asks.
//!
//! `lint/openings.txt` has a line `crate-folder percent` for each crate with doc comments: the highest share that may
//! still open with others.

use std::collections::BTreeMap;

use crate::source::DocBlock;
use crate::violation::{Place, Report, Violation};
use crate::workspace::{Crate, Workspace};

/// Path of the file with the shares.
pub(crate) const FILE: &str = "lint/openings.txt";
/// Number of places that are named for a crate with too many.
const EXAMPLES: usize = 10;

/// Compares every crate's share with the one that it may have.
pub(crate) fn check(workspace: &Workspace, text: &str) -> Report {
    let (allowed, mut violations) = parse(text);
    for (folder, limit) in &allowed {
        match workspace.crates.iter().find(|krate| krate.folder == *folder) {
            Some(krate) => violations.extend(excess(krate, limit)),
            None => violations.push(limit.place.violation(format!("{folder} is the folder of no crate"))),
        }
    }
    let documented = || workspace.crates.iter().filter(|krate| krate.docs().next().is_some());
    let unlisted = documented().filter(|krate| !allowed.contains_key(krate.folder.as_str()));
    violations.extend(unlisted.map(|Crate { folder, .. }| {
        Place::new(FILE, 1)
            .violation(format!("{folder} has doc comments and no line here: add \"{folder} 0\""))
    }));
    let shares = documented().map(|krate| {
        let limit = allowed.get(krate.folder.as_str());
        let limit = limit.map(|limit| format!(" of {} %", percent(limit.permille))).unwrap_or_default();
        format!("{} {} %{limit}", krate.folder, percent(permille(krate)))
    });
    let shares: Vec<String> = shares.collect();
    Report { violations, summary: format!("openings of doc comments: {}", shares.join(", ")) }
}

/// The highest share of a crate, and the line that says so.
struct Limit {
    permille: usize,
    place: Place,
}

fn parse(text: &str) -> (BTreeMap<&str, Limit>, Vec<Violation>) {
    let (mut allowed, mut violations) = (BTreeMap::new(), Vec::new());
    for (line, text) in (1..).zip(text.lines()) {
        let place = Place::new(FILE, line);
        let words: Vec<&str> = text.split('#').next().unwrap_or_default().split_whitespace().collect();
        match words.as_slice() {
            [] => {}
            [folder, share] => match parse_permille(share) {
                Some(_) if allowed.contains_key(folder) => {
                    violations.push(place.violation(format!("{folder} has two lines")));
                }
                Some(permille) => {
                    allowed.insert(*folder, Limit { permille, place });
                }
                None => violations.push(place.violation(format!("{share:?} is no percentage such as 12.5"))),
            },
            _ => violations.push(place.violation("a line is a crate's folder and a percentage")),
        }
    }
    (allowed, violations)
}

/// A percentage with one decimal at most, in tenths.
fn parse_permille(text: &str) -> Option<usize> {
    let (whole, tenths) = text.split_once('.').unwrap_or((text, "0"));
    let tenths = tenths.parse().ok().filter(|_| tenths.len() == 1)?;
    whole.parse::<usize>().ok()?.checked_mul(10)?.checked_add(tenths)
}

fn excess(krate: &Crate, limit: &Limit) -> Vec<Violation> {
    let (all, bad) = (krate.docs().count(), bad(krate).count());
    if bad * 1000 <= limit.permille * all {
        return Vec::new();
    }
    let (folder, share, allowed) = (&krate.folder, percent(permille(krate)), percent(limit.permille));
    let message = format!(
        "{folder} has {bad} of {all} doc comments ({share} %, allowed are {allowed} %) that open with a forbidden word; \
         first places:"
    );
    let places = bad_places(krate).take(EXAMPLES);
    std::iter::once(limit.place.violation(message)).chain(places).collect()
}

fn bad_places(krate: &Crate) -> impl Iterator<Item = Violation> {
    bad(krate).map(|(path, line, word)| {
        Place::new(path, line)
            .violation(format!("doc comment opens with {word}: begin with a noun or a verb"))
    })
}

fn bad(krate: &Crate) -> impl Iterator<Item = (&str, usize, &str)> {
    krate.docs().filter_map(|(path, block)| Some((path, block.line, block.bad_opening()?)))
}

/// A crate's share in tenths of a percent, rounded up.
fn permille(krate: &Crate) -> usize {
    (bad(krate).count() * 1000).div_ceil(krate.docs().count().max(1))
}

fn percent(permille: usize) -> String {
    format!("{}.{}", permille / 10, permille % 10)
}

impl Crate {
    /// The doc comments of all files, with their paths.
    fn docs(&self) -> impl Iterator<Item = (&str, &DocBlock)> {
        self.files.iter().flat_map(|file| file.source.docs.iter().map(|block| (file.path.as_str(), block)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::examples;

    fn report(allowed: &str) -> Report {
        let lines =
            "/// What a thing.\nstruct A;\n/// Thing.\nstruct B;\n".repeat(11) + "/// Thing.\nstruct B;\n";
        check(
            &examples::workspace(&[("a/Cargo.toml", ""), ("a/tests/x.rs", &lines), ("y.rs", "//! Text.")]),
            allowed,
        )
    }

    /// Violations beside a line for the root's.
    fn found(allowed: &str) -> Vec<String> {
        report(&format!("{allowed}\n. 0\n")).violations.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_share_is_compared_exactly() {
        // 11 of 23 are 47.83 %.
        assert_eq!(found("a 47.9 # as it is\n"), [""; 0]);
        let violations = found("\na 47.8");
        assert_eq!(violations.len(), 11);
        assert_eq!(
            violations[0],
            "lint/openings.txt:2: a has 11 of 23 doc comments (47.9 %, allowed are 47.8 %) that open with a forbidden \
             word; first places:"
        );
        assert_eq!(violations[1], "a/tests/x.rs:1: doc comment opens with What: begin with a noun or a verb");
    }

    #[test]
    fn a_crate_with_doc_comments_and_without_a_line_is_found() {
        let without = |folder: &str| {
            format!("lint/openings.txt:1: {folder} has doc comments and no line here: add \"{folder} 0\"")
        };
        assert_eq!(
            self::report("").violations.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [".", "a"].map(without)
        );
        let report = report(". 0\na 48");
        assert_eq!(report.violations, []);
        assert_eq!(report.summary, "openings of doc comments: . 0.0 % of 0.0 %, a 47.9 % of 48.0 %");
    }

    #[test]
    fn lines_that_say_nothing_are_found() {
        assert_eq!(
            found("b 1\na 50\na 51\na\na x\na 1.25\n"),
            [
                "lint/openings.txt:3: a has two lines",
                "lint/openings.txt:4: a line is a crate's folder and a percentage",
                "lint/openings.txt:5: \"x\" is no percentage such as 12.5",
                "lint/openings.txt:6: \"1.25\" is no percentage such as 12.5",
                "lint/openings.txt:1: b is the folder of no crate",
            ]
        );
    }
}
