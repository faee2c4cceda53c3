//! Fuzzes Serf messages and tags.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::targets::serf_wire(data));
