//! Fuzzes HTTP requests and responses.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::targets::http(data));
