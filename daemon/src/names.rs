//! Names that operators and certificates give: nodes, zones, organisations, projects.

/// Longest name, in bytes.
pub const NAME_BYTES: usize = 64;

/// Returns true for 1 to 64 ASCII letters, digits, `.`, `_` and `-`.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !text.is_empty() && text.len() <= NAME_BYTES && text.chars().all(is_legal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        for text in ["a", "node-1.example_2", &"x".repeat(64)] {
            assert!(is_name(text), "{text}");
        }
        for text in ["", "a b", "a/b", "ä", &"x".repeat(65)] {
            assert!(!is_name(text), "{text}");
        }
    }
}
