//! The text format of a whole store, written by `store export` and read by `store import`.
//!
//! JSON lines: a header, one line per key in key order, a trailer.
//!
//! ```text
//! {"format":"fiberlb-store","version":1,"revision":42}
//! {"check":"9a0f1c22","key":"/fiberlb/a","json":{"name":"web"}}
//! {"check":"01bd77e0","key":"/fiberlb/b","base64":"//4="}
//! {"check":"c0ffee12","end":true,"count":2}
//! ```
//!
//! A value that is JSON on one line is kept byte for byte; any other is base64. Each line's `check` is
//! computed from that line and all lines before, so the number of the first line that was changed, lost,
//! moved or added is known. It detects accidents, not forgery: it is no signature.
//!
//! This module converts lines to values and back. It does no IO.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{MAX_KEY_BYTES, MAX_VALUE_BYTES, Revision};

/// Name of the format in the header.
const FORMAT: &str = "fiberlb-store";

/// Version of the format that is written, and the newest that is read.
pub(super) const VERSION: u64 = 1;

/// A longer line cannot be from an export: a key with each byte escaped, a value in base64, the rest.
pub(super) const MAX_LINE_BYTES: usize = 6 * MAX_KEY_BYTES + MAX_VALUE_BYTES.div_ceil(3) * 4 + 256;

/// Seed of the chain of checks; identifies the format, nothing else.
const CHAIN_START: Uuid = Uuid::from_u128(0x3d6c_9a52_60f1_5be8_94a7_f1be_71b5_70e1);

/// Hexadecimal digits of a check.
const CHECK_DIGITS: usize = 8;

const CHECK_HEAD: &str = r#"{"check":""#;
const CHECK_TAIL: &str = r#"","#;

/// Reason why a line is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// The first line is not the header of this format.
    #[error("not a FiberLB store export")]
    NotAnExport,
    /// A newer program wrote the export.
    #[error("the export has version {found}, this program reads up to {VERSION}: use the newer program")]
    NewerVersion {
        /// Version that the header states.
        found: u64,
    },
    /// The check does not match: this line is not what was exported after the lines before it.
    #[error("the line was altered, or lines before it are missing, moved or added")]
    Altered,
    /// The line matches its check and yet is malformed.
    #[error("the line makes no sense: {0}")]
    Malformed(String),
    /// The trailer's count is not the number of keys.
    #[error("the export says that it has {stated} keys, it has {found}")]
    Count {
        /// Keys according to the trailer.
        stated: u64,
        /// Keys that were read.
        found: u64,
    },
    /// The line is longer than any line of an export.
    #[error("the line is longer than {MAX_LINE_BYTES} bytes")]
    TooLong,
    /// The export ends before its trailer.
    #[error("the export is cut off here")]
    CutOff,
    /// Something follows the trailer.
    #[error("there is more after the end of the export")]
    AfterEnd,
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: String,
    version: u64,
    revision: u64,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Trailer {
    end: bool,
    count: u64,
}

/// The running check over lines.
#[derive(Clone, Copy, Debug)]
struct Chain(Uuid);

impl Chain {
    /// Adds a line and returns its check.
    fn take(&mut self, line: &str) -> String {
        self.0 = Uuid::new_v5(&self.0, line.as_bytes());
        let mut check = self.0.simple().to_string();
        check.truncate(CHECK_DIGITS);
        check
    }
}

/// Produces the lines of an export, without line feeds.
#[derive(Debug)]
pub(super) struct Encoder {
    chain: Chain,
    count: u64,
}

impl Encoder {
    /// Begins an export at `revision`; also returns the header line.
    pub(super) fn begin(revision: Revision) -> (Self, String) {
        let header = Header { format: FORMAT.into(), version: VERSION, revision: revision.0 };
        let line = json(&header);
        let mut chain = Chain(CHAIN_START);
        chain.take(&line);
        (Self { chain, count: 0 }, line)
    }

