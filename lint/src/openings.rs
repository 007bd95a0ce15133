//! First words of doc comments and of their sections: a noun or a verb, as the project's vocabulary asks.

use crate::violation::{Place, Report};
use crate::workspace::Workspace;

/// Finds doc comments that open with another word.
pub(crate) fn check(workspace: &Workspace) -> Report {
    let files = workspace.crates.iter().flat_map(|krate| &krate.files);
    let violations = files.clone().flat_map(|file| {
        file.source.docs.iter().flat_map(|block| block.bad_openings()).map(|(line, word)| {
            Place::new(&file.path, line)
                .violation(format!("doc comment opens with {word}: begin with a noun or a verb"))
        })
    });
    let violations = violations.collect();
    let docs: usize = files.map(|file| file.source.docs.len()).sum();
    Report { violations, summary: format!("openings: {docs} doc comments begin with a noun or a verb") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::examples;

    #[test]
    fn openings_of_all_files_are_looked_at() {
        let source = "/// What a thing.\nstruct A;\n/// Thing. What else.\nstruct B;\n/// Thing.\n///\n/// # Errors\n/// Whatever.\nstruct C;\n\
                      /// Thing.\n/// # Errors\n///\n/// What the kernel says.\nstruct D;\n";
        let report = check(&examples::workspace(&[("a/Cargo.toml", ""), ("a/tests/x.rs", source)]));
        let found: Vec<String> = report.violations.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "a/tests/x.rs:1: doc comment opens with What: begin with a noun or a verb",
                "a/tests/x.rs:13: doc comment opens with What: begin with a noun or a verb",
            ]
        );
        assert_eq!(report.summary, "openings: 4 doc comments begin with a noun or a verb");
    }
}
