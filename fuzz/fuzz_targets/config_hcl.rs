//! Fuzzes configuration files in HCL.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::targets::config_hcl(data));
