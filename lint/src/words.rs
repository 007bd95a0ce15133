//! Words of the project's vocabulary, in comments and on the pages: what the field calls a thing, instead of a
//! circumlocution that nobody would search for.

use crate::prose::Page;
use crate::violation::{Place, Report, Violation};
use crate::workspace::Workspace;

/// Replaced words, in lower case, and the words to write instead.
const REPLACED: [(&str, &str); 27] = [
    ("asked for", "requested, desired, specified"),
    ("buried", "tombstone, garbage-collected"),
    ("desk", "the thing's own name"),
    ("forget", "drop, expire, garbage-collect"),
    ("forgets", "drops, expires, garbage-collects"),
    ("forgive", "reset, retry"),
    ("forgotten", "dropped, expired, garbage-collected"),
    ("gave back", "released, returned"),
    ("given back", "released, returned"),
    ("gives back", "releases, returns"),
    ("hear", "receive, learn"),
    ("heard", "received, learned"),
    ("hears", "receives, learns"),
    ("member that leads", "leader"),
    ("node that leads", "leader"),
    ("plugin that leads", "leader"),
    ("roster", "the thing's own name"),
    ("seat", "the thing's own name"),
    ("shaken hands", "completed the handshake"),
    ("talk to", "connect to, call"),
    ("talks to", "connects to, calls"),
    ("tenure", "term, lease"),
    ("tried again", "retried"),
    ("tries again", "retries"),
    ("who leads", "the leader"),
    ("whole configuration", "configuration snapshot"),
    ("wish", "request, desired state"),
];

/// Finds replaced words in the comments of all sources, and in the prose of the pages.
pub(crate) fn check(workspace: &Workspace, pages: &[Page]) -> Report {
    let files = workspace.crates.iter().flat_map(|krate| &krate.files);
    let comments = files.flat_map(|file| {
        file.source.comments.iter().map(move |(line, text)| (file.path.as_str(), *line, text.as_str()))
    });
    let prose = pages.iter().flat_map(|page| page.prose().map(|(line, text)| (page.path(), line, text)));
    let violations = comments.chain(prose).flat_map(|(path, line, text)| found(path, line, text)).collect();
    Report { violations, summary: format!("words: none of {} that the vocabulary replaces", REPLACED.len()) }
}

/// Replaced words in a line, its spans of code aside.
fn found(path: &str, line: usize, text: &str) -> Vec<Violation> {
    let text = text.split('`').step_by(2).collect::<Vec<_>>().join("`").to_lowercase();
    let replaced = REPLACED.iter().filter(|(word, _)| has_word(&text, word));
    replaced
        .map(|(word, instead)| {
            Place::new(path, line).violation(format!("replaced word {word:?}: write {instead}"))
        })
        .collect()
}

/// True if a text has a word, or several, that are no part of longer ones.
fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let is_apart = |next: Option<char>| next.is_none_or(|next| next != '_' && !next.is_alphanumeric());
        is_apart(text[..at].chars().next_back()) && is_apart(text[at + word.len()..].chars().next())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prose;
    use crate::workspace::examples;

    #[test]
    fn replaced_words_are_found_in_comments_and_prose_alone() {
        let source = "//! Wish.\nfn wish() {} // It is TRIED again\nconst S: &str = \"forgotten // hear\";\n//// heard_of, seats, `hear`, Tenure\n";
        let page = "Who leads?\n```\ntalks to\n```\n| asked for |\n";
        let files = [("a/Cargo.toml", ""), ("a/src/lib.rs", source), ("README.md", page)];
        let repository = examples::repository(&files);
        let pages = prose::read(repository.path()).unwrap();
        let found: Vec<String> =
            check(&examples::workspace(&files), &pages).violations.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "a/src/lib.rs:1: replaced word \"wish\": write request, desired state",
                "a/src/lib.rs:2: replaced word \"tried again\": write retried",
                "a/src/lib.rs:4: replaced word \"tenure\": write term, lease",
                "README.md:1: replaced word \"who leads\": write the leader",
                "README.md:5: replaced word \"asked for\": write requested, desired, specified",
            ]
        );
    }
}
