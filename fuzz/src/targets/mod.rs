//! The targets, one file for each family.

mod gossip_wire;
mod http;
mod ipc;
mod pack;
mod serf_wire;
mod server_wire;
mod storage;

pub use gossip_wire::gossip_wire;
pub use http::http;
pub use ipc::ipc;
pub use pack::{pack, raft_wire};
pub use serf_wire::serf_wire;
pub use server_wire::server_wire;
pub use storage::storage;
