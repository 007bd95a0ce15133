//! Escapes for text from other people: names, descriptions and reasons must not control the terminal.

use std::borrow::Cow;
use std::fmt::Write as _;

/// True if `c` may control a terminal, or reorder the text around it.
fn is_dangerous(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
}

/// True if lines of text, which may have tabs, do not control a terminal.
pub(crate) fn is_clean(text: &str) -> bool {
    !text.contains(|c| is_dangerous(c) && c != '\n' && c != '\t')
}

/// Escapes each dangerous character as `\n`, `\t` or `\u{1b}`.
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    if !text.contains(is_dangerous) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_dangerous(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Escapes each dangerous character of a JSON text as `\u001b`. Outside of strings, JSON has none but newlines, which stay.
pub(crate) fn clean_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if is_dangerous(c) && c != '\n' {
            // Every dangerous character lies in the basic plane: one escape.
            let _infallible = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(clean("plain ö"), "plain ö");
        assert_eq!(clean("a\u{1b}[2Jb\nc\u{9b}\u{202e}"), "a\\u{1b}[2Jb\\nc\\u{9b}\\u{202e}");
    }

    #[test]
    fn cleaned_json_says_the_same() {
        let text = "a\u{9b}\u{7f}\u{202e}b";
        let json = serde_json::to_string_pretty(&vec![text]).unwrap();
        let cleaned = clean_json(&json);
        assert!(cleaned.is_ascii());
        assert_eq!(serde_json::from_str::<Vec<String>>(&cleaned).unwrap(), [text]);
    }
}
