//! The targets, one file for each family.

mod archive;
mod config_hcl;
mod config_json;
mod dns;
mod filter;
mod gossip_wire;
mod grpc;
mod http;
mod image;
mod ipc;
mod node;
mod pack;
mod recording;
mod serf_wire;
mod server_wire;
mod storage;

pub use archive::archive;
pub use config_hcl::config_hcl;
pub use config_json::config_json;
pub use dns::dns;
pub use filter::filter;
pub use gossip_wire::gossip_wire;
pub use grpc::grpc;
pub use http::http;
pub use image::image;
pub use ipc::ipc;
pub use node::node;
pub use pack::{pack, raft_wire};
pub use recording::recording;
pub use serf_wire::serf_wire;
pub use server_wire::server_wire;
pub use storage::storage;
