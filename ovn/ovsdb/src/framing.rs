//! Messages out of a byte stream. JSON-RPC over OVSDB has no framing: several messages may arrive in one read, and one in
//! many. Each byte is looked at once.

use bytes::{Buf as _, BytesMut};
use thiserror::Error;

/// Deepest nesting of a message; OVSDB's own stay below 20.
const MAX_DEPTH: usize = 64;
/// Memory that an object, an array and a further element of either take when parsed, in bytes, about: the first node of a
/// map, the first allocation of a vector, a value in one that has grown to twice its need.
const MEMORY: (usize, usize, usize) = (640, 128, 64);
/// Memory for the structure of a message, in times the longest message. By [`MEMORY`], load balancers of one listener
/// and five backends take 7.5 times their own length (measured); `{"":0}` again and again would take 90 times.
const MAX_STRUCTURE: usize = 10;

/// The stream is not one of JSON objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FramingError {
    /// Something else than an object where a message should begin.
    #[error("the server sent something that is not JSON-RPC (byte {0:#04x} where a message should begin)")]
    NotAnObject(u8),
    /// A message larger than allowed.
    #[error("the server sent a message of more than {0} bytes")]
    TooLong(usize),
    /// A message that would take too much memory, short as it is.
    #[error("the server sent a message of so many parts that it would take more than {0} bytes of memory")]
    TooMuch(usize),
    /// A message nested deeper than [`MAX_DEPTH`].
    #[error("the server sent a message nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
}

/// Collects bytes and yields whole messages.
#[derive(Debug)]
pub struct Splitter {
    buffer: BytesMut,
    /// Bytes of `buffer` that were looked at.
    scanned: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// Memory that the structure of the message would take, as far as it was looked at.
    structure: usize,
    most: usize,
}

impl Splitter {
    /// Accepts messages of up to `most` bytes.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            scanned: 0,
            depth: 0,
            in_string: false,
            escaped: false,
            structure: 0,
            most,
        }
    }

    /// The buffer to read into.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next whole message; `None` until more bytes have come.
    ///
    /// # Errors
    /// [`FramingError`]: the stream cannot be read on.
    pub fn split(&mut self) -> Result<Option<BytesMut>, FramingError> {
        if self.depth == 0 {
            self.skip_space()?;
        }
        while let Some(byte) = self.buffer.get(self.scanned).copied() {
            self.scanned += 1;
            if self.step(byte)? {
                let message = self.buffer.split_to(self.scanned);
                self.scanned = 0;
                self.structure = 0;
                return Ok(Some(message));
            }
        }
        if self.buffer.len() > self.most {
            return Err(FramingError::TooLong(self.most));
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

    /// Whether this byte ends a message.
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
        let (object, array, element) = MEMORY;
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
        let most = self.most.saturating_mul(MAX_STRUCTURE);
        match () {
            () if self.depth > MAX_DEPTH => Err(FramingError::TooDeep),
            () if self.structure > most => Err(FramingError::TooMuch(most)),
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
        assert_eq!(split(&[b"{", &[b'['; 100]]), Err(FramingError::TooDeep));
        let endless = [b"{\"".as_slice(), &[b'x'; 1000]].concat();
        assert_eq!(split(&[&endless]), Err(FramingError::TooLong(1000)));
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
