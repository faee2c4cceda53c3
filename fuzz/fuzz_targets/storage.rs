//! Fuzzes recovery from damaged files.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::targets::storage(data));
