//! The writes of a staged transaction, cut into pieces that fit the cluster's transactions. Pure.

use prost::Message;

use super::super::Write;

/// Writes of one piece: as many as one transaction of the cluster applies, with three operations more.
pub(super) const CHUNK_WRITES: usize = chainfire_client::max_operations(1) - 3;
/// Bytes of the keys and values of one piece. One write always fits, and the request stays below 1.5 MiB.
pub(super) const CHUNK_BYTES: usize = 1_200_000;

#[derive(Clone, PartialEq, Message)]
struct Chunk {
    #[prost(message, repeated, tag = "1")]
    writes: Vec<StagedWrite>,
}

#[derive(Clone, PartialEq, Message)]
struct StagedWrite {
    #[prost(string, tag = "1")]
    key: String,
    /// Absent: the key is removed.
    #[prost(bytes = "vec", optional, tag = "2")]
    value: Option<Vec<u8>>,
}

/// Cuts `writes` into pieces, in order.
pub(super) fn cut(writes: Vec<Write>) -> Vec<Vec<Write>> {
    let mut pieces: Vec<Vec<Write>> = Vec::new();
    let mut bytes = 0;
    for write in writes {
        let size = write.size();
        match pieces.last_mut() {
            Some(last) if last.len() < CHUNK_WRITES && bytes + size <= CHUNK_BYTES => {
                bytes += size;
                last.push(write);
            }
            _ => {
                bytes = size;
                pieces.push(vec![write]);
            }
        }
    }
    pieces
}

/// The stored form of a piece.
pub(super) fn encode(writes: &[Write]) -> Vec<u8> {
    let writes = writes.iter().cloned().map(|write| match write {
        Write::Put { key, value } => StagedWrite { key, value: Some(value) },
        Write::Delete { key } => StagedWrite { key, value: None },
    });
    Chunk { writes: writes.collect() }.encode_to_vec()
}

/// The piece in a stored form.
pub(super) fn decode(bytes: &[u8]) -> Result<Vec<Write>, prost::DecodeError> {
    let writes = Chunk::decode(bytes)?.writes.into_iter().map(|write| match write.value {
        Some(value) => Write::Put { key: write.key, value },
        None => Write::Delete { key: write.key },
    });
    Ok(writes.collect())
}

#[cfg(test)]
mod tests {
    use super::super::super::{MAX_KEY_BYTES, MAX_VALUE_BYTES};
    use super::*;

    fn put(key: String, bytes: usize) -> Write {
        Write::Put { key, value: vec![b'v'; bytes] }
    }

    #[test]
    fn pieces_hold_all_writes_in_order_and_fit() {
        let large = (0..5).map(|n| put("k".repeat(MAX_KEY_BYTES - 1) + &n.to_string(), MAX_VALUE_BYTES));
        let small = (0..9000)
            .map(|n| if n % 3 == 0 { Write::Delete { key: n.to_string() } } else { put(n.to_string(), n) });
        let writes: Vec<_> = large.chain(small).collect();
        let pieces = cut(writes.clone());
        assert_eq!(pieces.concat(), writes);
        for piece in pieces {
            let size: usize = piece.iter().map(Write::size).sum();
            assert!(piece.len() <= CHUNK_WRITES && size <= CHUNK_BYTES, "{size}");
            let encoded = encode(&piece);
            assert!(encoded.len() < chainfire_client::MAX_REQUEST_BYTES - 4096);
            assert_eq!(decode(&encoded).unwrap(), piece);
        }
        assert!(decode(b"broken by hand").is_err());
        assert!(cut(Vec::new()).is_empty());
    }
}
