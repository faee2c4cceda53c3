//! Captured and hand-made bytes of real agents against the codecs (gossip-wire.md §13).

#[cfg(test)]
mod common;
#[cfg(test)]
mod gossip;
#[cfg(test)]
mod ipc;
