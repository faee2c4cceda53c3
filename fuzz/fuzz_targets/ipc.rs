//! Fuzzes the local control protocol from both ends.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::targets::ipc(data));
