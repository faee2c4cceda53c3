//! Configuration: files and flags, merged in a fixed order, validated into what `io` starts with.
//!
//! Order (agent-config.md §2): defaults, development defaults, list-valued flags, files and folders
//! in command-line order, scalar flags.

mod definition;
mod file;
mod keys;
mod load;
mod merge;
mod resolve;
mod telemetry;

pub use file::{FileError, Settings, Unbuilt, parse};
pub use keys::Safety;
pub use load::{LoadError, Loaded, load};
pub use merge::overlay;
pub use resolve::{Joins, Machine, ResolveError, Resolved, resolve, with_recursors};
pub use telemetry::TelemetrySettings;
