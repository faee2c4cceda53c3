//! The pure core of the terraform agent.
//!
//! [`node`] holds the one type a host drives. Nothing in this crate reads a clock, a socket, a
//! file, the environment or a random device; time, bytes and a seed are handed in, and what is
//! wanted comes out as values. The same seed and the same inputs give the same outputs, bit for
//! bit.

#![cfg_attr(
    feature = "sim",
    expect(
        clippy::disallowed_macros,
        reason = "marks count per thread; clippy heeds this lint's exceptions only here, and the \
                  shipped build, checked without the feature, has none"
    )
)]

pub mod anti_entropy;
pub mod catalog;
pub mod checks;
pub mod config;
pub mod coordinate;
pub mod dns;
pub mod durations;
pub mod event;
pub mod expression;
pub mod filter;
pub mod gossip;
pub mod id;
pub mod local;
pub mod log;
pub mod machine;
pub mod marks;
pub mod node;
pub mod raft;
pub mod reconcile;
pub mod recording;
pub mod rng;
pub mod rpc;
pub mod serf;
pub mod storage;
pub mod time;
pub mod timers;
pub mod trace;
pub mod view;
pub mod watch;
pub mod wire;
