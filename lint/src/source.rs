//! Tokens and doc comments of one Rust source.
//!
//! A tokenizer and no parser: comments, strings, characters, lifetimes and numbers are skipped or blanked, so that the
//! rules see names and punctuation alone.

/// Words that a doc comment must not open with.
const OPENINGS: [&str; 12] =
    ["What", "Whether", "Who", "Whom", "Whose", "Which", "How", "Why", "When", "Where", "Those", "That"];

/// A source file's text, taken apart.
#[derive(Debug, Default)]
pub(crate) struct Source {
    pub(crate) tokens: Tokens,
    pub(crate) docs: Vec<DocBlock>,
    /// Texts of all line comments, with their lines.
    pub(crate) comments: Vec<(usize, String)>,
}

/// A token and the line that it begins on, counted from one.
#[derive(Debug)]
pub(crate) struct Token {
    lexeme: Lexeme,
    line: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum Lexeme {
    /// A keyword or an identifier; raw identifiers keep their `r#`.
    Word(String),
    /// The separator `::`.
    Separator,
    Mark(char),
    /// A string, character or number: its text is of no interest.
    Literal,
}

/// The tokens of a source. Every look-up takes an index that may lie outside.
#[derive(Debug, Default)]
pub(crate) struct Tokens(Vec<Token>);

/// Consecutive lines of `///`, or of `//!`.
#[derive(Debug)]
pub(crate) struct DocBlock {
    last: usize,
    inner: bool,
    /// First words, with their lines: of the block, and of each section of it.
    openings: Vec<(usize, String)>,
    /// True from a heading, or the beginning, until the next word.
    is_opening: bool,
}

impl Source {
    /// Takes a source's text apart.
    pub(crate) fn scan(text: &str) -> Self {
        let mut scanner = Scanner { rest: text, line: 1, source: Self::default() };
        while let Some(first) = scanner.rest.chars().next() {
            scanner.next(first);
        }
        scanner.source
    }
}

impl DocBlock {
    /// First words that a doc comment must not open with.
    pub(crate) fn bad_openings(&self) -> impl Iterator<Item = (usize, &str)> {
        let words = self.openings.iter().map(|(line, word)| (*line, word.as_str()));
        words.filter(|(_, word)| OPENINGS.contains(word))
    }

    fn line(&mut self, line: usize, text: &str) {
        self.last = line;
        let word = first_word(text);
        if text.trim_start().starts_with("# ") {
            self.is_opening = true;
        } else if self.is_opening && !word.is_empty() {
            self.openings.push((line, word.to_owned()));
            self.is_opening = false;
        }
    }
}

impl Tokens {
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The word at an index.
    pub(crate) fn word(&self, at: usize) -> Option<&str> {
        match self.lexeme(at) {
            Some(Lexeme::Word(word)) => Some(word),
            _ => None,
        }
    }

    /// The punctuation at an index, `::` excepted.
    pub(crate) fn mark(&self, at: usize) -> Option<char> {
        match self.lexeme(at) {
            Some(Lexeme::Mark(mark)) => Some(*mark),
            _ => None,
        }
    }

    pub(crate) fn is(&self, at: usize, mark: char) -> bool {
        self.mark(at) == Some(mark)
    }

    pub(crate) fn is_separator(&self, at: usize) -> bool {
        self.lexeme(at) == Some(&Lexeme::Separator)
    }

    /// The line of the token at an index; zero outside.
    pub(crate) fn line(&self, at: usize) -> usize {
        self.0.get(at).map_or(0, |token| token.line)
    }

    /// The index of the bracket that closes the innermost group around `at`: the end of the tokens where there is none.
    ///
    /// A group that opens at `at` itself counts as around it only from `at + 1` on.
    pub(crate) fn end_of_group(&self, at: usize) -> usize {
        let mut depth = 0_usize;
        for index in at..self.len() {
            match self.mark(index) {
                Some('(' | '[' | '{') => depth += 1,
                Some(')' | ']' | '}') if depth == 0 => return index,
                Some(')' | ']' | '}') => depth -= 1,
                _ => {}
            }
        }
        self.len()
    }

    fn lexeme(&self, at: usize) -> Option<&Lexeme> {
        self.0.get(at).map(|token| &token.lexeme)
    }
}

struct Scanner<'a> {
    rest: &'a str,
    line: usize,
    source: Source,
}

impl<'a> Scanner<'a> {
    fn next(&mut self, first: char) {
        match first {
            _ if self.rest.starts_with("//") => self.line_comment(),
            _ if self.rest.starts_with("/*") => self.block_comment(),
            _ if self.rest.starts_with("::") => {
                self.push(Lexeme::Separator);
                self.take(2);
            }
            '"' => self.quoted('"'),
            '\'' => self.character_or_lifetime(),
            _ if is_word_start(first) => self.word(),
            _ if first.is_ascii_digit() => {
                self.push(Lexeme::Literal);
                self.take_while(is_word_part);
            }
            _ => {
                if !first.is_whitespace() {
                    self.push(Lexeme::Mark(first));
                }
                self.take(first.len_utf8());
            }
        }
    }

    fn push(&mut self, lexeme: Lexeme) {
        self.source.tokens.0.push(Token { lexeme, line: self.line });
    }

