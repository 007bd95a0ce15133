//! Suggestions for unknown keys.

/// Limit of a key's length: the work grows with the product of the lengths.
const MAX_LENGTH: usize = 64;

/// Nearest of `known`, if at most a third of its letters differ.
pub(super) fn nearest<'a>(wanted: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if wanted.chars().count() > MAX_LENGTH {
        return None;
    }
    let wanted = wanted.to_ascii_lowercase();
    let scored = known.map(|key| (distance(&wanted, key), key));
    let (distance, key) = scored.min_by_key(|(distance, _)| *distance)?;
    (distance <= key.chars().count().div_ceil(3)).then_some(key)
}

/// Levenshtein distance of two texts, row by row.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (at, left) in a.chars().enumerate() {
        let mut diagonal = at;
        let mut before = at + 1;
        let mut next = Vec::with_capacity(row.len());
        next.push(before);
        for (right, above) in b.chars().zip(row.iter().skip(1)) {
            let replaced = diagonal + usize::from(left != right);
            before = replaced.min(before + 1).min(above + 1);
            diagonal = *above;
            next.push(before);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, wanted) in [
            ("", "", 0),
            ("a", "", 1),
            ("", "ab", 2),
            ("port", "port", 0),
            ("prot", "port", 2),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!(distance(a, b), wanted, "{a} {b}");
        }
    }

    #[test]
    fn only_what_is_near() {
        let known = ["port", "protocol", "connection_limit"];
        assert_eq!(nearest("prt", known.into_iter()), Some("port"));
        assert_eq!(nearest("connectionlimit", known.into_iter()), Some("connection_limit"));
        assert_eq!(nearest("weight", known.into_iter()), None);
        assert_eq!(nearest("port", std::iter::empty()), None);
        assert_eq!(nearest(&"x".repeat(100_000), known.into_iter()), None);
    }
}
