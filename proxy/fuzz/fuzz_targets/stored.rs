#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fiberlb_proxy::disk::fuzzing::stored(bytes));
