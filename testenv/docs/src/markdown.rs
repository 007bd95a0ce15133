//! Finds in a Markdown page what steers the runner: fenced blocks, and comments on lines of their own. Pure.

use crate::page::PageError;

/// A piece of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// A fenced block.
    Block(Block),
    /// An HTML comment on a line of its own, without its marks.
    Comment(usize, String),
    /// A line of text that is neither blank nor one of these.
    Text,
}

/// A fenced block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Block {
    /// The line of its opening fence, from 1.
    pub(crate) line: usize,
    pub(crate) language: String,
    /// Its content, without the fence's own indent.
    pub(crate) lines: Vec<String>,
}

/// An opening fence: how far it is indented, how many of which mark, and the language behind it.
struct Fence<'a> {
    indent: usize,
    mark: char,
    length: usize,
    language: &'a str,
}

/// All pieces of a page, in order.
pub(crate) fn pieces(text: &str) -> Result<Vec<Piece>, PageError> {
    let mut pieces = Vec::new();
    let mut lines = text.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        if let Some(fence) = Fence::opening(line) {
            pieces.push(Piece::Block(block(&fence, number, &mut lines)?));
        } else if let Some(comment) = comment(line) {
            pieces.push(Piece::Comment(number, comment.to_owned()));
        } else if !line.trim().is_empty() {
            pieces.push(Piece::Text);
        }
    }
    Ok(pieces)
}

fn block<'a>(
    fence: &Fence<'_>,
    line: usize,
    lines: &mut impl Iterator<Item = (&'a str, usize)>,
) -> Result<Block, PageError> {
    let mut inside = Vec::new();
    for (text, _) in lines {
        if fence.is_closed_by(text) {
            return Ok(Block { line, language: fence.language.to_owned(), lines: inside });
        }
        inside.push(fence.without_indent(text).to_owned());
    }
    Err(PageError::new(line, "the block is never closed"))
}

fn comment(line: &str) -> Option<&str> {
    let inside = line.trim().strip_prefix("<!--")?.strip_suffix("-->")?;
    (!inside.contains("-->")).then(|| inside.trim())
}

impl<'a> Fence<'a> {
    fn opening(line: &'a str) -> Option<Self> {
        let text = line.trim_start_matches(' ');
        let mark = text.chars().next().filter(|mark| matches!(mark, '`' | '~'))?;
        let info = text.trim_start_matches(mark);
        let length = text.len() - info.len();
        let is_fence = length >= 3 && !info.contains('`');
        let language = info.split_whitespace().next().unwrap_or_default();
        is_fence.then_some(Self { indent: line.len() - text.len(), mark, length, language })
    }

    fn is_closed_by(&self, line: &str) -> bool {
        let text = line.trim();
        text.len() >= self.length && text.chars().all(|mark| mark == self.mark)
    }

    fn without_indent<'b>(&self, line: &'b str) -> &'b str {
        let blanks = line.len() - line.trim_start_matches(' ').len();
        line.get(blanks.min(self.indent)..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(line: usize, language: &str, lines: &[&str]) -> Piece {
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        Piece::Block(Block { line, language: language.to_owned(), lines })
    }

    #[test]
    fn blocks_comments_and_text_are_told_apart() {
        let page = "# Title\n\n<!-- world: ovn -->\n```console\n$ ls\n```\n    - list\n   ```ini x\n   a\n     b\n  ```\n";
        let comment = Piece::Comment(3, "world: ovn".to_owned());
        let expected = [
            Piece::Text,
            comment,
            block(4, "console", &["$ ls"]),
            Piece::Text,
            block(8, "ini", &["a", "  b"]),
        ];
        assert_eq!(pieces(page).unwrap(), expected);
    }

    #[test]
    fn what_is_in_a_block_is_not_looked_at() {
        let page = "````\n```console\n<!-- world: ovn -->\n```\n````\n";
        assert_eq!(pieces(page).unwrap(), [block(1, "", &["```console", "<!-- world: ovn -->", "```"])]);
    }

    #[test]
    fn code_within_a_line_opens_no_block() {
        assert_eq!(pieces("```a``` b\n").unwrap(), [Piece::Text]);
    }

    #[test]
    fn a_block_without_an_end_is_refused() {
        assert_eq!(pieces("a\n```\nb\n").unwrap_err().line, 2);
    }
}
