//! Fuzzes a whole agent with sequences of inputs.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::targets::node(data));
