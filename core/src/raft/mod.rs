//! Consensus (Raft thesis), pure.

pub mod bootstrap;
mod entry;
mod event;
mod message;
mod settings;
mod trace;

pub use bootstrap::BootstrapTrace;
pub use entry::{
    Configuration, Entry, EntryKind, HardState, IdentityChange, PersistBatch, PersistSeq,
    ProposalError, ProposalId, RestoredRaft, Server,
};
pub use event::{Lane, RaftInput, RaftOutput, RoleKind};
pub use message::{Append, AppendReject, Body, Campaign, Header, Message, Refusal};
pub use settings::{RaftLimits, RaftSettings, Timing};
pub use trace::RaftTrace;
