//! Fuzzes what a server answers to a gRPC check.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::targets::grpc(data));
