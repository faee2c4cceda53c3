//! Fuzzes gossip datagrams and streams.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::targets::gossip_wire(data));
