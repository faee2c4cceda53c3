//! Binds the pure core to sockets, files, clocks and processes; decides nothing.

pub mod clock;
pub mod duration;
pub mod handle;
pub mod http;
pub mod storage;
pub mod system;
