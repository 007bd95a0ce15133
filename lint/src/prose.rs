//! Width of the prose in Markdown pages, which people read in pagers and in diffs.

use std::path::Path;
use std::{fs, io};

use crate::violation::{Place, Report};
use crate::workspace;

/// Folders of the pages, the root of the repository among them.
const FOLDERS: [&str; 3] = ["", "docs", "ovn/ovsdb"];
/// Most characters of a line. Tables, code and targets of links are as wide as they have to be, and so is a word without a space.
const COLUMNS: usize = 120;

/// A Markdown page.
pub(crate) struct Page {
    path: String,
    text: String,
}

impl Page {
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Lines outside of blocks of code, with their numbers.
    pub(crate) fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut is_code = false;
        (1..).zip(self.text.lines()).filter(move |(_, line)| {
            let is_fence = line.trim_start().starts_with("```");
            is_code ^= is_fence;
            !is_code && !is_fence
        })
    }
}

/// Reads the pages of all folders that there are.
///
/// # Errors
/// A file or folder that cannot be read.
pub(crate) fn read(root: &Path) -> io::Result<Vec<Page>> {
    let mut pages = Vec::new();
    for folder in FOLDERS {
        if !root.join(folder).is_dir() {
            continue;
        }
        for entry in fs::read_dir(root.join(folder))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.ends_with(".md") {
                let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
                pages.push(Page { text: workspace::read(root, &path)?, path });
            }
        }
    }
    pages.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(pages)
}

/// Finds lines of prose that are too wide.
pub(crate) fn check(pages: &[Page]) -> Report {
    let violations = pages.iter().flat_map(|page| {
        let wide = page.prose().filter_map(|(line, text)| Some((line, excess(text)?)));
        wide.map(|(line, width)| {
            let message = format!("{width} characters: break the line at {COLUMNS}");
            Place::new(&page.path, line).violation(message)
        })
    });
    let violations = violations.collect();
    Report {
        violations,
        summary: format!("prose: {} pages, lines of {COLUMNS} characters at most", pages.len()),
    }
}

/// Width of a line of prose that is too wide.
fn excess(line: &str) -> Option<usize> {
    let content = line.trim_start();
    let is_link = content.starts_with('[') && content.contains("]: ");
    let is_prose = !is_link && !content.starts_with('|') && content.contains(' ');
    let width = line.chars().count();
    (is_prose && width > COLUMNS).then_some(width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::examples;

    #[test]
    fn prose_is_narrow_and_tables_and_code_are_as_wide_as_they_have_to_be() {
        let long = "word ".repeat(30);
        let text = format!(
            "short\n{long}\n[1]: {long}\n| {long} |\n```\n{long}\n```\n{}\n> {long}",
            "x".repeat(200)
        );
        let repository = examples::repository(&[
            ("README.md", "fine\n"),
            ("docs/a.md", &text),
            ("docs/b.txt", &long),
            ("ovn/ovsdb/README.md", &long),
        ]);
        let found = check(&read(repository.path()).unwrap()).violations;
        let places: Vec<String> = found.iter().map(|violation| violation.place.to_string()).collect();
        assert_eq!(places, ["docs/a.md:2", "docs/a.md:9", "ovn/ovsdb/README.md:1"]);
    }
}
