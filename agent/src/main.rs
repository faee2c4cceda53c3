//! The `terraform` binary.
fn main() {}
