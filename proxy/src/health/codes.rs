//! Sets of HTTP status codes that a healthy backend answers with.

use std::fmt;
use std::str::FromStr;

/// Longest text that is parsed, in bytes.
const LONGEST: usize = 1024;

/// A set of HTTP status codes, written `200`, `200,202` or `200-204`, or such parts joined by commas; each
/// code is 100 to 599.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExpectedCodes {
    /// First and last of each part, in the order given. Never empty.
    parts: Box<[(u16, u16)]>,
}

/// A text that is no set of status codes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no set of HTTP status codes; write \"200\", \"200,202\" or \"200-204\", each 100 to 599")]
pub struct CodesError(String);

impl ExpectedCodes {
    /// True if the code is one of the set.
    #[must_use]
    pub fn contains(&self, code: u16) -> bool {
        self.parts.iter().any(|(first, last)| (*first..=*last).contains(&code))
    }
}

impl FromStr for ExpectedCodes {
    type Err = CodesError;

    fn from_str(text: &str) -> Result<Self, CodesError> {
        let error = || CodesError(text.chars().take(80).collect());
        if text.len() > LONGEST {
            return Err(error());
        }
        let parts: Option<Box<[_]>> = text.split(',').map(part).collect();
        parts.map(|parts| Self { parts }).ok_or_else(error)
    }
}

/// One code, or a range of them.
fn part(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (code(first)?, code(last)?);
    (first <= last).then_some((first, last))
}

fn code(text: &str) -> Option<u16> {
    let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    let code = text.parse().ok()?;
    (digits && (100..=599).contains(&code)).then_some(code)
}

impl fmt::Display for ExpectedCodes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.parts.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match first == last {
                true => write!(out, "{comma}{first}")?,
                false => write!(out, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_set_of_codes_is_refused() {
        for bad in [
            "", "20", "0200", "204-200", "600", "099", "200-", "-200", "2xx", "200,", "200 ", "+20",
            "200--204",
        ] {
            assert!(bad.parse::<ExpectedCodes>().is_err(), "{bad}");
        }
        assert!("200,".repeat(1000).parse::<ExpectedCodes>().is_err());
    }

    #[test]
    fn the_error_says_what_to_write() {
        let error = "ok".parse::<ExpectedCodes>().unwrap_err().to_string();
        assert!(error.contains("\"ok\"") && error.contains("200-204"), "{error}");
    }

    proptest! {
        #[test]
        fn a_set_holds_what_its_parts_say(parts in prop::collection::vec((100u16..600, 0u16..600), 1..8), asked: u16) {
            let parts: Vec<_> = parts.into_iter().map(|(first, more)| (first, (first + more).min(599))).collect();
            let text: Vec<_> = parts.iter().map(|(first, last)| format!("{first}-{last}")).collect();
            let codes: ExpectedCodes = text.join(",").parse().unwrap();
            for code in [asked, asked % 600] {
                prop_assert_eq!(codes.contains(code), parts.iter().any(|(a, b)| *a <= code && code <= *b));
            }
            prop_assert_eq!(codes.to_string().parse::<ExpectedCodes>().unwrap(), codes);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in any::<String>(), near in "[0-9,\\-+ x]{0,12}") {
            for text in [text, near] {
                if let Ok(codes) = text.parse::<ExpectedCodes>() {
                    prop_assert!(!codes.contains(99) && !codes.contains(600));
                }
            }
        }
    }
}
