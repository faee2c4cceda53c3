//! Fuzzes the frames of the server port.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::targets::server_wire(data));
