//! Tables of the reference pages in `docs/`, generated from the code, for tests. A failure panics, as it does in a test.
//!
//! A page marks the place of a table with the lines `<!-- generated: NAME -->` and `<!-- end -->`. [`check`] compares
//! what stands between them with the code. With `UPDATE_DOCS=1` it rewrites it: `make docs`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy knows tests by their attribute, and not the functions that they share"
)]

mod command;
mod metrics;
mod operations;
mod settings;

pub use command::{arguments, commands};
pub use metrics::{metrics, sample_names};
pub use operations::{Writes, check_reads};
pub use settings::{check_keys, options, settings};

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

/// Cells of a table's row.
pub type Row = Vec<String>;

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

/// Compares a table of a page of `docs/` with the one that `make` makes of the page's present rows, or rewrites it.
pub fn check(page: &str, name: &str, head: &[&str], make: impl FnOnce(&[Row]) -> Vec<Row>) {
    let updates = std::env::var_os("UPDATE_DOCS").is_some();
    let mut file = File::options().read(true).write(updates).open(docs().join(page)).unwrap();
    // Tests that rewrite other tables of the page run at the same time.
    file.lock().unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    let (before, rest) = text.split_once(&format!("<!-- generated: {name} -->\n")).expect(name);
    let (old, after) = rest.split_once("<!-- end -->").expect(name);
    let present: Vec<Row> = old.lines().filter_map(cells).skip(2).collect();
    let rows = make(&present);
    let heads = [head.iter().map(|cell| (*cell).to_owned()).collect(), vec!["---".to_owned(); head.len()]];
    let new: String = heads.iter().chain(&rows).map(line).collect();
    let new = format!("\n{new}\n");
    if updates && old != new {
        file.set_len(0).unwrap();
        file.rewind().unwrap();
        write!(file, "{before}<!-- generated: {name} -->\n{new}<!-- end -->{after}").unwrap();
    } else {
        assert!(old == new, "docs/{page}: {name} is stale, run `make docs`:\n{old}it should be:\n{new}");
    }
    assert!(!new.contains("| ? |"), "docs/{page}: {name}: say in place of `?` what it is");
}

/// Completes generated rows with the cells that only the page has, by the row there that begins with the same `key`
/// cells; `?` stands in new rows.
fn completed(rows: Vec<Row>, key: usize, columns: usize, present: &[Row]) -> Vec<Row> {
    let complete = |mut row: Row| {
        let same = present.iter().find(|it| it.len() == columns && it[..key] == row[..key]);
        let own =
            same.map_or_else(|| vec!["?".to_owned(); columns - row.len()], |it| it[row.len()..].to_vec());
        row.extend(own);
        row
    };
    rows.into_iter().map(complete).collect()
}

/// Text as code; nothing where there is none.
#[must_use]
pub fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{text}`") }
}

/// Sentence of a doc comment or a help as a cell: on one line, without its full stop, and with a small first letter
/// unless the first word is a name.
#[must_use]
pub fn sentence(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let text = text.trim_end_matches('.');
    let (first, rest) = text.split_at(text.chars().next().map_or(0, char::len_utf8));
    let word = rest.split(|c: char| !c.is_alphabetic()).next().unwrap_or_default();
    if word.chars().all(char::is_lowercase) { first.to_lowercase() + rest } else { text.to_owned() }
}

/// Words of the code spans and blocks of a page that `is_wanted` says are of interest.
pub fn code_words(page: &str, is_wanted: impl Fn(&str) -> bool) -> BTreeSet<String> {
    code_words_beside(page, "", is_wanted)
}

/// [`code_words`] of all chapters but one.
fn code_words_beside(page: &str, chapter: &str, is_wanted: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_.*/:-".contains(c);
    let mut words = BTreeSet::new();
    let (mut is_block, mut is_beside) = (false, true);
    for line in fs::read_to_string(docs().join(page)).unwrap().lines() {
        is_beside = line.strip_prefix("## ").map_or(is_beside, |heading| heading != chapter);
        if !is_beside {
            continue;
        }
        is_block ^= line.trim_start().starts_with("```");
        let spans = if is_block { vec![line] } else { line.split('`').skip(1).step_by(2).collect() };
        let all = spans.iter().flat_map(|span| span.split(|c| !is_part(c)));
        words.extend(all.filter(|word| is_wanted(word)).map(str::to_owned));
    }
    words
}

fn line(row: &Row) -> String {
    let cell = |cell: &String| match cell.as_str() {
        "" => " |".to_owned(),
        "---" => "---|".to_owned(),
        cell => format!(" {} |", cell.replace('|', "\\|")),
    };
    format!("|{}\n", row.iter().map(cell).collect::<String>())
}

fn cells(line: &str) -> Option<Row> {
    let inner = line.strip_prefix('|')?.strip_suffix('|')?.replace("\\|", "\u{1}");
    Some(inner.split('|').map(|cell| cell.trim().replace('\u{1}', "|")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[&str]) -> Row {
        cells.iter().map(|cell| (*cell).to_owned()).collect()
    }

    #[test]
    fn images_have_the_version_of_the_workspace() {
        let dockerfile = std::fs::read_to_string(docs().join("../Dockerfile")).unwrap();
        let versions: Vec<_> =
            dockerfile.lines().filter_map(|line| line.strip_prefix("ARG VERSION=")).collect();
        assert_eq!(versions, [env!("CARGO_PKG_VERSION"); 2]);
    }

    #[test]
    fn a_row_is_read_as_it_is_written() {
        let of = row(&["`a|b`", "", "c"]);
        assert_eq!(line(&of), "| `a\\|b` | | c |\n");
        assert_eq!(cells(line(&of).trim_end()), Some(of));
    }

    #[test]
    fn a_sentence_begins_small_unless_with_a_name() {
        assert_eq!(
            ["A pool.", "CA\n of", "LoadBalancer.", ""].map(sentence),
            ["a pool", "CA of", "LoadBalancer", ""]
        );
    }

    #[test]
    fn words_of_people_stay_with_their_row() {
        let present = [row(&["a", "1", "why a"]), row(&["b", "1", "why b"])];
        let rows = completed(vec![row(&["b", "2"]), row(&["c", "2"])], 1, 3, &present);
        assert_eq!(rows, [row(&["b", "2", "why b"]), row(&["c", "2", "?"])]);
    }
}
