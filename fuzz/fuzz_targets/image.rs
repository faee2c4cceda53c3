//! Fuzzes images of the tables.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::targets::image(data));
