#![no_main]
//! An answer in pieces: no beginning of it says anything but "incomplete" or what the whole says.

use fiberlb_proxy::health::status_line::{StatusLine, parse};

libfuzzer_sys::fuzz_target!(|answer: &[u8]| {
    let whole = parse(answer);
    for end in 0..answer.len() {
        let part = parse(&answer[..end]);
        assert!(part == StatusLine::Incomplete || part == whole, "{part:?}, then {whole:?}");
    }
    if let StatusLine::Code(code) = whole {
        assert!((100..600).contains(&code) && answer.starts_with(b"HTTP/1."));
    }
});