    /// Moves on by a number of bytes, and counts the lines.
    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|next| !wanted(next)).unwrap_or(self.rest.len());
        self.take(end)
    }

    fn line_comment(&mut self) {
        let line = self.line;
        let text = self.take_while(|next| next != '\n');
        self.source.comments.push((line, text.to_owned()));
        if let Some(text) = text.strip_prefix("//!") {
            self.doc_line(line, true, text);
        } else if let Some(text) = text.strip_prefix("///").filter(|text| !text.starts_with('/')) {
            self.doc_line(line, false, text);
        }
    }

    fn doc_line(&mut self, line: usize, inner: bool, text: &str) {
        let docs = &mut self.source.docs;
        if !docs.last().is_some_and(|block| block.inner == inner && block.last + 1 == line) {
            docs.push(DocBlock { last: line, inner, openings: Vec::new(), is_opening: true });
        }
        if let Some(block) = docs.last_mut() {
            block.line(line, text);
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0_usize;
        loop {
            if self.rest.starts_with("/*") {
                depth += 1;
                self.take(2);
            } else if self.rest.starts_with("*/") {
                depth = depth.saturating_sub(1);
                self.take(2);
            } else {
                let next = self.rest.chars().next().map_or(1, char::len_utf8);
                self.take(next);
            }
            if depth == 0 || self.rest.is_empty() {
                return;
            }
        }
    }

    /// A string or character from its opening quote on.
    fn quoted(&mut self, quote: char) {
        self.push(Lexeme::Literal);
        let mut escaped = false;
        let end = self.rest.char_indices().skip(1).find(|(_, next)| {
            let ends = *next == quote && !escaped;
            escaped = *next == '\\' && !escaped;
            ends
        });
        self.take(end.map_or(self.rest.len(), |(end, _)| end + 1));
    }

    /// A raw string from its hashes on.
    fn raw_string(&mut self) {
        self.push(Lexeme::Literal);
        let hashes = self.take_while(|next| next == '#');
        let end = format!("\"{hashes}");
        self.take(1);
        let length = self.rest.find(&end).map_or(self.rest.len(), |start| start + end.len());
        self.take(length);
    }

    fn character_or_lifetime(&mut self) {
        let mut following = self.rest.chars().skip(1);
        let (first, second) = (following.next(), following.next());
        if first == Some('\\') || second == Some('\'') {
            self.quoted('\'');
        } else {
            self.take(1);
            self.take_while(is_word_part);
        }
    }

    /// A word, or the literal that it is the prefix of.
    fn word(&mut self) {
        let line = self.line;
        let mut word = self.take_while(is_word_part).to_owned();
        let after_hashes = self.rest.trim_start_matches('#');
        match word.as_str() {
            "b" | "c" if self.rest.starts_with('"') => return self.quoted('"'),
            "b" if self.rest.starts_with('\'') => return self.quoted('\''),
            "r" | "br" | "cr" if after_hashes.starts_with('"') => return self.raw_string(),
            "r" if self.rest.starts_with('#') && after_hashes.starts_with(is_word_start) => {
                word.push_str(self.take(1));
                word.push_str(self.take_while(is_word_part));
            }
            _ => {}
        }
        self.source.tokens.0.push(Token { lexeme: Lexeme::Word(word), line });
    }
}

fn is_word_start(next: char) -> bool {
    next == '_' || next.is_alphabetic()
}

fn is_word_part(next: char) -> bool {
    next == '_' || next.is_alphanumeric()
}

/// The first word of a line of a doc comment, without emphasis; empty where it begins with anything else.
fn first_word(text: &str) -> &str {
    let text = text.trim_start_matches(|next: char| next.is_whitespace() || "*_-#>".contains(next));
    text.split(|next: char| !next.is_alphabetic()).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        let tokens = Source::scan(text).tokens;
        (0..tokens.len()).filter_map(|at| tokens.word(at).map(str::to_owned)).collect()
    }

    #[test]
    fn comments_strings_and_characters_are_no_code() {
        let text = r####"
            a /* b /* c */ d */ e // f
            "g \" h" i r"j\" k r#"l " m"# n br##"o"# p"## q b"r" s c"t" u b'v' w '\'' x '"' y '\\' z
        "####;
        assert_eq!(words(text), ["a", "e", "i", "k", "n", "q", "s", "u", "w", "x", "y", "z"]);
    }

    #[test]
    fn a_lifetime_opens_no_character() {
        assert_eq!(
            words("fn f<'a, 'b>(x: &'a X, y: &'b Y) -> char { 'c' }"),
            ["fn", "f", "x", "X", "y", "Y", "char"]
        );
    }

    #[test]
    fn raw_identifiers_keep_their_prefix() {
        assert_eq!(words("r#type r b 1e5 0xff_u8 x"), ["r#type", "r", "b", "x"]);
    }

    #[test]
    fn lines_are_counted_through_everything() {
        let tokens = Source::scan("a\n/*\n*/ \"\n\n\" r#\"\n\"# b \\\n::c").tokens;
        let lines: Vec<usize> =
            (0..tokens.len()).filter(|at| tokens.word(*at).is_some()).map(|at| tokens.line(at)).collect();
        assert_eq!(lines, [1, 6, 7]);
        assert!(tokens.is_separator(tokens.len() - 2));
    }

    #[test]
    fn unfinished_text_ends() {
        for text in ["\"a", "r#\"a", "/* a", "'", "'\\", "b'", "r#", "///", "é/*é"] {
            Source::scan(text);
        }
    }

    #[test]
    fn doc_blocks_and_their_sections_have_one_opening_each() {
        let text = "//! What a crate.\n//! When it is.\n\n///\n/// *Where* it is.\n/// That.\nfn a() {}\n\
                    /// Whatever.\nfn b() {}\n//// Who.\n// Why.\n/// `When` is code.\n//! That's inner.\n//!\n\
                    //! # Errors\n//!\n//! Whose it is.\n//! That.\n";
        let docs = Source::scan(text).docs;
        let found: Vec<_> = docs.iter().flat_map(DocBlock::bad_openings).collect();
        assert_eq!(found, [(1, "What"), (5, "Where"), (13, "That"), (17, "Whose")]);
    }
}
