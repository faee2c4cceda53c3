//! Starts the built `terraform` binary on loopback addresses and watches it from outside.
//!
//! Each agent of a test has a loopback address of its own, so that all of them use the default
//! ports. The binary is `$TERRAFORM_BIN`, or is built once with `-p agent` alone: a workspace build
//! would carry the simulator's feature. Nothing here sleeps but [`wait_until`]
//! and [`torture`].

#![expect(clippy::indexing_slicing, reason = "a panic is how a test fails")]

pub mod compat;
pub mod torture;

mod agent;
mod connection;
mod flags;
mod folder;
mod http;
mod random;
mod serf;

pub use agent::{Agent, Options, binary, command, loopback};
pub use connection::{Answer, Connection};
pub use flags::Flags;
pub use folder::Folder;
pub use http::{Response, get, put, raw};
pub use random::Random;
pub use serf::{SerfAgent, Statuses, serf, serf_command, serf_members};

use std::time::{Duration, Instant};

/// Waits until `condition` gives a value, or panics with `what` after `limit`.
pub fn wait_until<T>(what: &str, limit: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// How long anything that takes a leader, a suspicion or a synchronisation may take here.
pub const LONG: Duration = Duration::from_secs(90);
