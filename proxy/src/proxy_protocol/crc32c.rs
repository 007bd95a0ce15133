//! CRC32C (RFC 4960, appendix B): Castagnoli's polynomial, reflected.

const POLYNOMIAL: u32 = 0x82F6_3B78;

const TABLE: [u32; 256] = table();

#[expect(clippy::indexing_slicing, reason = "computed by the compiler")]
const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut sum = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ POLYNOMIAL } else { sum >> 1 };
            bit += 1;
        }
        table[byte] = sum;
        byte += 1;
    }
    table
}

/// Checksum of these pieces, one after the other.
pub(super) fn checksum<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> u32 {
    let bytes = pieces.into_iter().flatten();
    let step = |sum: u32, byte: &u8| {
        let [index, ..] = (sum ^ u32::from(*byte)).to_le_bytes();
        (sum >> 8) ^ TABLE.get(usize::from(index)).copied().unwrap_or_default()
    };
    !bytes.fold(!0, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3720, appendix B.4.
    #[test]
    fn checksums_are_those_of_the_standard() {
        assert_eq!(checksum([&b"123456789"[..]]), 0xE306_9283);
        assert_eq!(checksum([&[0; 32][..]]), 0x8A91_36AA);
        assert_eq!(checksum([&[0xFF; 32][..]]), 0x62A8_AB43);
        let ascending: Vec<u8> = (0..32).collect();
        assert_eq!(checksum([&ascending[..5], &ascending[5..]]), 0x46DD_794E);
    }
}
