//! One agent: input in, outputs out.

pub mod input;
pub mod output;
pub mod request;
mod trace;

pub use trace::NodeTrace;
