//! Harness for files of another life, of the fuzz target in `proxy/fuzz` and of tests.

use super::file::{VERSION, decode, encode, framed};

/// Reads bytes as a file, and as the content of one whose header is right. What can be read is written again, and read as
/// the same.
///
/// # Panics
/// A state changes by that.
pub fn stored(bytes: &[u8]) {
    let _ = decode(bytes);
    let Ok(memory) = decode(&framed(VERSION, bytes)) else { return };
    // But for what was refused, which the plugin says again.
    let once = decode(&encode(&memory));
    assert!(once.is_ok(), "{once:?}");
    assert_eq!(once.as_ref().map(|once| decode(&encode(once))), Ok(once.clone()));
}
