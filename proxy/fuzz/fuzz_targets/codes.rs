#![no_main]
//! A parsed set of codes is written as the same set.

use fiberlb_proxy::health::ExpectedCodes;

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(codes) = text.parse::<ExpectedCodes>() {
        assert_eq!(codes.to_string().parse().as_ref(), Ok(&codes));
        assert!(!codes.contains(99) && !codes.contains(600));
    }
});
