//! Messages checked as they came, before they are decoded: whether they are what they should be, and how many entries their
//! lists have. An empty entry takes two bytes there, and hundreds once it is decoded.

use prost_reflect::{Kind, MessageDescriptor};

/// The bytes are no message of the kind that they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Wire types of the protocol buffers' encoding; those of groups have been deprecated for long, and are malformed here.
mod wire_type {
    pub(super) const VARINT: u32 = 0;
    pub(super) const FIXED64: u32 = 1;
    pub(super) const LENGTH: u32 = 2;
    pub(super) const FIXED32: u32 = 5;
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
        let Some(Field { number, wire_type, content, rest }) = next(bytes)? else { continue };
        let field = message.get_field(number);
        open.push((message, rest));
        let Some(field) = field else { continue };
        let kind = field.kind();
        let own = of_kind(&kind);
        count += match field.is_list() {
            true if wire_type == own => 1,
            true if wire_type == wire_type::LENGTH => packed(own, content)?,
            false if wire_type == own => 0,
            _ => return Err(Malformed),
        };
        if count > most {
            break;
        }
        match kind {
            Kind::Message(nested) => open.push((nested, content)),
            Kind::String if str::from_utf8(content).is_err() => return Err(Malformed),
            _ => {}
        }
    }
    Ok(count)
}

/// Number of the numbers in a packed list of them.
fn packed(wire_type: u32, mut content: &[u8]) -> Result<usize, Malformed> {
    let size = match wire_type {
        wire_type::FIXED32 => 4,
        wire_type::FIXED64 => 8,
        _ => {
            let mut count = 0;
            while !content.is_empty() {
                varint(&mut content)?;
                count += 1;
            }
            return Ok(count);
        }
    };
    if content.len().is_multiple_of(size) { Ok(content.len() / size) } else { Err(Malformed) }
}

/// Wire type of one value of a field.
fn of_kind(kind: &Kind) -> u32 {
    match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => wire_type::FIXED64,
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => wire_type::FIXED32,
        Kind::Message(_) | Kind::String | Kind::Bytes => wire_type::LENGTH,
        _ => wire_type::VARINT,
    }
}

/// One field as it is encoded.
struct Field<'a> {
    number: u32,
    wire_type: u32,
    /// Empty but for one that has a length.
    content: &'a [u8],
    /// Bytes after it.
    rest: &'a [u8],
}

/// First field of a message; `None` at its end.
fn next(mut bytes: &[u8]) -> Result<Option<Field<'_>>, Malformed> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let key = u32::try_from(varint(&mut bytes)?).map_err(|_| Malformed)?;
    let (number, wire_type) = (key >> 3, key & 7);
    let length = match wire_type {
        _ if number == 0 => return Err(Malformed),
        wire_type::VARINT => varint(&mut bytes).map(|_| 0)?,
        wire_type::FIXED64 => 8,
        wire_type::LENGTH => varint(&mut bytes)?,
        wire_type::FIXED32 => 4,
        _ => return Err(Malformed),
    };
    let length = usize::try_from(length).map_err(|_| Malformed)?;
    let (content, rest) = bytes.split_at_checked(length).ok_or(Malformed)?;
    Ok(Some(Field { number, wire_type, content, rest }))
}

fn varint(bytes: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value: u64 = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(Malformed)?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if bits.leading_zeros() < shift {
            return Err(Malformed);
        }
        value |= bits << shift;
        if *byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Malformed)
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

    #[test]
    fn numbers_of_a_packed_list_are_counted() {
        let pool = v1::Pool {
            tls: Some(v1::PoolTls { versions: vec![1; 7], ..Default::default() }),
            ..Default::default()
        };
        let message = descriptor("fiberlb.v1.Pool").unwrap();
        assert_eq!(entries(&message, &pool.encode_to_vec(), 1000), Ok(7));
        assert_eq!(packed(wire_type::FIXED32, &[0; 12]), Ok(3));
        assert_eq!(packed(wire_type::FIXED64, &[0; 12]), Err(Malformed));
    }

    proptest! {
        /// Admitted messages can be decoded, and have the counted entries.
        #[test]
        fn what_passes_is_decoded(
            pools in 0usize..3,
            tags in 0usize..3,
            changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
        ) {
            let mut bytes = request(pools, 2, tags);
            for (at, byte) in changes {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
            }
            let passed = entries(&apply(), &bytes, usize::MAX);
            let decoded = v1::ApplyLoadBalancerRequest::decode(bytes.as_slice());
            if let Ok(count) = passed {
                let tree = decoded.map_err(|error| TestCaseError::fail(error.to_string()))?.tree.unwrap_or_default();
                let backends: usize = tree.pools.iter().map(|pool| pool.backends.len()).sum();
                prop_assert!(count >= tree.listeners.len() + tree.pools.len() + backends);
            }
        }
    }
}
