//! TLVs: a type, a length of two bytes, and so many bytes. Values are opaque: nothing in them is descended into.

/// Most bytes that the TLVs of a header take.
pub const MAX_TLVS: usize = 8 * 1024;

/// Most bytes of TLVs that are passed on: with addresses, a UNIQUE_ID and a checksum the header is then below
/// [`MAX_V2`](super::MAX_V2).
const MAX_PASSED_ON: usize = 3 * 1024;

/// Bytes before a value.
const HEAD: usize = 3;

/// Longest UNIQUE_ID, in bytes.
const MAX_UNIQUE_ID: usize = 128;

/// Types of TLVs.
pub mod tlv_type {
    /// Protocol that was negotiated by ALPN.
    pub const ALPN: u8 = 0x01;
    /// Host name that the client has named, such as SNI.
    pub const AUTHORITY: u8 = 0x02;
    /// CRC32C of the header.
    pub const CRC32C: u8 = 0x03;
    /// Padding.
    pub const NOOP: u8 = 0x04;
    /// Id of the connection, at most 128 bytes.
    pub const UNIQUE_ID: u8 = 0x05;
    /// The client's TLS, with TLVs of its own.
    pub const SSL: u8 = 0x20;
    /// Name of a namespace on the sender's machine.
    pub const NETNS: u8 = 0x30;
    /// First type that applications use as they like.
    pub const MIN_CUSTOM: u8 = 0xE0;
    /// First type that is reserved for future extensions.
    pub const MIN_FUTURE: u8 = 0xF8;
}

/// Reason why a TLV cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlvError {
    /// All of them would take more than [`MAX_TLVS`] bytes.
    #[error("the TLVs of a header have at most {MAX_TLVS} bytes")]
    TooLong,
    /// CRC32C and NOOP: they say nothing, and the encoder writes the first one itself.
    #[error("CRC32C and NOOP are no values of a header")]
    Reserved,
}

/// TLVs of a header, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tlvs {
    /// As on the wire, whole.
    bytes: Vec<u8>,
}

impl Tlvs {
    /// Appends a TLV.
    ///
    /// # Errors
    /// [`TlvError`].
    pub fn push(&mut self, kind: u8, value: &[u8]) -> Result<(), TlvError> {
        if matches!(kind, tlv_type::CRC32C | tlv_type::NOOP) {
            return Err(TlvError::Reserved);
        }
        let length = u16::try_from(value.len()).map_err(|_| TlvError::TooLong)?;
        if self.bytes.len() + HEAD + value.len() > MAX_TLVS {
            return Err(TlvError::TooLong);
        }
        self.bytes.push(kind);
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.extend_from_slice(value);
        Ok(())
    }

    /// Types and values.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &[u8])> {
        Walk { rest: &self.bytes }.filter_map(Result::ok)
    }

    /// Value of the first TLV of a type.
    #[must_use]
    pub fn find(&self, kind: u8) -> Option<&[u8]> {
        self.iter().find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    /// True if there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// TLVs that are about the client's connection, and so are passed on to the next hop, as far as a header with them and
    /// with one's own is no longer than what is taken. NETNS is about the sender's machine; of future types nobody knows.
    #[must_use]
    pub fn for_next_hop(mut self) -> Self {
        let stays = |kind: u8| kind != tlv_type::NETNS && kind < tlv_type::MIN_FUTURE;
        if self.bytes.len() <= MAX_PASSED_ON && self.iter().all(|(kind, _)| stays(kind)) {
            return self;
        }
        let mut kept = Self::default();
        for (kind, value) in self.iter().filter(|(kind, _)| stays(*kind)) {
            if kept.bytes.len() + HEAD + value.len() <= MAX_PASSED_ON {
                // It was within the larger limit before.
                let _ = kept.push(kind, value);
            }
        }
        self.bytes = kept.bytes;
        self
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// TLVs in the rest of a header, and the place of a checksum's value in it.
    ///
    /// # Errors
    /// A description of the malformed part.
    pub(super) fn parse(bytes: &[u8]) -> Result<(Self, Option<usize>), &'static str> {
        let (mut tlvs, mut checksum) = (Self::default(), None);
        let mut walk = Walk { rest: bytes };
        while let Some(tlv) = walk.next() {
            let (kind, value) = tlv?;
            match kind {
                tlv_type::NOOP => {}
                tlv_type::CRC32C if checksum.is_some() => return Err("two checksums"),
                tlv_type::CRC32C if value.len() != 4 => return Err("a checksum that has not four bytes"),
                tlv_type::CRC32C => checksum = Some(bytes.len() - walk.rest.len() - value.len()),
                tlv_type::UNIQUE_ID if value.len() > MAX_UNIQUE_ID => {
                    return Err("a unique id of more than 128 bytes");
                }
                kind => tlvs.push(kind, value).map_err(|_| "too many TLVs")?,
            }
        }
        Ok((tlvs, checksum))
    }
}

/// Walk over TLVs. Ends after the first one that is cut short.
struct Walk<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Walk<'a> {
    type Item = Result<(u8, &'a [u8]), &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let whole = self.rest.split_first_chunk::<HEAD>().and_then(|([kind, high, low], rest)| {
            let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))?;
            Some((*kind, value, rest))
        });
        let Some((kind, value, rest)) = whole else {
            self.rest = &[];
            return Some(Err("a TLV that is cut short"));
        };
        self.rest = rest;
        Some(Ok((kind, value)))
    }
}
