//! Fuzzes recordings of agents.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::targets::recording(data));
