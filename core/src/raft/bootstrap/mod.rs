//! How the first configuration of a cluster comes about (raft.md §10.5), as a machine of its own.

mod event;
mod trace;

pub use event::{
    BootstrapInput, BootstrapMessage, BootstrapOutput, BootstrapSettings, Promise, Verdict,
};
pub use trace::BootstrapTrace;
