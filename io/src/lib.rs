//! Binds the pure core to sockets, files, clocks and processes; decides nothing.

pub mod agent;
pub mod archive;
pub mod bell;
pub mod checks;
pub mod civil;
pub mod clock;
pub mod dns;
pub mod driver;
pub mod duration;
pub mod entropy;
pub mod event;
pub mod fanout;
pub mod handle;
pub mod http;
pub mod ipc;
pub mod log;
pub mod oneshot;
pub mod program;
pub mod record;
pub mod resolve;
pub mod runtime;
pub mod storage;
pub mod stream;
pub mod system;
pub mod telemetry;
mod tls;
pub mod udp;
