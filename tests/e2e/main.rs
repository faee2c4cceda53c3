//! The built binary as a user meets it, on loopback addresses.

mod bad_input;
mod checks;
mod cluster;
mod founding_page;
mod reload;
