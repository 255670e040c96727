#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hearth::fuzz::router(bytes));
