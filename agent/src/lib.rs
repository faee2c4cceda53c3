//! The `terraform` binary as a library: command line, configuration, output.
//!
//! `main` does nothing but call [`cli::run`]; everything else is here so that tests and fuzz
//! targets reach it.

pub mod cli;
pub mod config;
mod joining;
mod logger;
mod output;
mod pid_file;
mod reload;
mod running;
mod signals;
mod watch;

/// The level of Consul's interface that this program answers as; clients compare it.
pub const API_VERSION: &str = "1.8.7";
