//! Status line of an HTTP/1 answer.

/// Longest status line that is waited for, with its end, in bytes.
pub const LONGEST: usize = 4096;

/// `HTTP/1.x NNN`
const SHORTEST: usize = 12;

/// Result of parsing the bytes received so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusLine {
    /// The beginning of a status line.
    Incomplete,
    /// A whole line with this status code, 100 to 599.
    Code(u16),
    /// No status line of HTTP/1.0 or HTTP/1.1, whatever follows.
    NotHttp,
}

/// Parses an answer from its first byte (RFC 9112, section 4).
///
/// A lone LF ends the line too (section 2.2), and the space before an empty reason phrase may be missing, as
/// it is in many servers. Bytes that cannot become a status line are refused at the first wrong one.
#[must_use]
pub fn parse(answer: &[u8]) -> StatusLine {
    let answer = answer.get(..LONGEST).unwrap_or(answer);
    let line = answer.iter().position(|byte| *byte == b'\n').and_then(|end| answer.get(..end));
    let whole = line.is_some();
    let line = line.map_or(answer, |line| line.strip_suffix(b"\r").unwrap_or(line));
    let possible = line.iter().enumerate().all(|(at, byte)| may_stand(at, *byte, whole));
    match (possible, whole) {
        (false, _) => StatusLine::NotHttp,
        (true, true) => code(line).map_or(StatusLine::NotHttp, StatusLine::Code),
        (true, false) if answer.len() >= LONGEST => StatusLine::NotHttp,
        (true, false) => StatusLine::Incomplete,
    }
}

/// True if a byte is allowed at this place of the line. A CR may be the one before an end that is yet to
/// come.
fn may_stand(at: usize, byte: u8, whole: bool) -> bool {
    match at {
        0..7 => b"HTTP/1.".get(at) == Some(&byte),
        7 => matches!(byte, b'0' | b'1'),
        8 => byte == b' ',
        9 => matches!(byte, b'1'..=b'5'),
        10 | 11 => byte.is_ascii_digit(),
        SHORTEST => byte == b' ' || (byte == b'\r' && !whole),
        _ => matches!(byte, b'\t' | b' '..=b'~' | 0x80..) || (byte == b'\r' && !whole),
    }
}

fn code(line: &[u8]) -> Option<u16> {
    std::str::from_utf8(line.get(9..SHORTEST)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn status_lines_of_both_versions_are_read() {
        for good in [
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.0 200 OK\r\nServer: x\r\n\r\n",
            "HTTP/1.1 200 \r\n",
            "HTTP/1.1 200\r\n",
            "HTTP/1.1 200 OK\n",
            "HTTP/1.1 200 d\u{e9}j\u{e0} vu\r\n",
        ] {
            assert_eq!(parse(good.as_bytes()), StatusLine::Code(200), "{good:?}");
        }
    }

    #[test]
    fn what_is_no_status_line_is_told_as_soon_as_it_is_known() {
        for bad in [
            "S",
            "\x15\x03\x01",
            "\r\n",
            "HTTP/2",
            "HTTP/1.2",
            "HTTP/1.1  ",
            "HTTP/1.1 600",
            "HTTP/1.1 099",
            "HTTP/1.1 2x",
            "HTTP/1.1 2000",
            "HTTP/1.1 200 a\0",
            "HTTP/1.1 20\r\n",
            "HTTP/1.1 200 a\rb\r\n",
            "http/1.1",
            "ICY 200 OK\r\n",
        ] {
            assert_eq!(parse(bad.as_bytes()), StatusLine::NotHttp, "{bad:?}");
        }
    }

    #[test]
    fn a_line_without_end_is_given_up() {
        let mut answer = b"HTTP/1.1 200 ".to_vec();
        answer.resize(LONGEST - 1, b'a');
        assert_eq!(parse(&answer), StatusLine::Incomplete);
        answer.push(b'a');
        assert_eq!(parse(&answer), StatusLine::NotHttp);
        answer.push(b'\n');
        assert_eq!(parse(&answer), StatusLine::NotHttp, "more at once is no excuse");
    }

    /// The same by RFC 9112's grammar, of a whole line.
    fn model(line: &str) -> Option<u16> {
        let rest =
            line.strip_prefix("HTTP/1.1").or_else(|| line.strip_prefix("HTTP/1.0"))?.strip_prefix(' ')?;
        let (code, phrase) = rest.split_once(' ').unwrap_or((rest, ""));
        let visible = phrase.chars().all(|c| c == '\t' || !c.is_ascii_control());
        let code = (code.len() == 3 && visible).then(|| code.parse::<u16>().ok())??;
        (100..600).contains(&code).then_some(code)
    }

    proptest! {
        #[test]
        fn whole_lines_are_read_as_the_grammar_says(line in "(HTTP/1\\.[0-2]|HTTP|.{0,3}) ?[0-9a]{2,4}( [ -~\\t\\x01]{0,9})?") {
            prop_assume!(!line.contains(['\n', '\r']));
            let expected = model(&line).map_or(StatusLine::NotHttp, StatusLine::Code);
            prop_assert_eq!(parse(format!("{line}\r\n").as_bytes()), expected);
            prop_assert_eq!(parse(format!("{line}\n").as_bytes()), expected);
        }

        #[test]
        fn no_beginning_contradicts_the_whole(answer in "HTTP/1.[01x] [0-9]{2,4} ?[ -~]{0,9}\r?\n?.{0,5}", cut: prop::sample::Index) {
            let answer = answer.as_bytes();
            let (whole, part) = (parse(answer), parse(&answer[..cut.index(answer.len())]));
            prop_assert!(part == StatusLine::Incomplete || part == whole, "{:?} then {:?}", part, whole);
        }

        #[test]
        fn no_bytes_make_the_parser_panic(answer: Vec<u8>) {
            let _ = parse(&answer);
        }
    }
}
