//! The built binary as a user meets it, on loopback addresses.

#![expect(clippy::indexing_slicing, reason = "a panic is how a test fails")]

mod bad_input;
mod catalog;
mod checks;
mod cluster;
mod configuration;
mod coordinates;
mod crash;
mod damage;
mod debug;
mod dns;
mod encryption;
mod events;
mod exec;
mod founding_page;
mod full_disk;
mod kv;
mod listeners;
mod lock;
mod logging;
mod maintenance;
mod malformed;
mod membership;
mod monitoring;
mod operator;
mod process_one;
mod reload;
mod replay;
mod serf_commands;
mod serf_peer;
mod sessions;
mod settings;
mod snapshot;
mod torture;
mod wan;
mod watch;
mod watches;