    /// Returns the line of one key.
    pub(super) fn entry(&mut self, key: &str, value: &[u8]) -> String {
        self.count += 1;
        let key = json(key);
        self.checked(&match as_json_line(value) {
            Some(value) => format!(r#""key":{key},"json":{value}}}"#),
            None => format!(r#""key":{key},"base64":"{}"}}"#, BASE64.encode(value)),
        })
    }

    /// The last line, and the number of keys.
    pub(super) fn end(mut self) -> (String, u64) {
        let trailer = json(&Trailer { end: true, count: self.count });
        let count = self.count;
        (self.checked(trailer.trim_start_matches('{')), count)
    }

    fn checked(&mut self, rest: &str) -> String {
        let check = self.chain.take(rest);
        format!("{CHECK_HEAD}{check}{CHECK_TAIL}{rest}")
    }
}

/// JSON text of plain strings, numbers and structures of them, which cannot fail.
fn json(value: &(impl Serialize + ?Sized)) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// `value` as text, if it is one JSON value that fits on a line as it is.
fn as_json_line(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    let fits = !text.contains(['\n', '\r']) && serde_json::from_str::<IgnoredAny>(text).is_ok();
    fits.then_some(text)
}

/// Content of a line of an export.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// A key and its value.
    Entry {
        /// The key.
        key: String,
        /// The value, as it was exported.
        value: Vec<u8>,
    },
    /// The trailer: nothing follows.
    End,
}

/// Reads the lines of an export, in order.
#[derive(Debug)]
pub(super) struct Decoder {
    chain: Chain,
    count: u64,
}

impl Decoder {
    /// Reads the header line; also returns the revision of the export.
    pub(super) fn begin(line: &str) -> Result<(Self, Revision), LineError> {
        let header: Header = serde_json::from_str(line).map_err(|_| LineError::NotAnExport)?;
        if header.format != FORMAT {
            return Err(LineError::NotAnExport);
        }
        if header.version > VERSION {
            return Err(LineError::NewerVersion { found: header.version });
        }
        let mut chain = Chain(CHAIN_START);
        chain.take(line);
        Ok((Self { chain, count: 0 }, Revision(header.revision)))
    }

    /// Reads the next line.
    pub(super) fn line(&mut self, line: &str) -> Result<Line, LineError> {
        let rest = self.verify(line)?;
        match rest.strip_prefix(r#""key":"#) {
            Some(rest) => self.entry(rest),
            None => self.end(rest),
        }
    }

    fn verify<'line>(&mut self, line: &'line str) -> Result<&'line str, LineError> {
        let checked = line.strip_prefix(CHECK_HEAD).and_then(|line| line.split_once(CHECK_TAIL));
        let (check, rest) = checked.ok_or(LineError::Altered)?;
        if self.chain.take(rest) == check { Ok(rest) } else { Err(LineError::Altered) }
    }

    fn entry(&mut self, rest: &str) -> Result<Line, LineError> {
        self.count += 1;
        let (key, rest) = split_string(rest)?;
        let value = rest.strip_suffix('}').ok_or_else(|| malformed(&"it does not end with a brace"))?;
        let value = if let Some(text) = value.strip_prefix(r#","json":"#) {
            serde_json::from_str::<IgnoredAny>(text).map_err(|error| malformed(&error))?;
            text.as_bytes().to_vec()
        } else if let Some(text) = value.strip_prefix(r#","base64":"#) {
            let text: String = serde_json::from_str(text).map_err(|error| malformed(&error))?;
            BASE64.decode(text).map_err(|error| malformed(&error))?
        } else {
            return Err(malformed(&"it has no value"));
        };
        Ok(Line::Entry { key, value })
    }

    fn end(&self, rest: &str) -> Result<Line, LineError> {
        let trailer: Trailer =
            serde_json::from_str(&format!("{{{rest}")).map_err(|error| malformed(&error))?;
        match trailer.count {
            stated if stated != self.count => Err(LineError::Count { stated, found: self.count }),
            _ => Ok(Line::End),
        }
    }
}

/// The JSON string that `text` begins with, and what follows it.
fn split_string(text: &str) -> Result<(String, &str), LineError> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<String>();
    let string =
        values.next().ok_or_else(|| malformed(&"it has no key"))?.map_err(|error| malformed(&error))?;
    let rest = text.get(values.byte_offset()..).unwrap_or_default();
    Ok((string, rest))
}

