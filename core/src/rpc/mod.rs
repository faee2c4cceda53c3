//! Requests between agents over the server port.

mod trace;

pub use trace::RpcTrace;
