//! Whole clusters in one thread: the shipped core in a simulated world.
//!
//! A [`world::World`] has hosts, links, disks and time; [`run::run`] drives one world through
//! start, faults, healing and rest, with clients ([`workload`], [`kv`], [`watch`], [`finder`]) and
//! [`checker`] watching;
//! [`plan::Plan`] makes one of a seed. The same seed gives the same hash, always.

#![expect(
    clippy::indexing_slicing,
    reason = "hosts are numbered by the world itself; a wrong number is a bug that must end the run"
)]

pub mod ambush;
pub mod bench;
pub mod checker;
pub mod cli;
pub mod coverage;
pub mod detection;
pub mod disk;
pub mod durable;
pub mod federation;
pub mod finder;
pub mod gossip;
pub mod hash;
pub mod host;
pub mod kv;
pub mod lifeguard;
pub mod luck;
pub mod net;
pub mod plan;
pub mod pool;
pub mod question;
pub mod queue;
pub mod recover;
pub mod replay;
pub mod rot;
pub mod run;
pub mod scenario;
pub mod script;
pub mod shrink;
pub mod source;
pub mod streams;
pub mod swim;
pub mod trace;
pub mod watch;
pub mod workload;
pub mod world;
