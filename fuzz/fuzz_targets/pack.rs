//! Fuzzes log entries and registrations.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::targets::pack(data));
