//! Fuzz targets for every decoder and machine that takes bytes from outside.
//!
//! A target is a plain function over bytes that panics when a rule is broken: a decoder panics by
//! itself, or what was decoded does not survive its own encoding. The same functions run in three
//! ways: under libFuzzer (`cargo fuzz run TARGET`, whose binaries are `fuzz_targets/`), over the
//! committed corpus in `cargo test -p fuzz`, and from any test.
//!
//! A new target needs its function in [`targets`], its line in [`TARGETS`], its wrapper in
//! `fuzz_targets/` with a `[[bin]]` in `Cargo.toml`, and seeds in `corpus/NAME/`; a test tells
//! what is missing.

mod choices;
mod disk;
pub mod targets;

/// A target.
pub type Target = fn(&[u8]);

/// Every target by the name of its binary and its corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("archive", targets::archive),
    ("config_hcl", targets::config_hcl),
    ("config_json", targets::config_json),
    ("dns", targets::dns),
    ("filter", targets::filter),
    ("gossip_wire", targets::gossip_wire),
    ("grpc", targets::grpc),
    ("http", targets::http),
    ("image", targets::image),
    ("ipc", targets::ipc),
    ("node", targets::node),
    ("pack", targets::pack),
    ("raft_wire", targets::raft_wire),
    ("recording", targets::recording),
    ("serf_wire", targets::serf_wire),
    ("server_wire", targets::server_wire),
    ("storage", targets::storage),
];
