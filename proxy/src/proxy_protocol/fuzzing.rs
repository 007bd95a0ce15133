//! Harness for bytes from a stranger, of the fuzz target in `proxy/fuzz` and of tests.

use super::{Header, HeaderProgress, MAX_V1, MAX_V2, Subject, Version, encode, parse};

/// Parses the first bytes of a connection, whole and cut at each place.
///
/// # Panics
/// A beginning contradicts the whole, a limit is exceeded, or a header changes when it is written and read again.
pub fn header(bytes: &[u8]) {
    let whole = parse(bytes);
    for end in 0..bytes.len().min(MAX_V2 + 1) {
        let part = parse(bytes.get(..end).unwrap_or_default());
        match (&part, &whole) {
            (Ok(HeaderProgress::Incomplete { needs }), _) => assert!(*needs > end && *needs <= MAX_V2),
            (Ok(HeaderProgress::Complete { length, .. }), _) => assert!(*length <= end && part == whole),
            (Err(_), _) => assert_eq!(part, whole, "cut at {end}"),
        }
    }
    match whole {
        Ok(HeaderProgress::Complete { header, length }) => {
            assert!(length <= if bytes.starts_with(b"P") { MAX_V1 } else { MAX_V2 });
            assert_eq!(
                parse(bytes.get(..length).unwrap_or_default()),
                parse(bytes),
                "bytes behind it matter"
            );
            survives(&header);
        }
        Ok(HeaderProgress::Incomplete { needs }) => assert!(needs > bytes.len()),
        Err(_) => {}
    }
}

/// Writes a header and reads it again.
fn survives(header: &Header) {
    let bytes = encode(Version::V2, header);
    let known = match header.subject {
        // Versions and families that state no endpoints have no TLVs when they are sent.
        Subject::Local | Subject::Unknown => Header::from(header.subject),
        Subject::Tcp(_) => header.clone(),
    };
    let Ok(HeaderProgress::Complete { header: again, length }) = parse(&bytes) else {
        // The checksum and mapped addresses may make it longer than what is accepted.
        assert!(bytes.len() > MAX_V2, "{header:?} is not read again");
        return;
    };
    assert_eq!(length, bytes.len());
    assert_eq!(encode(Version::V2, &again), bytes);
    assert_eq!(again.tlvs, known.tlvs);
    assert!(encode(Version::V1, header).len() <= MAX_V1);
}
