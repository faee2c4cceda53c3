//! Fuzzes DNS questions from their bytes to the bytes of the reply.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::targets::dns(data));
