//! Texts of callers: how much of one is shown, and what one may hold.

use std::borrow::Cow;
use std::fmt;

/// Bytes that are shown of a caller's value.
const SHOWN: usize = 64;

/// The beginning of a text, at most `bytes` long, with `…` where it was cut.
pub fn truncated(text: &str, bytes: usize) -> Cow<'_, str> {
    if text.len() <= bytes {
        return Cow::Borrowed(text);
    }
    let end = (0..=bytes).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    Cow::Owned(format!("{}…", text.get(..end).unwrap_or_default()))
}

/// A caller's value as errors and logs show it: in quotes, escaped, at most 64 bytes of it.
#[derive(Clone, Copy, Debug)]
pub struct Quoted<'a>(pub &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", truncated(self.0, SHOWN))
    }
}

/// True for characters that change how a line is shown instead of being shown: control characters (Unicode category
/// Cc), line and paragraph separators (Zl, Zp), and those that set the direction of text (UAX #9).
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_long_value_is_cut_between_characters() {
        assert_eq!(truncated("short", 5), "short");
        assert_eq!(truncated("aé", 2), "a…");
        assert_eq!(Quoted("a\n").to_string(), r#""a\n""#);
    }

    proptest! {
        #[test]
        fn no_value_is_shown_whole_if_it_is_long(text in any::<String>(), bytes in 0_usize..40) {
            let shown = truncated(&text, bytes);
            prop_assert!(shown.len() <= bytes + '…'.len_utf8() || shown == text);
            prop_assert!(text.starts_with(shown.trim_end_matches('…')) || shown == text);
        }
    }

    #[test]
    fn texts_for_people_hold_no_hidden_characters() {
        for hidden in ['\0', '\n', '\u{7f}', '\u{85}', '\u{202e}', '\u{2028}', '\u{2066}'] {
            assert!(is_hidden(hidden), "{}", hidden.escape_unicode());
        }
        // A joiner is part of words in some languages.
        assert!(!"Größe 東京 שלום \u{200d}".chars().any(is_hidden));
    }
}
