//! A page: headings, tables with pipes, code spans, fenced blocks.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

/// A page, or a part of one: a heading with all that is below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    lines: Vec<Line>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    text: String,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    /// With so many `#`.
    Heading(usize),
    /// The first or the last line of a fenced block.
    Fence,
    Fenced,
}

/// Rows of cells, without the head.
pub type Rows = Vec<Vec<String>>;

impl Page {
    /// Reads a page of `docs/` by its file's name.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(name: &str) -> io::Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
        Ok(Self::of(&std::fs::read_to_string(path)?))
    }

    /// A page with this text.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let mut is_fenced = false;
        let kind = |line: &str| {
            let is_fence = line.trim_start().starts_with("```");
            is_fenced ^= is_fence;
            match (is_fence, is_fenced) {
                (true, _) => Kind::Fence,
                (false, true) => Kind::Fenced,
                (false, false) => level(line).map_or(Kind::Text, Kind::Heading),
            }
        };
        let kinds = text.lines().map(kind);
        Self {
            lines: text.lines().zip(kinds).map(|(text, kind)| Line { text: text.to_owned(), kind }).collect(),
        }
    }

    /// What stands below a heading, up to the next one of its level or above; `None` if there is no such heading.
    #[must_use]
    pub fn below(&self, heading: &str) -> Option<Self> {
        let mut lines = self.lines.iter();
        let own = lines.find_map(|line| match line.kind {
            Kind::Heading(level) => (line.text.trim_start_matches('#').trim() == heading).then_some(level),
            _ => None,
        })?;
        let is_inside = |line: &&Line| !matches!(line.kind, Kind::Heading(level) if level <= own);
        Some(Self { lines: lines.take_while(is_inside).cloned().collect() })
    }

    /// Joins two parts of a page.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.lines.extend(other.lines);
        self
    }

    /// The rows of all tables with exactly this head.
    #[must_use]
    pub fn tables(&self, head: &[&str]) -> Rows {
        let mut rows = Rows::new();
        let mut is_wanted = false;
        let mut before: Option<Vec<String>> = None;
        for line in &self.lines {
            let cells = if line.kind == Kind::Text { cells(&line.text) } else { None };
            match (&cells, &before) {
                (None, _) => is_wanted = false,
                (Some(cells), None) => is_wanted = cells == head,
                (Some(cells), Some(_)) if is_wanted && !is_rule(cells) => rows.push(cells.clone()),
                (Some(_), Some(_)) => {}
            }
            before = cells;
        }
        rows
    }

    /// All words of its code spans and fenced blocks that begin with `prefix`; a word is letters, digits, `_`, `-`, and `:`.
    #[must_use]
    pub fn words(&self, prefix: &str) -> BTreeSet<String> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ':');
        let words = self.code().into_iter().flat_map(move |code| {
            code.split(move |c: char| !is_part(c)).map(str::to_owned).collect::<Vec<_>>()
        });
        let is_wanted = |word: &String| {
            word.strip_prefix(prefix)
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphanumeric()))
        };
        words.filter(is_wanted).collect()
    }

    /// All code: each span, and each line of a fenced block.
    #[must_use]
    pub fn code(&self) -> Vec<String> {
        let code = self.lines.iter().flat_map(|line| match line.kind {
            Kind::Text | Kind::Heading(_) => spans(&line.text),
            Kind::Fence => Vec::new(),
            Kind::Fenced => vec![line.text.as_str()],
        });
        code.map(str::to_owned).collect()
    }
}

/// The code spans of a text.
#[must_use]
pub fn spans(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The one code span that a cell consists of; `None` if it is anything else.
#[must_use]
pub fn only_span(cell: &str) -> Option<&str> {
    let inner = cell.strip_prefix('`')?.strip_suffix('`')?;
    (!inner.contains('`')).then_some(inner)
}

/// How many `#` a heading begins with.
fn level(line: &str) -> Option<usize> {
    let level = line.bytes().take_while(|byte| *byte == b'#').count();
    (level > 0 && line.as_bytes().get(level) == Some(&b' ')).then_some(level)
}

/// The cells of a table's line; `\|` is no border.
fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    let kept = inner.replace("\\|", "\u{1}");
    Some(kept.split('|').map(|cell| cell.trim().replace('\u{1}', "|")).collect())
}

/// Whether a line is the rule below a table's head.
fn is_rule(cells: &[String]) -> bool {
    cells.iter().all(|cell| cell.contains('-') && cell.chars().all(|c| matches!(c, '-' | ':')))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# A
| key | value |
|---|---|
| `a.b` | `x\\|y` |
| `a.c` | |

text with `a.d` and `--flag`
## B
| key | value |
|---|---|
| `b` | 1 |
```yaml
# C
fiberlb_one + fiberlb_two{x}
| key | value |
|---|---|
| `d` | 1 |
```
| key | value |
|---|---|
| `e` | 2 |
# C
| other |
|---|
| `c` |
";

    #[test]
    fn a_part_ends_at_the_next_heading_of_its_level() {
        let page = Page::of(TEXT);
        let rows = page.below("A").unwrap().tables(&["key", "value"]);
        assert_eq!(rows, [["`a.b`", "`x|y`"], ["`a.c`", ""], ["`b`", "1"], ["`e`", "2"]]);
        assert_eq!(page.below("B").unwrap().tables(&["key", "value"]), [["`b`", "1"], ["`e`", "2"]]);
        assert_eq!(page.below("C").unwrap().tables(&["key", "value"]), Rows::new());
        assert_eq!(page.below("D"), None);
    }

    #[test]
    fn words_are_those_of_code_alone() {
        let page = Page::of(TEXT);
        assert_eq!(page.words("fiberlb_"), ["fiberlb_one", "fiberlb_two"].map(str::to_owned).into());
        assert_eq!(page.words("--"), ["--flag".to_owned()].into());
    }

    #[test]
    fn a_span_that_is_a_whole_cell() {
        assert_eq!(only_span("`a`"), Some("a"));
        assert_eq!((only_span("`a`, `b`"), only_span("none"), only_span("")), (None, None, None));
        assert_eq!(spans("`a`, x, `b c`"), ["a", "b c"]);
    }
}
