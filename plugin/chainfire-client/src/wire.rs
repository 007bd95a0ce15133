//! The generated types, and the numbers of the wire.

#[allow(
    missing_docs,
    unreachable_pub,
    dead_code,
    clippy::all,
    clippy::allow_attributes_without_reason,
    reason = "generated from proto/chainfire.proto"
)]
mod generated {
    tonic::include_proto!("etcdserverpb");
}

pub(crate) use generated::*;

/// A revision on the wire. None comes near the end of `i64`.
pub(crate) fn to_wire(revision: u64) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

/// A revision from the wire; a negative one, which no member sends, is 0.
pub(crate) fn from_wire(revision: i64) -> u64 {
    u64::try_from(revision).unwrap_or(0)
}

/// The revision of an answer.
pub(crate) fn revision(header: Option<&ResponseHeader>) -> u64 {
    header.map_or(0, |header| from_wire(header.revision))
}

/// The end of the range of all keys that start with `prefix`; one zero byte: there is none.
pub(crate) fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_after_the_last_key_that_starts_with_it() {
        assert_eq!(prefix_end(b"/a/"), b"/a0");
        assert_eq!(prefix_end(&[1, 0xff]), [2]);
        assert_eq!(prefix_end(&[0xff, 0xff]), [0]);
        assert_eq!(prefix_end(b""), [0]);
    }
}
