//! Fuzzes messages of consensus and bootstrap.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::targets::raft_wire(data));
