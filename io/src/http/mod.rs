//! HTTP/1.1: the API of the agent, and a small client for checks and the command line.
//!
//! Parsing, routing and rendering are plain functions over bytes and values; sockets stand around
//! them in one place each.

pub mod api;
pub mod cache;
pub mod chunked;
pub mod client;
pub mod connection;
pub mod decode;
pub mod executions;
pub mod file;
pub mod json;
pub mod listen;
pub mod own;
pub mod parse;
pub mod render;
pub mod rendered;
pub mod respond;
pub mod router;
pub mod server;
pub mod settings;
pub mod stream;
pub mod target;