fn malformed(reason: &dyn fmt::Display) -> LineError {
    LineError::Malformed(reason.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Entries = Vec<(String, Vec<u8>)>;

    fn encode(entries: &[(String, Vec<u8>)]) -> Vec<String> {
        let (mut encoder, header) = Encoder::begin(Revision(7));
        let mut lines = vec![header];
        lines.extend(entries.iter().map(|(key, value)| encoder.entry(key, value)));
        lines.push(encoder.end().0);
        lines
    }

    /// The entries of `lines`, or the index of the first bad one.
    fn decode(lines: &[String]) -> Result<Entries, (usize, LineError)> {
        let (mut decoder, _) = Decoder::begin(&lines[0]).map_err(|error| (0, error))?;
        let mut entries = Vec::new();
        for (index, line) in lines.iter().enumerate().skip(1) {
            match decoder.line(line).map_err(|error| (index, error))? {
                Line::Entry { key, value } => entries.push((key, value)),
                Line::End => return Ok(entries),
            }
        }
        Err((lines.len(), LineError::CutOff))
    }

    fn sample() -> Entries {
        ["a", "b", "c"].map(|key| (key.to_owned(), format!(r#"{{"of": "{key}" }}"#).into_bytes())).into()
    }

    #[test]
    fn json_is_readable_and_anything_else_base64() {
        let lines = encode(&[
            ("/a".into(), br#"{"b":1, "a":1.50}"#.to_vec()),
            ("/b".into(), vec![0xff, 0xfe]),
            ("/c".into(), b"{\n}".to_vec()),
        ]);
        assert_eq!(lines[0], r#"{"format":"fiberlb-store","version":1,"revision":7}"#);
        assert!(lines[1].ends_with(r#""key":"/a","json":{"b":1, "a":1.50}}"#), "{}", lines[1]);
        assert!(lines[2].ends_with(r#""key":"/b","base64":"//4="}"#), "{}", lines[2]);
        assert!(lines[3].ends_with(r#""key":"/c","base64":"ewp9"}"#), "{}", lines[3]);
        assert!(lines[4].ends_with(r#""end":true,"count":3}"#), "{}", lines[4]);
        lines.iter().for_each(|line| drop(serde_json::from_str::<serde_json::Value>(line).unwrap()));
    }

    #[test]
    fn an_altered_line_is_named() {
        for index in 1..=4 {
            let mut lines = encode(&sample());
            lines[index] = lines[index].replace(['b', 'e'], "x");
            assert_eq!(decode(&lines), Err((index, LineError::Altered)));
        }
    }

    #[test]
    fn a_lost_moved_or_doubled_line_is_named() {
        let lines = encode(&sample());
        let mut lost = lines.clone();
        lost.remove(2);
        assert_eq!(decode(&lost), Err((2, LineError::Altered)));
        let mut moved = lines.clone();
        moved.swap(1, 2);
        assert_eq!(decode(&moved), Err((1, LineError::Altered)));
        let mut doubled = lines.clone();
        doubled.insert(2, lines[1].clone());
        assert_eq!(decode(&doubled), Err((2, LineError::Altered)));
        assert_eq!(decode(&lines[..4]), Err((4, LineError::CutOff)));
    }

    #[test]
    fn other_files_and_newer_versions_are_refused() {
        for line in ["", "{}", "<html>", r#"{"format":"x","version":1,"revision":1}"#] {
            assert_eq!(Decoder::begin(line).unwrap_err(), LineError::NotAnExport);
        }
        let newer = r#"{"format":"fiberlb-store","version":2,"revision":1,"more":true}"#;
        assert_eq!(Decoder::begin(newer).unwrap_err(), LineError::NewerVersion { found: 2 });
    }

    proptest! {
        #[test]
        fn what_is_exported_comes_back(entries in prop::collection::vec((".{0,20}", value()), 0..20)) {
            prop_assert_eq!(decode(&encode(&entries)), Ok(entries));
        }

        #[test]
        fn any_line_is_an_answer(line in ".{0,80}", checked in any::<bool>()) {
            let (mut decoder, _) = Decoder::begin(&encode(&[])[0]).unwrap();
            let line = if checked { Encoder { chain: decoder.chain, count: 0 }.checked(&line) } else { line };
            let _ = decoder.line(&line);
            let _ = Decoder::begin(&line);
        }
    }

    fn value() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            r#"[ \[\]{}",:0-9a-z.\\-]{0,12}"#.prop_map(String::into_bytes),
            "[ -~]{0,20}".prop_map(|text| serde_json::to_vec(&text).unwrap()),
        ]
    }
}
