//! Compares what a command printed with what its page shows. Pure.

/// Stands for any text within a line; alone on a line, for any lines or none.
const ANYTHING: char = '…';

/// The first line that a page shows and the output lacks, if there is one.
///
/// Each line must be a whole line of the output, in the page's order; other lines may stand between. Blanks are squeezed.
#[must_use]
pub fn missing<'a>(expected: &'a [String], output: &str) -> Option<&'a str> {
    let mut lines = output.lines().map(squeezed);
    let is_there = |wanted: &&String| {
        let wanted = squeezed(wanted);
        wanted == ANYTHING.to_string() || lines.any(|line| matches(&wanted, &line))
    };
    // Taking the first line that fits leaves the most for those behind it.
    let count = expected.iter().take_while(is_there).count();
    expected.get(count).map(String::as_str)
}

fn squeezed(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// True if a line matches the pattern.
fn matches(pattern: &str, line: &str) -> bool {
    let mut pieces = pattern.split(ANYTHING);
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let Some(last) = pieces.next_back() else { return rest.is_empty() };
    for piece in pieces {
        match rest.find(piece) {
            Some(at) => rest = rest.get(at + piece.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn lines_are_compared_whole_and_in_order() {
        let output = "NAME   STATUS\nweb    ACTIVE\nshop   ERROR\n";
        assert_eq!(missing(&lines("NAME STATUS\nshop ERROR"), output), None);
        assert_eq!(missing(&lines("shop ERROR\nNAME STATUS"), output), Some("NAME STATUS"));
        assert_eq!(missing(&lines("web"), output), Some("web"));
        assert_eq!(missing(&lines("web ACTIVE\nweb ACTIVE"), output), Some("web ACTIVE"));
        assert_eq!(missing(&[], ""), None);
    }

    #[test]
    fn an_ellipsis_stands_for_anything() {
        for (pattern, line) in
            [("…", "x"), ("a…", "a"), ("…c", "abc"), ("a…c", "a b c"), ("a…b…c", "a1b2c"), ("…b…", "abc")]
        {
            assert!(matches(pattern, line), "{pattern} {line}");
        }
        for (pattern, line) in [("a…", "ba"), ("a…b", "a"), ("ab…ab", "ab"), ("a…b…c", "a c b"), ("…c", "cd")]
        {
            assert!(!matches(pattern, line), "{pattern} {line}");
        }
        assert_eq!(missing(&lines("a\n…\nb"), "a\nb\n"), None);
    }

    proptest! {
        #[test]
        fn what_is_shown_is_found_among_other_lines(
            shown in proptest::collection::vec("[a-c…]{1,5}", 1..6),
            noise in proptest::collection::vec("[x-z]{0,5}", 0..6),
            filling in "[a-z ]{0,4}",
        ) {
            let printed = shown.iter().map(|line| line.replace('…', filling.trim()));
            let noise = noise.into_iter().chain(std::iter::repeat(String::new()));
            let output: Vec<String> = printed.zip(noise).flat_map(|(line, noise)| [noise, line]).collect();
            prop_assert_eq!(missing(&shown, &output.join("\n")), None);
        }

        #[test]
        fn what_is_not_printed_is_missed(
            shown in proptest::collection::vec("[a-c]{1,5}", 1..6),
            at in 0_usize..6,
        ) {
            let at = at % shown.len();
            let rest: Vec<String> = shown.iter().filter(|line| **line != shown[at]).cloned().collect();
            prop_assert!(missing(&shown, &rest.join("\n")).is_some());
        }

        #[test]
        fn no_text_breaks_it(pattern in "\\PC{0,20}", output in "\\PC{0,40}") {
            let _ = missing(&[pattern], &output);
        }
    }
}
