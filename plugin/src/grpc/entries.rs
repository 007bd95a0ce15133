//! Entries of the lists of a message, counted as it came: an empty one takes two bytes there, and hundreds once it is decoded.

use prost::decode_length_delimiter;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

/// The bytes are no message of the kind that they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Wire types of the protocol buffers' encoding; those of groups have been deprecated for long, and are malformed here.
mod wire_type {
    pub(super) const VARINT: usize = 0;
    pub(super) const FIXED64: usize = 1;
    pub(super) const LENGTH: usize = 2;
    pub(super) const FIXED32: usize = 5;
}

/// Number of entries of all lists in an encoded message, at any depth; once there are more than `most`, of those up to there.
///
/// # Errors
/// [`Malformed`]
pub(super) fn entries(message: &MessageDescriptor, bytes: &[u8], most: usize) -> Result<usize, Malformed> {
    let mut count = 0;
    // Messages that are not read to their end, from the outermost on: what is left of each.
    let mut open = vec![(message.clone(), bytes)];
    while let Some((message, bytes)) = open.pop() {
        let Some(Field { number, content, rest }) = next(bytes)? else { continue };
        open.push((message.clone(), rest));
        let Some(field) = u32::try_from(number).ok().and_then(|number| message.get_field(number)) else {
            continue;
        };
        count += usize::from(field.is_list() || field.is_map());
        if count > most {
            break;
        }
        if let (Some(content), Some(nested)) = (content, nested(&field)) {
            open.push((nested, content));
        }
    }
    Ok(count)
}

fn nested(field: &FieldDescriptor) -> Option<MessageDescriptor> {
    match field.kind() {
        Kind::Message(nested) => Some(nested),
        _ => None,
    }
}

/// One field as it is encoded.
struct Field<'a> {
    number: usize,
    /// Of one that has a length.
    content: Option<&'a [u8]>,
    /// What comes after it.
    rest: &'a [u8],
}

/// First field of a message; `None` at its end.
fn next(mut bytes: &[u8]) -> Result<Option<Field<'_>>, Malformed> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let key = varint(&mut bytes)?;
    let (number, wire_type) = (key >> 3, key & 7);
    let length = match wire_type {
        wire_type::VARINT => {
            varint(&mut bytes)?;
            0
        }
        wire_type::FIXED64 => 8,
        wire_type::LENGTH => varint(&mut bytes)?,
        wire_type::FIXED32 => 4,
        _ => return Err(Malformed),
    };
    let (content, rest) = bytes.split_at_checked(length).ok_or(Malformed)?;
    Ok(Some(Field { number, content: (wire_type == wire_type::LENGTH).then_some(content), rest }))
}

fn varint(bytes: &mut &[u8]) -> Result<usize, Malformed> {
    decode_length_delimiter(bytes).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use fiberlb_proto::v1;
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;
    use crate::grpc::descriptors::descriptor;

    fn apply() -> MessageDescriptor {
        descriptor("fiberlb.v1.ApplyLoadBalancerRequest").unwrap()
    }

    fn request(pools: usize, backends: usize, tags: usize) -> Vec<u8> {
        let backend = v1::Backend { tags: vec![String::new(); tags], weight: Some(3), ..Default::default() };
        let pool = v1::PoolTree { backends: vec![backend; backends], ..Default::default() };
        let tree = v1::LoadBalancerTree { pools: vec![pool; pools], ..Default::default() };
        v1::ApplyLoadBalancerRequest { tree: Some(tree), ..Default::default() }.encode_to_vec()
    }

    #[test]
    fn entries_are_counted_at_each_depth() {
        for (pools, backends, tags) in [(0, 0, 0), (3, 0, 0), (3, 5, 0), (2, 3, 4)] {
            let count = pools * (1 + backends * (1 + tags));
            assert_eq!(entries(&apply(), &request(pools, backends, tags), 1000), Ok(count));
        }
    }

    #[test]
    fn counting_ends_at_the_limit() {
        assert_eq!(entries(&apply(), &request(100_000, 0, 0), 10), Ok(11));
    }

    #[test]
    fn lists_of_messages_that_come_in_pieces_are_counted_together() {
        let twice = [request(2, 0, 0), request(3, 0, 0)].concat();
        assert_eq!(entries(&apply(), &twice, 1000), Ok(5));
    }

    #[test]
    fn what_is_no_message_is_malformed() {
        // A group, a length that passes the end, half a number, and one without end.
        for bytes in [&[0x0b, 0x0c][..], &[0x0a, 0x7f], &[0x80], &[0xff; 20]] {
            assert_eq!(entries(&apply(), bytes, 1000), Err(Malformed), "{bytes:x?}");
        }
    }

    proptest! {
        /// No more is decoded than was counted.
        #[test]
        fn decoding_finds_what_was_counted(bytes in proptest::collection::vec(any::<u8>(), 0..64), pools in 0usize..4) {
            let bytes = [request(pools, 1, 1), bytes].concat();
            if let Ok(decoded) = v1::ApplyLoadBalancerRequest::decode(bytes.as_slice()) {
                let tree = decoded.tree.unwrap_or_default();
                let found = tree.listeners.len() + tree.pools.len()
                    + tree.pools.iter().map(|pool| pool.backends.len()).sum::<usize>();
                if let Ok(count) = entries(&apply(), &bytes, 1000) {
                    prop_assert!(count >= found);
                }
            }
        }
    }
}
