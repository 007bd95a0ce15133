//! Framing: JSON messages from a byte stream (RFC 7047, section 4, has no lengths and no separators). Each byte is scanned once.

use bytes::{Buf as _, BytesMut};
use thiserror::Error;

/// Deepest nesting of a message; those of ovsdb-server stay below 20.
const MAX_DEPTH: usize = 64;
/// Memory that a parsed object, a parsed array and each further element take, in bytes, about: the first node of a map, the
/// first allocation of a vector, an element of a vector that has grown to twice its need.
const PARSED_BYTES: (usize, usize, usize) = (640, 128, 64);
/// Memory budget for the structure of a message, in multiples of the longest message. By [`PARSED_BYTES`], rows of a few short
/// columns and maps take 7.5 times their own length (measured); `{"":0}` repeated would take 90 times.
const MAX_STRUCTURE: usize = 10;

/// Byte stream that is not a sequence of acceptable JSON objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FramingError {
    /// First byte of a message that is not `{`.
    #[error("the server sent something that is not JSON-RPC (byte {0:#04x} where a message should begin)")]
    NotAnObject(u8),
    /// Message longer than [`Config::max_message_bytes`](crate::client::Config::max_message_bytes), in bytes.
    #[error("the server sent a message of more than {0} bytes: raise max_message_bytes")]
    TooLong(usize),
    /// Message of so many parts that it would take more than this many bytes of memory once parsed.
    #[error(
        "the server sent a message of so many parts that it would take more than {0} bytes of memory: raise max_message_bytes"
    )]
    TooMuch(usize),
    /// Message nested deeper than this many levels.
    #[error("the server sent a message nested deeper than {0} levels")]
    TooDeep(usize),
}

/// Splitter of a byte stream into whole messages.
#[derive(Debug)]
pub(crate) struct Splitter {
    buffer: BytesMut,
    /// Length of the scanned part of `buffer`.
    scanned: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// Memory for the structure of the scanned part of the message, in bytes.
    structure: usize,
    max_message_bytes: usize,
}

impl Splitter {
    /// Splitter for messages of at most `max_message_bytes` bytes.
    pub(crate) fn new(max_message_bytes: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            scanned: 0,
            depth: 0,
            in_string: false,
            escaped: false,
            structure: 0,
            max_message_bytes,
        }
    }

    /// Buffer that received bytes are appended to.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Next whole message; `None` until more bytes arrive.
    ///
    /// # Errors
    /// [`FramingError`]: the rest of the stream cannot be split.
    pub(crate) fn split(&mut self) -> Result<Option<BytesMut>, FramingError> {
        if self.depth == 0 {
            self.skip_space()?;
        }
        while let Some(byte) = self.buffer.get(self.scanned).copied() {
            self.scanned += 1;
            let is_whole = self.step(byte)?;
            if self.scanned > self.max_message_bytes {
                return Err(FramingError::TooLong(self.max_message_bytes));
            }
            if is_whole {
                let message = self.buffer.split_to(self.scanned);
                self.scanned = 0;
                self.structure = 0;
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    fn skip_space(&mut self) -> Result<(), FramingError> {
        let space = self.buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        self.buffer.advance(space);
        match self.buffer.first() {
            None | Some(b'{') => Ok(()),
            Some(other) => Err(FramingError::NotAnObject(*other)),
        }
    }

    /// Scans a byte; true if it ends a message.
    fn step(&mut self, byte: u8) -> Result<bool, FramingError> {
        if self.in_string {
            match (self.escaped, byte) {
                (true, _) => self.escaped = false,
                (false, b'\\') => self.escaped = true,
                (false, b'"') => self.in_string = false,
                _ => {}
            }
            return Ok(false);
        }
        let (object, array, element) = PARSED_BYTES;
        match byte {
            b'"' => self.in_string = true,
            b',' => self.structure += element,
            b'{' | b'[' => {
                self.depth += 1;
                self.structure += if byte == b'{' { object } else { array };
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                return Ok(self.depth == 0);
            }
            _ => {}
        }
        let budget = self.max_message_bytes.saturating_mul(MAX_STRUCTURE);
        match () {
            () if self.depth > MAX_DEPTH => Err(FramingError::TooDeep(MAX_DEPTH)),
            () if self.structure > budget => Err(FramingError::TooMuch(budget)),
            () => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(chunks: &[&[u8]]) -> Result<Vec<Vec<u8>>, FramingError> {
        let mut splitter = Splitter::new(1000);
        let mut messages = Vec::new();
        for chunk in chunks {
            splitter.buffer().extend_from_slice(chunk);
            while let Some(message) = splitter.split()? {
                messages.push(message.to_vec());
            }
        }
        Ok(messages)
    }

    const STREAM: &[u8] = br#"{"a":"}\"\\"} {"b":[{}]}
{"c":"{"}"#;

    #[test]
    fn messages_are_found_wherever_the_stream_is_cut() {
        let expected: Vec<Vec<u8>> =
            [&br#"{"a":"}\"\\"}"#[..], br#"{"b":[{}]}"#, br#"{"c":"{"}"#].map(<[u8]>::to_vec).into();
        for cut in 0..=STREAM.len() {
            let (first, second) = STREAM.split_at(cut);
            assert_eq!(split(&[first, second]).unwrap(), expected, "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = STREAM.chunks(1).collect();
        assert_eq!(split(&bytes).unwrap(), expected);
    }

    #[test]
    fn garbage_is_an_error() {
        assert_eq!(split(&[b"HTTP/1.1 400"]), Err(FramingError::NotAnObject(b'H')));
        assert_eq!(split(&[b"{", &[b'['; 100]]), Err(FramingError::TooDeep(MAX_DEPTH)));
        let endless = [b"{\"".as_slice(), &[b'x'; 1000]].concat();
        assert_eq!(split(&[&endless]), Err(FramingError::TooLong(1000)));
        let message = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8));
        assert_eq!(split(&[message(1000).as_bytes()]).unwrap().len(), 1);
        assert_eq!(split(&[message(1001).as_bytes()]), Err(FramingError::TooLong(1000)));
    }

    #[test]
    fn a_short_message_of_many_parts_is_refused_before_it_is_parsed() {
        for part in [r#"{"":0}"#, r#"{"":{}}"#, "[[0]]", "[]"] {
            let many = format!("{{\"a\":[{}]}}", vec![part; 120].join(","));
            assert!(many.len() < 1000);
            assert_eq!(split(&[many.as_bytes()]), Err(FramingError::TooMuch(10_000)), "{part}");
        }
        // Each message is counted for itself, and text is no structure.
        let sound = format!("{{\"a\":[{}],\"b\":\"{}\"}}", vec!["[0]"; 40].join(","), "{[,".repeat(100));
        assert_eq!(split(&[sound.as_bytes(), sound.as_bytes()]).unwrap().len(), 2);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..20)) {
            let chunks: Vec<&[u8]> = chunks.iter().map(Vec::as_slice).collect();
            let _ = split(&chunks);
        }
    }
}
